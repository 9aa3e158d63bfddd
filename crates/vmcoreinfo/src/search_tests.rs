//! Guests with several notes, of which one is right; and memory that is hostile.

use crate::{Candidate, Evidence, Guest, Level, Origin, Outcome, Shape, Way, complete, recheck, search};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vmcore_core::memory::BlockMemory;
use vmcore_core::{
    DumpState, Endianness, Error, Gpa, Machine, Note, PhysMemory, Region, RegisterFile, Run, RunState,
    Unreadable, arch,
};
use vmcore_synth::{GuestBuilder, PageTables};

/// Where Linux on x86_64 is linked to lie.
const TEXT: u64 = 0xffff_ffff_8100_0000;
const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;
const RAM: u64 = 64 << 20;
const RAM_LEN: usize = 64 << 20;

/// A kernel in memory: 2 MiB at `image`, its page tables right behind.
#[derive(Clone, Copy)]
struct Kernel {
    release: &'static str,
    image: u64,
}

const LIVE: Kernel = Kernel { release: "6.1.0-live", image: 0x200_0000 };
const STALE: Kernel = Kernel { release: "6.1.0-stale", image: 0x100_0000 };

impl Kernel {
    fn tables(self) -> PageTables {
        PageTables::new(self.image + 0x20_0000).map(TEXT, self.image, 21)
    }

    fn text(self) -> String {
        let phys_base = self.image.wrapping_sub(TEXT - IMAGE_BASE).cast_signed();
        let root = self.tables().root().wrapping_sub(phys_base.cast_unsigned()).wrapping_add(IMAGE_BASE);
        format!(
            "OSRELEASE={}\nPAGESIZE=4096\nSYMBOL(init_uts_ns)={:x}\nOFFSET(uts_namespace.name)=0\n\
             SYMBOL(init_top_pgt)={root:x}\nNUMBER(phys_base)={phys_base}\nKERNELOFFSET=1000000\n",
            self.release,
            TEXT + 0x1000,
        )
    }

    /// Puts the kernel's image and page tables there.
    fn load(self, guest: GuestBuilder) -> GuestBuilder {
        let mut uts = Vec::new();
        for field in ["Linux", "host", self.release, "#1", "x86_64", "(none)"] {
            uts.extend(field.bytes().chain(std::iter::repeat(0)).take(65));
        }
        guest.fill(self.image + 0x1000, &uts).page_tables(&self.tables())
    }
}

fn encoded(name: &str, text: &[u8], order: Endianness) -> Vec<u8> {
    let mut bytes = Vec::new();
    Note::new(name, 0, text.to_vec()).encode(order, &mut bytes).unwrap();
    bytes
}

fn note(text: &str) -> Vec<u8> {
    encoded("VMCOREINFO", text.as_bytes(), Endianness::Little)
}

/// RAM with the running kernel, whose page tables a vCPU uses, and an earlier one that is whole.
fn guest() -> GuestBuilder {
    let builder = vmcore_synth::guest("x86_64").unwrap().ram(0..RAM).vcpu(|registers| {
        for (name, value) in [("cr0", 1 << 31), ("cr3", LIVE.tables().root()), ("cr4", 0x20), ("efer", 0xd01)]
        {
            registers.set_value(name, value);
        }
    });
    STALE.load(LIVE.load(builder))
}

fn completed(machine: &mut Machine) -> Outcome {
    complete(machine, &[], &DumpState::default()).unwrap()
}

