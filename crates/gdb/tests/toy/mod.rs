//! A machine small enough to know by heart: what the tests of the engine talk about.
//!
//! It has three registers of 64 bits (`r0`, `r1`, `pc`), a hole, flags of 32 bits, and a vector of 128 bits that is
//! not in `g`. Its instructions are four bytes long and do nothing but go on; the one at [`Toy::TOUCH`] touches
//! the address in `r0`. Virtual address = physical address + [`Toy::BASE`].

#![allow(dead_code, reason = "each test uses another part")]

pub(crate) mod hostile;

use std::fmt::{self, Write};
use vmcore_gdb::*;

/// The machine, and what was done to it.
#[derive(Clone, Debug)]
pub(crate) struct Toy {
    /// Whether it is a machine that runs, or what is left of one.
    pub(crate) is_live: bool,
    pub(crate) threads: Vec<(ThreadId, [u64; 4])>,
    pub(crate) vector: u128,
    pub(crate) ram: Vec<u8>,
    pub(crate) breakpoints: Vec<Breakpoint>,
    pub(crate) step_flags: u8,
    /// How each thread was told to go on; empty while it stands still.
    pub(crate) plan: Vec<Option<Action>>,
    pub(crate) is_interrupted: bool,
    /// System calls that it would stop at; the greatest number for all.
    pub(crate) caught: Vec<u32>,
    /// The tag of all memory.
    pub(crate) tag: u8,
    /// Its `target.xml`.
    pub(crate) document: String,
    /// Everything else that was asked of it.
    pub(crate) log: String,
}

pub(crate) const TARGET_XML: &str = "<?xml version=\"1.0\"?>\n<target><architecture>i386:x86-64</architecture>\
    <feature name=\"toy\"><reg name=\"r0\" bitsize=\"64\"/></feature></target>\n";

impl Toy {
    /// Virtual address of physical address 0.
    pub(crate) const BASE: u64 = 0x1000;
    /// Where an instruction touches memory.
    pub(crate) const TOUCH: u64 = 0x1100;
    const LENGTHS: [Option<usize>; 6] = [Some(8), Some(8), Some(8), None, Some(4), Some(16)];

    /// A machine that runs, of two vCPUs.
    pub(crate) fn live() -> Self {
        Self::new(true, &[1, 1])
    }

    /// A machine that does not run any more.
    pub(crate) fn dump() -> Self {
        Self::new(false, &[1, 1])
    }

    /// A machine with a vCPU for each process named.
    pub(crate) fn new(is_live: bool, processes: &[u32]) -> Self {
        let ids = processes.iter().zip(1..).map(|(process, thread)| ThreadId { process: *process, thread });
        let threads = ids.map(|id| (id, [0x11 * u64::from(id.thread), 0x1800, 0x1000, 2])).collect();
        let ram = (0..=255).cycle().take(0x1000).chain([0; 0x1000]).collect();
        Self {
            is_live,
            threads,
            vector: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
            ram,
            breakpoints: Vec::new(),
            step_flags: 0,
            plan: Vec::new(),
            is_interrupted: false,
            caught: Vec::new(),
            tag: 7,
            document: TARGET_XML.to_owned(),
            log: String::new(),
        }
    }

    fn index(&self, thread: ThreadId) -> usize {
        self.threads
            .iter()
            .position(|(id, _)| *id == thread)
            .expect("the engine asks for threads that are there")
    }

    fn range(&self, gpa: u64, len: usize) -> Result<std::ops::Range<usize>, Error> {
        let start = usize::try_from(gpa).ok().filter(|start| *start < self.ram.len()).ok_or(Error::FAULT)?;
        Ok(start..start.saturating_add(len).min(self.ram.len()))
    }

    /// Lets each thread execute what it may, `steps` instructions at most, and tells of the stop.
    pub(crate) fn run(&mut self, steps: usize) -> Option<Stop> {
        let stop = (0..steps).find_map(|_| self.round());
        let interrupted = Stop { thread: self.threads[0].0, reason: StopReason::Interrupted };
        let stop = stop.or_else(|| (self.is_interrupted && !self.plan.is_empty()).then_some(interrupted));
        if stop.is_some() {
            self.plan.clear();
            self.is_interrupted = false;
        }
        stop
    }

    /// One instruction of each thread.
    fn round(&mut self) -> Option<Stop> {
        (0..self.threads.len()).find_map(|index| {
            let action = self.plan.get(index).copied().flatten()?;
            self.step(index, action)
        })
    }

