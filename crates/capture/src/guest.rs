//! A QEMU guest: the whole conversation from the greeting to the moment at which it runs again.
//!
//! Everything slow is done while it runs: finding the process, the memory map, the files behind it. The pause holds one
//! command, the headers, and what the caller reads. The order is that of `spec/live-capture.md` section 3.

use crate::address::Address;
use crate::backing::{Backing, Classifier, Piece};
use crate::error::CaptureError;
use crate::gate::Gate;
use crate::hold::Hold;
use crate::locate::{self, Located};
use crate::memory::ProcessMemory;
use crate::pagemap::Pagemap;
use crate::pipe::{Pipe, PipeReader};
use crate::process::Process;
use crate::qmp::Qmp;
use crate::query;
use crate::stub::Choice;
use crate::transport::Transport;
use crate::{find, registers, stub};
use serde_json::json;
use std::io::IoSliceMut;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use vmcore_core::{
    Arch, AttachOptions, Attached, Error, Estimate, LetGo, Machine, PhysMemory, Preview, ReadAt, Released,
    Severity, arch, format,
};

/// How long a dump that ended too early may take to say why.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);

/// How much QEMU writes ahead of us into a dump that is not read; the system makes it a page.
const HELD_PIPE_LEN: usize = 1;
/// How much QEMU writes ahead of us when the dump is read to its end: the most that any user may ask for.
const STREAM_PIPE_LEN: usize = 1 << 20;

/// What keeps a guest stopped: the pipe that QEMU writes to, and the gate that says whether memory still counts.
type Held = (Arc<Pipe>, Arc<Gate>);

/// A QEMU guest that this program is connected to.
#[derive(Debug)]
pub(crate) struct QemuGuest {
    qmp: Qmp,
    options: AttachOptions,
    description: String,
    warnings: Vec<String>,
    estimate: Estimate,
    /// Its architecture, if it is linked in.
    arch: Option<&'static dyn Arch>,
    predicted: Vec<Located>,
    /// Its memory, unless that comes from QEMU's stream.
    host: Option<Host>,
    /// The pipe for the next hold.
    transport: Option<Transport>,
    hold: Option<Hold>,
    /// What keeps the guest stopped now, for [`Attached::let_go`].
    held: Arc<Mutex<Option<Held>>>,
    released: Option<Released>,
}

/// QEMU's process on this host, and what of its memory is the guest's.
#[derive(Debug)]
struct Host {
    process: Arc<Process>,
    pagemap: Option<Arc<Pagemap>>,
    can_read_process: bool,
    pieces: Vec<Piece>,
}

impl QemuGuest {
    /// Connects, and finds out all that can be known while the guest runs.
    pub(crate) fn attach(address: &Address, options: &AttachOptions) -> Result<Self, CaptureError> {
        let mut qmp = Qmp::connect(address)?;
        let status = query::status(&mut qmp)?;
        query::check(&mut qmp, &status)?;
        let target = query::target(&mut qmp)?;
        let threads = query::vcpu_threads(&mut qmp)?;
        let map = locate::memory_map(&mut qmp)?;
        let predicted = locate::predict(&mut qmp, &map)?;
        if predicted.is_empty() {
            return Err(CaptureError::Malformed {
                during: "to `info mtree -f` and `gpa2hva`".to_owned(),
                said: "no memory that can be dumped".to_owned(),
            });
        }
        let ram_len = map.regions.iter().map(|region| region.len).sum();
        let transport = Transport::new(&mut qmp)?;
        let mut warnings = Vec::new();
        if map.has_assigned_device {
            let text = "a device of the host is assigned to the guest (VFIO); it may write memory while the guest is stopped";
            warnings.push(text.to_owned());
        }
        let mut description = format!(
            "QEMU {}, {target}, {} vCPUs, {} MiB of memory, {}",
            qmp.version(),
            threads.len(),
            ram_len >> 20,
            status.name
        );
        let mut guest = Self {
            qmp,
            options: options.clone(),
            description: String::new(),
            warnings: Vec::new(),
            estimate: Estimate { regions: map.regions.clone(), used_len: ram_len },
            arch: arch::by_name(&target).ok(),
            predicted,
            host: None,
            transport: Some(transport),
            hold: None,
            held: Arc::default(),
            released: None,
        };
        if options.stream_memory {
            let text = "QEMU's own stream reads all of the guest's memory; a shared memory backend then takes all of it on the host";
            warnings.push(text.to_owned());
        } else {
            let host = guest.find_host(&threads, &mut warnings)?;
            description += &format!(", process {}", host.process.pid());
            guest.estimate.used_len = guest.memory_now(&host).used_len();
            guest.host = Some(host);
        }
        guest.description = description;
        guest.warnings = warnings;
        Ok(guest)
    }