/// The release, place and evidence of the note that is taken; releases and places of the others; how many warnings.
#[track_caller]
fn check(builder: GuestBuilder, best: Option<(&str, u64, Level)>, others: &[(&str, u64)], warnings: usize) {
    let mut machine = builder.build().unwrap();
    let outcome = completed(&mut machine);
    let origin = match outcome.origin {
        Some(Origin::Found(found)) => Some(found),
        Some(Origin::Own(_)) => panic!("it has none of its own"),
        None => None,
    };
    let release = |candidate: &Candidate| candidate.info().release().unwrap().to_owned();
    let taken =
        origin.map(|found| (release(&found.candidate), found.candidate.gpa.0, found.evidence.level()));
    assert_eq!(taken, best.map(|(release, gpa, level)| (release.to_owned(), gpa, level)));
    assert_eq!(
        machine.vmcoreinfo().and_then(|info| info.release().map(str::to_owned)),
        taken.map(|taken| taken.0)
    );
    let found: Vec<_> =
        outcome.others.iter().map(|found| (release(&found.candidate), found.candidate.gpa.0)).collect();
    let others: Vec<_> = others.iter().map(|(release, gpa)| ((*release).to_owned(), *gpa)).collect();
    assert_eq!(found, others);
    assert_eq!(outcome.warnings.len(), warnings, "{:?}", outcome.warnings);
}

#[test]
fn the_kernel_that_a_vcpu_runs_is_taken() {
    let (live, stale) = (note(&LIVE.text()), note(&STALE.text()));
    check(guest(), None, &[], 0);
    check(guest().fill(0x180_0000, &live), Some((LIVE.release, 0x180_0000, Level::Vcpu)), &[], 0);
    // The stale one comes first, and its kernel and page tables are whole.
    let both = || guest().fill(0x180_0000, &stale).fill(0x181_0000, &live);
    check(both(), Some((LIVE.release, 0x181_0000, Level::Vcpu)), &[(STALE.release, 0x180_0000)], 0);
    // The search ends at the right one.
    let both = || guest().fill(0x180_0000, &live).fill(0x181_0000, &stale);
    check(both(), Some((LIVE.release, 0x180_0000, Level::Vcpu)), &[], 0);
    // Only a stale one: with a warning. One that nothing agrees with, as that of a guest of the guest, is not taken.
    check(guest().fill(0x180_0000, &stale), Some((STALE.release, 0x180_0000, Level::PageTables)), &[], 1);
    let foreign = note(&Kernel { release: "5.0-nested", image: 0x300_0000 }.text());
    check(guest().fill(0x180_0000, &foreign), None, &[("5.0-nested", 0x180_0000)], 1);
}

#[test]
fn without_a_vcpu_the_better_evidence_counts() {
    let bare = || vmcore_synth::guest("x86_64").unwrap().ram(0..RAM);
    let (live, stale) = (note(&LIVE.text()), note(&STALE.text()));
    let both = |guest: GuestBuilder| guest.fill(0x180_0000, &stale).fill(0x181_0000, &live);
    let others = [(STALE.release, 0x180_0000)];
    check(both(LIVE.load(bare())), Some((LIVE.release, 0x181_0000, Level::PageTables)), &others, 1);
    // Both whole: the first, and a warning.
    let first = Some((STALE.release, 0x180_0000, Level::PageTables));
    check(both(STALE.load(LIVE.load(bare()))), first, &[(LIVE.release, 0x181_0000)], 1);
    // The kernel that crashed last.
    let crashed = |kernel: Kernel, time: u64| note(&format!("{}CRASHTIME={time}\n", kernel.text()));
    let both = STALE
        .load(LIVE.load(bare()))
        .fill(0x180_0000, &crashed(STALE, 900))
        .fill(0x181_0000, &crashed(LIVE, 1000));
    check(both, Some((LIVE.release, 0x181_0000, Level::PageTables)), &others, 1);
    // Nothing but text.
    check(bare().fill(0x180_0000, &live), Some((LIVE.release, 0x180_0000, Level::Text)), &[], 0);
}