    fn step(&mut self, index: usize, action: Action) -> Option<Stop> {
        let (thread, registers) = &mut self.threads[index];
        let thread = *thread;
        let here = registers[2];
        registers[2] = here.wrapping_add(4);
        let (touched, next) = (registers[0], registers[2]);
        let reason = self.breakpoints.iter().find_map(|breakpoint| match breakpoint.kind {
            BreakpointKind::Watch(access) => {
                let is_hit = here == Self::TOUCH
                    && (breakpoint.address..=breakpoint.address + (breakpoint.len - 1)).contains(&touched);
                is_hit.then_some(StopReason::Watchpoint { access, address: touched })
            }
            BreakpointKind::Software => {
                (breakpoint.address == next).then_some(StopReason::SoftwareBreakpoint)
            }
            BreakpointKind::Hardware => {
                (breakpoint.address == next).then_some(StopReason::HardwareBreakpoint)
            }
        });
        let reason = reason.or(match action {
            Action::Continue { .. } => None,
            Action::Step { .. } => Some(StopReason::TRAP),
            Action::StepRange { start, end } => (!(start..end).contains(&next)).then_some(StopReason::TRAP),
        });
        reason.map(|reason| Stop { thread, reason })
    }
}

impl Target for Toy {
    fn thread(&self, index: usize) -> Option<ThreadId> {
        self.threads.get(index).map(|(id, _)| *id)
    }
    fn stop(&self) -> Stop {
        let crashed = if self.is_live { 0 } else { self.threads.len() - 1 };
        Stop { thread: self.threads[crashed].0, reason: StopReason::TRAP }
    }
    fn description(&self, _: u32, annex: &str) -> Option<&[u8]> {
        (annex == "target.xml").then_some(self.document.as_bytes())
    }
    fn g_count(&self, _: ThreadId) -> u32 {
        5
    }
    fn register_len(&self, _: ThreadId, number: u32) -> Option<usize> {
        Self::LENGTHS.get(number as usize).copied().flatten()
    }
    fn read_register(&mut self, thread: ThreadId, number: u32, value: &mut [u8]) -> Result<Presence, Error> {
        let registers = self.threads[self.index(thread)].1;
        match number {
            0..=2 => value.copy_from_slice(&registers[number as usize].to_le_bytes()),
            4 if !self.is_live => return Ok(Presence::Unknown),
            4 => value.copy_from_slice(&registers[3].to_le_bytes()[..4]),
            _ => value.copy_from_slice(&self.vector.to_le_bytes()),
        }
        Ok(Presence::Known)
    }
    fn write_register(&mut self, thread: ThreadId, number: u32, value: &[u8]) -> Result<(), Error> {
        if !self.is_live {
            return Err(Error::refused("a dump"));
        }
        let index = self.index(thread);
        let low = value.iter().take(8).rev().fold(0, |low, byte| low << 8 | u64::from(*byte));
        match number {
            0..=2 => self.threads[index].1[number as usize] = low,
            4 => self.threads[index].1[3] = low,
            _ => self.vector = u128::from_le_bytes(value.try_into().unwrap()),
        }
        Ok(())
    }
    fn expedited(&self, _: ThreadId) -> &[u32] {
        &[2, 4]
    }
    fn read_memory(&mut self, _: ThreadId, address: u64, buf: &mut [u8]) -> Result<usize, Error> {
        self.read(address.checked_sub(Self::BASE).ok_or(Error::FAULT)?, buf)
    }
    fn write_memory(&mut self, _: ThreadId, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.write(address.checked_sub(Self::BASE).ok_or(Error::FAULT)?, bytes)
    }
    fn thread_info(&self, thread: ThreadId, text: &mut dyn Write) -> fmt::Result {
        write!(text, "CPU#{} [halted]", thread.vcpu_index())
    }
    fn register_info(&self, _: ThreadId, number: u32) -> Option<RegisterInfo<'_>> {
        let name = *["r0", "r1", "pc"].get(number as usize).filter(|_| self.is_live)?;
        let generic = (name == "pc").then_some(name);
        Some(RegisterInfo { name, set: "General", encoding: "uint", format: "hex", generic, dwarf: None })
    }
    fn attached(&mut self, process: u32) {
        write!(self.log, "+{process} ").unwrap();
    }
    fn detached(&mut self, process: u32) {
        write!(self.log, "-{process} ").unwrap();
    }
    fn resume(&mut self) -> Option<&mut dyn Resume> {
        if self.is_live { Some(self) } else { None }
    }
    fn breakpoints(&mut self) -> Option<&mut dyn Breakpoints> {
        if self.is_live { Some(self) } else { None }
    }
    fn single_step(&mut self) -> Option<&mut dyn SingleStep> {
        if self.is_live { Some(self) } else { None }
    }
    fn reverse(&mut self) -> Option<&mut dyn Reverse> {
        if self.is_live { Some(self) } else { None }
    }
    fn kill(&mut self) -> Option<&mut dyn Kill> {
        if self.is_live { Some(self) } else { None }
    }
    fn restart(&mut self) -> Option<&mut dyn Restart> {
        if self.is_live { Some(self) } else { None }
    }
    fn syscalls(&mut self) -> Option<&mut dyn Syscalls> {
        if self.is_live { Some(self) } else { None }
    }
    fn flash(&mut self) -> Option<&mut dyn Flash> {
        if self.is_live { Some(self) } else { None }
    }
    fn memory_tags(&mut self) -> Option<&mut dyn MemoryTags> {
        if self.is_live { Some(self) } else { None }
    }
    fn physical_memory(&mut self) -> Option<&mut dyn PhysicalMemory> {
        Some(self)
    }
    fn memory_map(&mut self) -> Option<&mut dyn MemoryMap> {
        if self.is_live { Some(self) } else { None }
    }
    fn memory_regions(&mut self) -> Option<&mut dyn MemoryRegions> {
        Some(self)
    }
    fn monitor(&mut self) -> Option<&mut dyn Monitor> {
        Some(self)
    }
    fn host(&self) -> Option<Host<'_>> {
        Some(Host {
            triple: "x86_64-unknown-linux-gnu",
            is_big_endian: false,
            pointer_len: 8,
            page_size: Some(4096),
            address_bits: Some(48),
            watchpoints: Some(WatchpointReport::After),
            os_version: None,
        })
    }
    fn program(&mut self) -> Option<&mut dyn Program> {
        if self.is_live { Some(self) } else { None }
    }
    fn file_io(&mut self) -> Option<&mut dyn FileIo> {
        if self.is_live { Some(self) } else { None }
    }
    fn host_io(&mut self) -> Option<&mut dyn HostIo> {
        if self.is_live { Some(self) } else { None }
    }
    fn vendor(&mut self) -> Option<&mut dyn Vendor> {
        Some(self)
    }
}