    /// Its memory, as it is known before the guest is stopped.
    fn memory_now(&self, host: &Host) -> ProcessMemory {
        let regions = self.predicted.iter().map(|located| located.region).collect();
        host.memory(regions, host.pieces.clone(), Arc::default())
    }

    /// Finds QEMU's process and makes sure that its memory may be read.
    fn find_host(
        &mut self,
        threads: &[Option<i32>],
        warnings: &mut Vec<String>,
    ) -> Result<Host, CaptureError> {
        let passed = self.transport.as_ref().filter(|transport| transport.is_passed());
        let process = find::process(threads, self.qmp.peer_pid(), passed.map(|transport| &transport.stat))?;
        let vmas = process.maps().map_err(|error| process.denied("the memory map", error))?;
        // The first readable mapping is QEMU's program: reading a byte of it changes nothing of the guest.
        let program = vmas.iter().find(|vma| vma.is_readable).map_or(0, |vma| vma.range.start);
        let probe = process.read_memory(&[(program, 1)], &mut [IoSliceMut::new(&mut [0])]);
        let can_read_process = probe.is_ok();
        let mut classifier = Classifier::new(&process, can_read_process)
            .map_err(|error| process.denied("the file descriptors", error))?;
        let pieces = locate::pieces(&self.predicted, &vmas, &mut classifier)?;
        let len_if = |is_it: fn(&Backing) -> bool| -> u64 {
            pieces.iter().filter(|piece| is_it(&piece.backing)).map(Piece::len).sum()
        };
        let opaque = len_if(|backing| matches!(backing, Backing::Other));
        if opaque > 0 {
            warnings.push(format!(
                "the file behind {} MiB of memory cannot be opened: what the guest never used of it is read too, and then \
                 takes memory of the host; as root it is not read",
                opaque.div_ceil(1 << 20)
            ));
        }
        if let Err(error) = probe {
            let denied = len_if(|backing| matches!(backing, Backing::Denied));
            if len_if(|backing| matches!(backing, Backing::Shared { .. })) <= denied {
                return Err(process.denied("the memory", error));
            }
            let yama = process.denied("the private memory (ROM, video memory)", error);
            warnings.push(format!("{} KiB will be zero in the dump: {yama}", denied >> 10));
        }
        let pagemap = Pagemap::open(&process).ok().map(Arc::new);
        Ok(Host { process: Arc::new(process), pagemap, can_read_process, pieces })
    }