#[test]
fn old_kernels_have_their_notes_anywhere() {
    let live = note(&LIVE.text());
    check(guest().fill(0x180_0124, &live), Some((LIVE.release, 0x180_0124, Level::Vcpu)), &[], 0);
    check(
        guest().fill(0x181_0010, LIVE.text().as_bytes()),
        Some((LIVE.release, 0x181_0010, Level::Vcpu)),
        &[],
        0,
    );
    // A header that crosses the blocks in which memory is read.
    check(guest().fill(0x17f_fff8, &live), Some((LIVE.release, 0x17f_fff8, Level::Vcpu)), &[], 0);
    // A name whose first word is the last of a block.
    check(guest().fill(0x17f_fff0, &live), Some((LIVE.release, 0x17f_fff0, Level::Vcpu)), &[], 0);
    // Not on a word.
    check(guest().fill(0x180_0002, &live), None, &[], 0);
    // A text first, then the note that holds the same: they are one.
    let stale = guest().fill(0x180_0010, STALE.text().as_bytes()).fill(0x181_0010, &note(&STALE.text()));
    check(stale, Some((STALE.release, 0x181_0010, Level::PageTables)), &[], 1);
}

#[test]
fn notes_at_the_edges_of_memory() {
    let live = note(&LIVE.text());
    let len = live.len() as u64;
    let whole = guest().fill((RAM - len) & !3, &live);
    check(whole, Some((LIVE.release, (RAM - len) & !3, Level::Vcpu)), &[], 0);
    check(guest().ram(RAM..RAM + 0x1000).fill(RAM, &live), Some((LIVE.release, RAM, Level::Vcpu)), &[], 0);
    // The last bytes are those of other memory.
    let cut = live.len() - 8;
    check(guest().fill((RAM - cut as u64) & !3, &live[..cut]), None, &[], 0);
    check(guest().fill(0, &live), Some((LIVE.release, 0, Level::Vcpu)), &[], 0);
}

#[test]
fn a_good_note_of_its_own_stays() {
    let stale = note(&STALE.text());
    let mut machine = guest().fill(0x180_0000, &stale).vmcoreinfo(&LIVE.text()).build().unwrap();
    let before = machine.guest_note.clone();
    let outcome = completed(&mut machine);
    let evidence = Evidence { uname: true, page_tables: true, vcpu: Some(true) };
    assert_eq!(outcome, Outcome { origin: Some(Origin::Own(Some(evidence))), ..Outcome::default() });
    assert_eq!(machine.guest_note, before);

    let mut machine = guest().vmcoreinfo(&STALE.text()).build().unwrap();
    let outcome = completed(&mut machine);
    assert_eq!(
        outcome.warnings,
        ["no vCPU runs the kernel 6.1.0-stale, which the VMCOREINFO note describes"]
    );
    assert!(machine.vmcoreinfo().is_some(), "it stays all the same");
}

#[test]
fn a_note_that_no_kernel_wrote_is_replaced_if_there_is_a_better_one() {
    for bad in ["", "\0\0\0\0", "HELLO=1\n"] {
        let mut machine = guest().fill(0x180_0000, &note(&LIVE.text())).vmcoreinfo(bad).build().unwrap();
        let outcome = completed(&mut machine);
        assert_eq!(outcome.warnings.len(), 1, "{:?}", outcome.warnings);
        assert_eq!(machine.vmcoreinfo().unwrap().release(), Some(LIVE.release));
        let mut machine = guest().vmcoreinfo(bad).build().unwrap();
        assert_eq!(completed(&mut machine).origin, None);
        assert_eq!(machine.guest_note.unwrap().desc, bad.as_bytes(), "nothing is lost");
    }
}

#[test]
fn the_note_of_xen_comes_along() {
    let text = [b"PAGESIZE=4096\nSYMBOL(domain_list)=ffff82d0405a0000\n".to_vec(), vec![0; 4000]].concat();
    let xen = encoded("VMCOREINFO_XEN", &text, Endianness::Little);
    let mut machine = guest().fill(0x180_0000, &xen).fill(0x190_0000, &note(&LIVE.text())).build().unwrap();
    assert!(matches!(completed(&mut machine).origin, Some(Origin::Found(_))));
    let names: Vec<_> = machine.encode_notes().iter().map(|note| note.owner().to_vec()).collect();
    assert!(names.ends_with(&[b"VMCOREINFO_XEN".to_vec(), b"VMCOREINFO".to_vec()]), "{names:?}");
}

