//! A dump that goes through other formats and comes back has lost nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use vmcore::{
    Compression, DumpOptions, DumpState, Error, ExecuteOptions, Layout, Machine, Order, ReadAt, Share, Sink,
    execute_all, format, wrapper,
};
use vmcore_synth::strategy::machines;

/// A file in memory.
#[derive(Default)]
struct Buffer(Mutex<Vec<u8>>);

impl Sink for Buffer {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = self.0.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let len = file.len().max(start + bytes.len());
        file.resize(len, 0);
        file[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn order(&self) -> Order {
        Order::Any
    }

    fn finish(&self, len: u64) -> std::io::Result<()> {
        self.0.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
}

/// Writes the dump, in several files if it can be split so, and opens it again.
fn through(machine: &Machine, route: Route) -> Result<Machine, Error> {
    let format = format::by_name(route.format)?;
    let compression = (route.format == "kdump").then_some(route.compression);
    let options = DumpOptions { compression, all_memory: true, ..DumpOptions::default() };
    let count = if format.abilities().shares { route.files } else { 1 };
    let plan_share = |index| {
        let share = Some(Share { index, count });
        format.plan(machine, &DumpOptions { share, ..options.clone() })
    };
    let shares = (0..count).map(plan_share).collect::<Result<Vec<_>, Error>>();
    let layouts = match shares {
        Ok(shares) if count > 1 => shares,
        // One file, or too little memory for so many.
        Ok(_) | Err(Error::Unsupported { .. } | Error::TooLarge { .. }) => {
            vec![format.plan(machine, &options)?]
        }
        Err(error) => return Err(error),
    };
    let buffers: Vec<Buffer> = layouts.iter().map(|_| Buffer::default()).collect();
    let mut streams = vec![Vec::new(); layouts.len()];
    let run = |sinks: Vec<&dyn Sink>| {
        let files: Vec<(&Layout, &dyn Sink)> = layouts.iter().zip(sinks).collect();
        execute_all(&files, &*machine.memory, ExecuteOptions::default(), &DumpState::default())
    };
    let files = if route.is_flat {
        let flat = wrapper::by_name("flat")?;
        let sinks: Vec<_> = streams.iter_mut().map(|stream| flat.sink(Box::new(stream))).collect();
        run(sinks.iter().map(|sink| &**sink).collect())?;
        drop(sinks);
        streams
    } else {
        run(buffers.iter().map(|buffer| -> &dyn Sink { buffer }).collect())?;
        buffers.into_iter().map(|buffer| buffer.0.into_inner().unwrap()).collect()
    };
    let opened =
        format::open(files.into_iter().map(|bytes| -> Arc<dyn ReadAt> { Arc::new(bytes) }).collect())?;
    assert_eq!((opened.format, opened.wrapper), (route.format, route.is_flat.then_some("flat")));
    Ok(opened.machine)
}

#[derive(Clone, Copy, Debug)]
struct Route {
    format: &'static str,
    compression: Compression,
    is_flat: bool,
    files: u32,
}

fn routes() -> impl Strategy<Value = Vec<Route>> {
    let route = (
        prop::sample::select(vec!["elf", "kdump", "vbox"]),
        prop::sample::select(Compression::ALL.to_vec()),
        any::<bool>(),
        1..4_u32,
    );
    let route =
        route.prop_map(|(format, compression, is_flat, files)| Route { format, compression, is_flat, files });
    prop::collection::vec(route, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn converting_loses_nothing(machine in machines(), routes in routes()) {
        // A kdump dump without a note of a vCPU does not say which machine it is of, but for `uname`, which is enough.
        let mut back = machine.clone();
        for route in routes {
            // VirtualBox has guests of x86 only.
            let is_x86 = machine.arch.is_some_and(|arch| ["x86_64", "i386"].contains(&arch.name()));
            let format = if is_x86 || route.format != "vbox" { route.format } else { "elf" };
            back = through(&back, Route { format, ..route })?;
        }
        prop_assert_eq!(back.arch.map(vmcore::Arch::name), machine.arch.map(vmcore::Arch::name));
        prop_assert_eq!(back.encode_notes(), machine.encode_notes());
        prop_assert_eq!(&back.guest_note, &machine.guest_note);
        for region in machine.memory.regions() {
            let read = |machine: &Machine| {
                let mut bytes = vec![0xff; usize::try_from(region.len).unwrap()];
                let unreadable = machine.memory.read_at(region.gpa, &mut bytes).unwrap();
                (bytes, unreadable)
            };
            prop_assert!(read(&back) == read(&machine), "{:?}", region);
        }
    }
}