    /// Stops the guest; what it is becomes known.
    fn stop(&mut self) -> Result<Machine, Error> {
        let before = query::status(&mut self.qmp)?;
        query::check(&mut self.qmp, &before)?;
        let transport = match self.transport.take() {
            Some(transport) => transport,
            None => Transport::new(&mut self.qmp)?,
        };
        let (protocol, stat, is_passed) = (transport.protocol(), transport.stat, transport.is_passed());
        let (read_end, way) = transport.into_parts();
        self.qmp.clear_events();
        let hold = self.hold.insert(Hold::new(Pipe::new(read_end), before, self.options.max_pause)?);
        let (pipe, gate) = (Arc::clone(&hold.pipe), Arc::clone(&hold.gate));
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Arc::clone(&pipe), Arc::clone(&gate)));
        pipe.set_len(if self.options.stream_memory { STREAM_PIPE_LEN } else { HELD_PIPE_LEN });
        let arguments = json!({ "paging": false, "protocol": protocol, "format": "elf", "detach": true });
        if let Err(error) = self.qmp.execute("dump-guest-memory", &arguments) {
            way.abandon(&mut self.qmp);
            return Err(error.into());
        }
        // From here on the guest stands still. The FIFO, if it is one, is open at both ends and needs its name no more.
        drop(way);
        if let Some(hold) = &mut self.hold {
            hold.started();
            hold.see(query::status(&mut self.qmp)?);
        }
        let reader = Arc::new(PipeReader::new(pipe, Arc::clone(&gate)));
        let opened = format::by_name("elf")?.open(Arc::clone(&reader) as Arc<dyn ReadAt>);
        let mut machine = opened.map_err(|error| self.reason(error))?;
        // What QEMU does wrong in its file is no matter of the guest.
        machine.findings.retain(|finding| finding.severity > Severity::Note);
        // QEMU 7.2 leaves the numbers of ppc64's vCPUs zero.
        machine.number_vcpus();
        // Without the plugin of its architecture there are no vCPUs to be completed.
        if self.options.extra_registers && !machine.vcpus.is_empty() {
            let warnings = if registers::are_of(&machine.identity) {
                [
                    registers::add(&mut machine, &mut self.qmp)?,
                    stub::add(&mut machine, &mut self.qmp, Choice::Only(registers::UNPRINTED))?,
                ]
            } else {
                [stub::add(&mut machine, &mut self.qmp, Choice::Missing)?, None]
            };
            if let Some(hold) = &mut self.hold {
                hold.warnings.extend(warnings.into_iter().flatten());
            }
        }
        match &self.host {
            None => reader.stream(),
            Some(host) => {
                if !is_passed && !host.process.has_open(&stat).unwrap_or(false) {
                    let reason = format!("process {} does not write the dump", host.process.pid());
                    return Err(CaptureError::NoProcess { reason }.into());
                }
                machine.memory = self.memory_of(machine.memory.regions().to_vec(), gate)?;
            }
        }
        Ok(machine)
    }

    /// The memory of these regions, in QEMU's process.
    fn memory_of(
        &mut self,
        regions: Vec<vmcore_core::Region>,
        gate: Arc<Gate>,
    ) -> Result<Arc<dyn PhysMemory>, CaptureError> {
        let located = locate::locate(&mut self.qmp, &regions, &self.predicted)?;
        let Some(host) = &self.host else {
            return Err(CaptureError::NoProcess { reason: "it was not looked for".to_owned() });
        };
        let pieces = if located == self.predicted {
            host.pieces.clone()
        } else {
            let process = &host.process;
            let vmas = process.maps().map_err(|error| process.denied("the memory map", error))?;
            let mut classifier = Classifier::new(process, host.can_read_process)
                .map_err(|error| process.denied("the file descriptors", error))?;
            locate::pieces(&located, &vmas, &mut classifier)?
        };
        Ok(Arc::new(host.memory(regions, pieces, gate)))
    }

    /// Why the dump ended before its headers: QEMU says it in an event.
    fn reason(&mut self, error: Error) -> CaptureError {
        if self.hold.as_ref().is_some_and(|hold| hold.gate.is_expired()) {
            return CaptureError::Expired { max_pause: self.options.max_pause.unwrap_or_default() };
        }
        let _ = self.qmp.wait_for("DUMP_COMPLETED", Instant::now() + REASON_TIMEOUT);
        let ended = self.qmp.events().find(|event| event.name == "DUMP_COMPLETED");
        let reason = ended.and_then(|event| event.data["error"].as_str()).map(crate::error::clip);
        CaptureError::DumpFailed {
            reason: reason.unwrap_or_else(|| "it does not say why".to_owned()),
            source: Some(Box::new(error)),
        }
    }
}

impl Host {
    fn memory(
        &self,
        regions: Vec<vmcore_core::Region>,
        pieces: Vec<Piece>,
        gate: Arc<Gate>,
    ) -> ProcessMemory {
        ProcessMemory::new(regions, pieces, Arc::clone(&self.process), self.pagemap.clone(), gate)
    }
}

impl Attached for QemuGuest {
    fn description(&self) -> String {
        self.description.clone()
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn estimate(&self) -> Estimate {
        self.estimate.clone()
    }

    fn preview(&self) -> Option<Preview> {
        let memory = Arc::new(self.memory_now(self.host.as_ref()?));
        Some(Preview { arch: self.arch, memory })
    }

    fn hold(&mut self) -> Result<Machine, Error> {
        self.release()?;
        self.stop().inspect_err(|_| {
            // The first error is the one that counts.
            let _ = self.release();
        })
    }

    fn let_go(&self) -> LetGo {
        let held = Arc::clone(&self.held);
        Arc::new(move || {
            if let Some((pipe, gate)) = &*held.lock().unwrap_or_else(PoisonError::into_inner) {
                // In this order: what is read from now on may be newer than the registers.
                gate.expire();
                pipe.close();
            }
        })
    }

    fn release(&mut self) -> Result<Released, Error> {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let Some(mut hold) = self.hold.take() else {
            return Ok(self.released.clone().unwrap_or_default());
        };
        hold.let_go();
        let process = self.host.as_ref().map(|host| &*host.process);
        let released = hold.settle(&mut self.qmp, process)?;
        self.released = Some(released.clone());
        Ok(released)
    }
}

impl Drop for QemuGuest {
    fn drop(&mut self) {
        // Whoever wants to know how it ended has called `release` before.
        let _ = self.release();
        if let Some(transport) = self.transport.take() {
            let (_, way) = transport.into_parts();
            way.abandon(&mut self.qmp);
        }
    }
}

#[cfg(test)]
#[path = "guest_tests.rs"]
mod tests;