#[test]
fn what_was_found_while_the_guest_ran_is_made_sure_of() {
    let machine =
        guest().fill(0x180_0000, &note(&STALE.text())).fill(0x181_0000, &note(&LIVE.text())).build().unwrap();
    let running = Guest {
        arch: machine.arch.map(|arch| -> &dyn vmcore_core::Arch { arch }),
        endianness: Endianness::Little,
        memory: &machine.memory,
        vcpus: &[],
    };
    let likely = search(&running, Level::PageTables, &DumpState::default()).unwrap();
    assert_eq!(likely.found.len(), 1, "the search ends at the first that is likely");
    let all = search(&running, Level::Vcpu, &DumpState::default()).unwrap();
    let candidates: Vec<Candidate> = all.found.iter().map(|found| found.candidate.clone()).collect();
    assert_eq!(candidates.iter().map(|found| found.gpa.0).collect::<Vec<_>>(), [0x180_0000, 0x181_0000]);

    let mut stopped = machine.clone();
    let outcome = complete(&mut stopped, &candidates, &DumpState::default()).unwrap();
    let Some(Origin::Found(found)) = outcome.origin else { panic!("{outcome:?}") };
    assert_eq!((found.candidate.gpa, found.evidence.level()), (Gpa(0x181_0000), Level::Vcpu));
    // One that is gone meanwhile.
    let gone = guest().build().unwrap();
    let evidence = Guest::of(&gone, |guest| recheck(guest, &candidates[0]));
    assert_eq!(evidence, None);
}

#[test]
fn a_pointer_is_followed_if_there_is_one() {
    let text =
        "OSRELEASE=6.1.0-s390x\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=1000\nSYMBOL(swapper_pg_dir)=1290000\n";
    let build = |pointer: u64, at: u64| {
        vmcore_synth::guest("s390x")
            .unwrap()
            .ram(0..RAM)
            .fill(0xe0c, &pointer.to_be_bytes())
            .fill(at, &encoded("VMCOREINFO", text.as_bytes(), Endianness::Big))
    };
    for (pointer, way) in
        [(0x180_0010, Way::Pointer), (0x180_0000, Way::Scan), (u64::MAX, Way::Scan), (0, Way::Scan)]
    {
        let mut machine = build(pointer, 0x180_0010).build().unwrap();
        let Some(Origin::Found(found)) = completed(&mut machine).origin else { panic!("{pointer:#x}") };
        assert_eq!((found.way, found.candidate.shape), (way, Shape::Note), "{pointer:#x}");
    }
}

/// An architecture that does not know the address space of its kernels: its vCPUs' page tables are asked.
#[test]
fn a_vcpu_confirms_a_kernel_of_any_architecture() {
    let text =
        "OSRELEASE=6.1.0-686\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=c1001000\nOFFSET(uts_namespace.name)=0\n";
    let uts: Vec<u8> = ["Linux", "host", "6.1.0-686", "#1", "i686", "(none)"]
        .iter()
        .flat_map(|field| field.bytes().chain(std::iter::repeat(0)).take(65))
        .collect();
    let guest = |image: u32| {
        // One page of 4 MiB: present, writable, large.
        let entry = (image | 0x83).to_le_bytes();
        vmcore_synth::guest("i386")
            .unwrap()
            .ram(0..RAM)
            .fill(0x10_1000, &uts)
            .fill(0x80_0000 + 0x304 * 4, &entry)
            .fill(0x180_0000, &note(text))
            .vcpu(|registers| {
                for (name, value) in [("cr0", 1 << 31 | 1), ("cr3", 0x80_0000), ("cr4", 0x10)] {
                    registers.set_value(name, value);
                }
            })
    };
    check(guest(0x40_0000).fill(0x40_1000, &uts), Some(("6.1.0-686", 0x180_0000, Level::Vcpu)), &[], 0);
    check(guest(0xc0_0000), Some(("6.1.0-686", 0x180_0000, Level::Text)), &[], 0);
}