impl Resume for Toy {
    fn resume(&mut self, actions: &Actions<'_>) -> Result<(), Error> {
        self.plan = self.threads.iter().map(|(id, _)| actions.of(*id)).collect();
        Ok(())
    }
    fn set_program_counter(&mut self, thread: ThreadId, address: u64) -> Result<(), Error> {
        let index = self.index(thread);
        self.threads[index].1[2] = address;
        Ok(())
    }
    fn interrupt(&mut self) {
        self.is_interrupted = true;
    }
}

impl Reverse for Toy {
    fn step_back(&mut self, thread: ThreadId) -> Result<(), Error> {
        let index = self.index(thread);
        self.threads[index].1[2] -= 4;
        Ok(())
    }
    fn run_back(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl Breakpoints for Toy {
    fn insert(&mut self, breakpoint: Breakpoint) -> Result<(), Error> {
        if !self.breakpoints.contains(&breakpoint) {
            self.breakpoints.push(breakpoint);
        }
        Ok(())
    }
    fn remove(&mut self, breakpoint: Breakpoint) -> Result<(), Error> {
        let place = self.breakpoints.iter().position(|other| *other == breakpoint).ok_or(Error::INVALID)?;
        self.breakpoints.remove(place);
        Ok(())
    }
    fn clear(&mut self) {
        self.breakpoints.clear();
    }
}

impl SingleStep for Toy {
    fn supported(&self) -> u8 {
        6
    }
    fn set_flags(&mut self, flags: u8) {
        self.step_flags = flags;
    }
}

impl Kill for Toy {
    fn kill(&mut self, process: Option<u32>) -> Result<(), Error> {
        write!(self.log, "kill {process:?} ").unwrap();
        Ok(())
    }
}

impl PhysicalMemory for Toy {
    fn read(&mut self, gpa: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let range = self.range(gpa, buf.len())?;
        buf[..range.len()].copy_from_slice(&self.ram[range.clone()]);
        Ok(range.len())
    }
    fn write(&mut self, gpa: u64, bytes: &[u8]) -> Result<(), Error> {
        let range = self.range(gpa, bytes.len())?;
        if !self.is_live {
            return Err(Error::refused("a dump"));
        }
        self.ram
            .get_mut(range)
            .filter(|room| room.len() == bytes.len())
            .ok_or(Error::FAULT)?
            .copy_from_slice(bytes);
        Ok(())
    }
}

impl MemoryMap for Toy {
    fn region(&self, index: usize) -> Option<Region> {
        let ram = Region { start: Self::BASE, len: self.ram.len() as u64, kind: RegionKind::Ram };
        let flash = Region { start: 0x8000, len: 0x1000, kind: RegionKind::Flash { block_size: 0x100 } };
        [ram, flash].get(index).copied()
    }
}

impl MemoryRegions for Toy {
    fn area(&mut self, _: ThreadId, address: u64) -> Result<Area, Error> {
        Ok(match address {
            0..0x1000 => Area { start: 0, last: 0xfff, permissions: None },
            0x1000..0x3000 => Area { start: 0x1000, last: 0x2fff, permissions: Some([true, false, true]) },
            _ => Area { start: 0x3000, last: u64::MAX, permissions: None },
        })
    }
}

impl Monitor for Toy {
    fn command(&mut self, thread: ThreadId, command: &str, out: &mut dyn Write) -> Result<(), Error> {
        let written = match command {
            "who" => writeln!(out, "vCPU {}", thread.vcpu_index()),
            "long" => (0..100).try_for_each(|line| writeln!(out, "line {line}")),
            _ => return Err(Error::refused("no such command")),
        };
        written.map_err(|_| Error::NO_ROOM)
    }
}

impl Vendor for Toy {
    fn packet(&mut self, _: ThreadId, body: &[u8], reply: &mut dyn Write) -> Result<(), Error> {
        match body {
            b"qToy" => reply.write_str("toy").map_err(|_| Error::NO_ROOM),
            _ => Err(Error::UNSUPPORTED),
        }
    }
}

impl Program for Toy {
    fn auxv(&self, _: ThreadId) -> Option<&[u8]> {
        Some(b"\x06\0*}")
    }
    fn exec_file(&self, _: u32) -> Option<&[u8]> {
        Some(b"/boot/toy")
    }
    fn offsets(&self) -> Option<Offsets> {
        Some(Offsets::Segment(0x1000))
    }
    fn documents(&self) -> &[Document] {
        &[Document::Libraries, Document::Siginfo]
    }
    fn document(&self, thread: ThreadId, document: Document, annex: &str) -> Option<&[u8]> {
        match (document, annex, thread.thread) {
            (Document::Libraries, "", _) => Some(b"<library-list/>"),
            (Document::Siginfo, "", 1) => Some(b"\x05\0\0\0"),
            _ => None,
        }
    }
}

impl Restart for Toy {
    fn restart(&mut self, arguments: &Arguments<'_>) -> Result<(), Error> {
        let mut buf = [0; 16];
        let words: Vec<String> = (0..)
            .map_while(|index| {
                arguments.get(index, &mut buf).map(|word| String::from_utf8_lossy(word).into())
            })
            .collect();
        write!(self.log, "run {words:?} ").unwrap();
        self.threads.iter_mut().for_each(|(_, registers)| registers[2] = 0x1000);
        Ok(())
    }
}

impl Syscalls for Toy {
    fn catch(&mut self, calls: CaughtSyscalls<'_>) {
        self.caught = match calls {
            CaughtSyscalls::None => Vec::new(),
            CaughtSyscalls::All => vec![u32::MAX],
            CaughtSyscalls::Only(list) => list.iter().collect(),
        };
        assert_eq!(calls.contains(3), matches!(self.caught[..], [u32::MAX] | [3, ..]));
    }
}

impl Flash for Toy {
    fn erase_flash(&mut self, address: u64, len: u64) -> Result<(), Error> {
        write!(self.log, "erase {address:x} {len:x} ").unwrap();
        if address.is_multiple_of(0x100) && len.is_multiple_of(0x100) { Ok(()) } else { Err(Error::INVALID) }
    }
    fn write_flash(&mut self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        write!(self.log, "flash {address:x} {bytes:x?} ").unwrap();
        Ok(())
    }
    fn finish_flash(&mut self) -> Result<(), Error> {
        self.log.push_str("done ");
        Ok(())
    }
}

impl MemoryTags for Toy {
    fn is_tagged(&mut self, _: ThreadId, address: u64) -> Result<bool, Error> {
        Ok(address < 0x2000)
    }
    fn read_tags(
        &mut self,
        _: ThreadId,
        address: u64,
        len: u64,
        kind: u32,
        tags: &mut [u8],
    ) -> Result<usize, Error> {
        let granules = usize::try_from((address + len).div_ceil(16) - address / 16).unwrap();
        let tags = tags.get_mut(..granules).filter(|_| kind == 1).ok_or(Error::FAULT)?;
        tags.fill(self.tag);
        Ok(tags.len())
    }
    fn write_tags(&mut self, _: ThreadId, _: u64, _: u64, _: u32, tags: &[u8]) -> Result<(), Error> {
        self.tag = tags[0];
        Ok(())
    }
}

impl FileIo for Toy {
    fn completed(&mut self, result: FileResult) -> Result<(), Error> {
        write!(self.log, "file {} {} ", result.value, result.errno).unwrap();
        Ok(())
    }
}

impl HostIo for Toy {
    fn open(&mut self, path: &[u8], _: u32, _: u32) -> Result<u32, Errno> {
        if path == b"/toy" { Ok(3) } else { Err(2) }
    }
    fn close(&mut self, fd: u32) -> Result<(), Errno> {
        if fd == 3 { Ok(()) } else { Err(9) }
    }
    fn pread(&mut self, fd: u32, offset: u64, buf: &mut [u8]) -> Result<usize, Errno> {
        self.close(fd)?;
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| b"a $ is escaped".get(offset..))
            .unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
    fn fstat(&mut self, fd: u32) -> Result<Stat, Errno> {
        self.close(fd)?;
        Ok(Stat { mode: 0o100_644, len: 14, modified: 1 })
    }
    fn readlink(&mut self, path: &[u8], buf: &mut [u8]) -> Result<usize, Errno> {
        match (path, buf) {
            (b"/link", [first, ..]) => {
                *first = b'x';
                Ok(1)
            }
            _ => Err(22),
        }
    }
}

/// A client that reads what it gets.
pub(crate) struct Client {
    pub(crate) engine: Engine<Vec<u8>>,
    pub(crate) target: Toy,
    /// All bytes that came, in the pieces in which they came.
    pub(crate) sent: Vec<Vec<u8>>,
}

impl Client {
    pub(crate) fn new(target: Toy) -> Self {
        Self::with_packet_size(target, 0x1000)
    }

    pub(crate) fn with_packet_size(target: Toy, packet_size: usize) -> Self {
        let engine = Engine::new(vec![0; buffer_len(packet_size)]);
        Self { engine, target, sent: Vec::new() }
    }

    /// Sends bytes and gives those that come back.
    pub(crate) fn bytes(&mut self, mut input: &[u8]) -> Vec<u8> {
        let before = self.sent.len();
        while !input.is_empty() && self.engine.status() != Status::Closed {
            input = self.engine.receive(input, &mut self.target, &mut |bytes| self.sent.push(bytes.to_vec()));
        }
        self.sent[before..].concat()
    }

    /// Sends a packet and gives the bodies of those that come back, decoded, with a blank between them.
    pub(crate) fn ask(&mut self, body: &str) -> String {
        self.ask_bytes(body.as_bytes())
    }

    pub(crate) fn ask_bytes(&mut self, body: &[u8]) -> String {
        let reply = self.bytes(&frame(body));
        self.bytes(b"+");
        bodies(&reply)
            .iter()
            .map(|body| String::from_utf8_lossy(body).into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Lets the machine run, and gives the stop reply.
    pub(crate) fn run(&mut self) -> String {
        let before = self.sent.len();
        if let Some(stop) = self.target.run(1000) {
            self.engine.stopped(stop, &mut self.target, &mut |bytes| self.sent.push(bytes.to_vec()));
        }
        let reply = self.sent[before..].concat();
        bodies(&reply).iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect()
    }
}

/// A packet around a body that needs no escapes.
pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", body, format!("#{sum:02x}").as_bytes()].concat()
}

/// The bodies of the packets in a stream, their checksums checked, runs and escapes undone.
pub(crate) fn bodies(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut rest = stream;
    while let Some(start) = rest.iter().position(|byte| *byte == b'$') {
        let end = start + rest[start..].iter().position(|byte| *byte == b'#').expect("a packet ends");
        let raw = &rest[start + 1..end];
        assert_eq!(frame(raw), rest[start..end + 3], "the checksum is right");
        bodies.push(decode(raw));
        rest = &rest[end + 3..];
    }
    bodies
}

fn decode(raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut bytes = raw.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'}' => body.push(bytes.next().unwrap() ^ 0x20),
            b'*' => {
                let last = *body.last().unwrap();
                body.extend(std::iter::repeat_n(last, usize::from(bytes.next().unwrap() - 29)));
            }
            byte => body.push(*byte),
        }
    }
    body
}