/// Memory that counts how it is read, and knows what is not there.
struct Counting {
    inner: BlockMemory,
    reads: AtomicU64,
    /// What is said of the second half.
    upper: RunState,
    is_sequential: bool,
}

impl PhysMemory for Counting {
    fn regions(&self) -> &[Region] {
        self.inner.regions()
    }

    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        assert!(!self.is_sequential, "a stream cannot go back");
        assert!(self.upper == RunState::Data || gpa.0 < RAM / 2, "it need not be read");
        self.inner.read_at(gpa, buf)
    }

    fn run_at(&self, gpa: Gpa, max: u64) -> Run {
        match (RAM / 2).checked_sub(gpa.0).filter(|left| *left > 0) {
            Some(left) => Run { len: left.min(max), state: RunState::Data },
            None => Run { len: max, state: self.upper },
        }
    }

    fn is_sequential(&self) -> bool {
        self.is_sequential
    }
}

/// Searches such memory, filled with `bytes`.
fn counted(bytes: Vec<u8>, upper: RunState, is_sequential: bool) -> (Arc<Counting>, Machine, Outcome) {
    let inner = BlockMemory::new(vec![(Gpa(0), bytes)]).unwrap();
    let memory = Arc::new(Counting { inner, reads: AtomicU64::new(0), upper, is_sequential });
    let mut machine = Machine::new(arch::by_name("x86_64").unwrap(), Arc::clone(&memory) as _, Vec::new());
    let outcome = completed(&mut machine);
    (memory, machine, outcome)
}

#[test]
fn memory_is_read_in_large_blocks_and_only_where_something_is() {
    let ram = || vec![0; RAM_LEN];
    for upper in [RunState::Zero, RunState::Missing, RunState::Excluded, RunState::Data] {
        let (memory, _, outcome) = counted(ram(), upper, false);
        assert_eq!(outcome, Outcome::default());
        let len = if upper == RunState::Data { RAM } else { RAM / 2 };
        assert_eq!(memory.reads.load(Ordering::Relaxed), 2 * (len >> 20), "two passes of 1 MiB blocks");
    }
}

#[test]
fn a_stream_is_not_searched() {
    let (_, machine, outcome) = counted(vec![0; RAM_LEN], RunState::Data, true);
    assert_eq!(
        outcome.warnings,
        [
            "there is no VMCOREINFO note, and none was found: a search for VMCOREINFO is not supported: memory that comes as a stream"
        ]
    );
    assert_eq!(machine.guest_note, None);
}

#[test]
fn a_cancelled_search_ends() {
    let state = DumpState::default();
    state.cancel();
    let result = complete(&mut guest().build().unwrap(), &[], &state);
    assert!(matches!(result, Err(Error::Cancelled)));
}

#[test]
fn words_that_begin_alike_hide_nothing() {
    let mut ram = b"VMCORE-OSRELEAS-VMCOREINF0".repeat(RAM_LEN / 26 + 1);
    let live = note(&LIVE.text());
    for at in [RAM_LEN - 0x1000, RAM_LEN - 0x1004] {
        ram.truncate(RAM_LEN);
        ram[at..].fill(0);
        ram[at..at + live.len()].copy_from_slice(&live);
        let (_, _, outcome) = counted(ram.clone(), RunState::Data, false);
        assert!(matches!(outcome.origin, Some(Origin::Found(_))), "{outcome:?}");
    }
}

#[test]
fn memory_full_of_notes_is_given_up() {
    // Each page a note of its own, and pages of headers whose texts are long and wrong.
    for is_valid in [true, false] {
        let mut ram = vec![0; RAM_LEN];
        for (number, page) in ram.chunks_mut(0x1000).enumerate() {
            let text = format!("OSRELEASE={number}\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffffff82200010\n");
            let mut bytes = note(&text);
            if !is_valid {
                bytes[4..8].copy_from_slice(&0xfff0_u32.to_le_bytes());
            }
            page[..bytes.len()].copy_from_slice(&bytes);
        }
        let (memory, _, outcome) = counted(ram, RunState::Data, false);
        assert!(outcome.warnings[0].contains("gave up"), "{:?}", outcome.warnings);
        assert!(outcome.others.len() < 64);
        assert!(memory.reads.load(Ordering::Relaxed) < 40_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever memory and registers hold: an end, and nothing taken that the text test would not take.
    #[test]
    fn hostile_memory_ends(
        words in prop::collection::vec((0..0x1000usize, any::<u32>()), 0..200),
        pieces in prop::collection::vec((0..0x3000usize, 0..6usize, any::<u64>(), any::<i64>()), 0..12),
        values in prop::collection::vec(any::<u64>(), 40),
    ) {
        let mut ram = vec![0; 0x4000];
        for (at, word) in words {
            ram[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        for (at, kind, symbol, number) in pieces {
            let text = format!(
                "OSRELEASE=1\nPAGESIZE=4096\nSYMBOL(init_uts_ns)={symbol:x}\nSYMBOL(init_top_pgt)={symbol:x}\nNUMBER(phys_base)={number}\n"
            );
            let bytes = match kind {
                0 | 1 => note(&text),
                2 => text.into_bytes(),
                3 => b"VMCOVMCOOSRE".to_vec(),
                4 => note(&text)[..30].to_vec(),
                _ => encoded("VMCOREINFO_XEN", text.as_bytes(), Endianness::Little),
            };
            let at = if kind == 0 { at & !0xfff } else { at & !3 };
            let len = bytes.len().min(ram.len() - at);
            ram[at..at + len].copy_from_slice(&bytes[..len]);
        }
        let memory = Arc::new(BlockMemory::new(vec![(Gpa(0), ram)])?);
        let arch = arch::by_name("x86_64")?;
        let mut vcpu = RegisterFile::new(arch.registers());
        for ((_, row), value) in (0..).zip(arch.registers().rows).zip(values) {
            vcpu.set_value(row.name, value);
        }
        let mut machine = Machine::new(arch, memory, vec![vcpu]);
        let outcome = completed(&mut machine);
        prop_assert_eq!(machine.guest_note.is_some(), outcome.origin.is_some());
        if let Some(info) = machine.vmcoreinfo() {
            prop_assert_eq!(info.release(), Some("1"));
        }
    }
}

#[test]
fn a_program_counter_tells_where_no_page_tables_do() {
    // Without its control registers, as in notes that hold the general ones alone.
    let stopped_at = |counter: u64| {
        let builder = vmcore_synth::guest("x86_64").unwrap().ram(0..RAM);
        builder.vcpu(move |registers| {
            registers.set_value("rip", counter);
        })
    };
    let text = format!("{}SYMBOL(_stext)={TEXT:x}\n", LIVE.text());
    let found = |counter: u64, text: &str| {
        let mut machine = LIVE.load(stopped_at(counter)).fill(0x180_0000, &note(text)).build().unwrap();
        match completed(&mut machine).origin {
            Some(Origin::Found(found)) => found.evidence.vcpu,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(found(TEXT, &text), Some(true));
    assert_eq!(found(TEXT + (64 << 20) - 1, &text), Some(true));
    // It may run a program, or a driver.
    for counter in [TEXT - 1, TEXT + (64 << 20), 0x40_0000] {
        assert_eq!(found(counter, &text), None, "{counter:#x}");
    }
    assert_eq!(found(TEXT, &LIVE.text()), None, "nobody knows where the text is");
}
