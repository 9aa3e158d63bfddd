//! Made-up guests, filtered: families of keys, memory models, what is missing or wrong, threads, and running guests.

mod linux;

use linux::{DATA, Family, LRU, Linux, PAGE, POISON, PRIVATE, SECTION, WAITERS, frames, size};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use vmcore_core::memory::BlockMemory;
use vmcore_core::{DumpState, Endianness, Error, Gpa, PhysMemory, Region, RunState, Unreadable};
use vmcore_filter::{Class, Filter, Level, ScanOptions, Selection};

/// Four sections with pages of every class. The second section is one huge page together with the third.
fn sample(family: Family, struct_len: u64, endianness: Endianness) -> Linux {
    fill(Linux::new(family, struct_len, endianness, 4))
}

fn fill(mut linux: Linux) -> Linux {
    linux.free(0, 4);
    linux.free(16, 0);
    linux.cache(20, 0);
    linux.cache(21, PRIVATE);
    linux.anonymous(22, 0);
    linux.anonymous(23, PRIVATE);
    linux.slab(24);
    linux.offline(25);
    linux.flags(26, POISON);
    linux.cache(32, 0);
    linux.compound(32, 3, LRU);
    linux.anonymous(64, 0);
    linux.compound(64, 5, LRU);
    linux.hugetlb(SECTION, 7);
    linux.hugetlb(2 * SECTION, 6);
    linux.free(3 * SECTION, 6);
    // The last pages of the last section, as far as they go.
    linux.anonymous(4 * SECTION - 1, 0);
    linux
}

fn set(ranges: &[Range<u64>]) -> BTreeSet<u64> {
    ranges.iter().cloned().flatten().collect()
}

/// What of [`sample`] each level leaves out.
fn expected(level: u32) -> BTreeSet<u64> {
    let mut ranges = vec![25..27];
    if level & 6 != 0 {
        ranges.extend([20..21, 32..40]);
    }
    if level & 4 != 0 {
        ranges.push(21..22);
    }
    if level & 8 != 0 {
        let last = 4 * SECTION - 1;
        ranges.extend([22..24, 64..96, SECTION..2 * SECTION, 256..320, last..last + 1]);
    }
    if level & 16 != 0 {
        ranges.extend([0..17, 3 * SECTION..3 * SECTION + 64]);
    }
    set(&ranges)
}

#[test]
fn each_family_at_each_level() {
    for family in Family::ALL {
        let linux = sample(family, 64, Endianness::Little);
        for level in 0..32 {
            assert_eq!(linux.removed(level), expected(level), "{family:?}, level {level}");
        }
    }
}

#[test]
fn any_length_of_the_struct_and_byte_order() {
    for family in Family::ALL {
        for (struct_len, endianness) in
            [(56, Endianness::Little), (56, Endianness::Big), (64, Endianness::Big)]
        {
            for is_scattered in [false, true] {
                let linux = fill(Linux::on_pages(family, struct_len, endianness, 4, is_scattered));
                assert_eq!(linux.removed(31), expected(31), "{family:?} {struct_len} {endianness}");
            }
        }
    }
}

#[test]
fn each_memory_model() {
    type Change = fn(&mut Linux);
    let models: [(&str, Change); 6] = [
        ("SPARSEMEM_EXTREME", |_| {}),
        ("SPARSEMEM_EXTREME", Linux::section_pointer),
        ("SPARSEMEM", Linux::plain_sections),
        ("FLATMEM", Linux::flat),
        ("SPARSEMEM_VMEMMAP", Linux::vmemmap),
        ("DISCONTIGMEM", Linux::nodes),
    ];
    for (name, change) in models {
        let mut linux = sample(Family::Narrow, 64, Endianness::Little);
        change(&mut linux);
        let selection = linux.scan(31, 2, false).unwrap();
        assert_eq!((selection.report().model, frames(&selection)), (name, expected(31)));
    }
}

#[test]
fn counts_and_remarks() {
    let mut linux = sample(Family::Typed, 64, Endianness::Little);
    linux.bad_free(50, 64);
    linux.bad_free(51, 11);
    let selection = linux.scan(31, 1, false).unwrap();
    let report = selection.report();
    assert_eq!(
        report.removed,
        [
            (Class::Cache, 9),
            (Class::PrivateCache, 1),
            (Class::User, 2 + 32 + 128 + 64 + 1),
            (Class::Free, 17 + 64),
            (Class::Poisoned, 1),
            (Class::Offline, 1),
        ]
    );
    // The kernel's data is in no section.
    assert_eq!((report.pages, report.without_struct), (4 * SECTION + 128, 128));
    assert_eq!((report.sections, report.absent_sections, report.bad_orders), (4, 1, 2));
    assert_eq!(
        report.remarks(),
        ["struct pages that state a length which cannot be: 2; of each, at most the page itself is left out"]
    );
    assert_eq!(report.removed_pages(), selection.removed().count());
}

/// Without each of the keys: the guest is refused, or as many pages are kept as before, and it is said which.
#[test]
fn a_key_that_is_missing_never_costs_a_page() {
    let fatal = [
        "PAGESIZE",
        "SIZE(page)",
        "OFFSET(page.flags)",
        "OFFSET(page.mapping)",
        "OFFSET(page._refcount)",
        "OFFSET(page._count)",
        "SYMBOL(mem_section)",
        "SIZE(mem_section)",
        "OFFSET(mem_section.section_mem_map)",
        "NUMBER(SECTION_SIZE_BITS)",
    ];
    let silent = [
        "OSRELEASE",
        "PG_swapbacked",
        "PG_hwpoison",
        "OFFLINE",
        "UNACCEPTED",
        "free_area",
        "compound_info",
        "compound_head",
        "list_head.next",
    ];
    for family in Family::ALL {
        let whole = sample(family, 64, Endianness::Little);
        for (key, _) in whole.keys.clone() {
            let mut linux = whole.clone();
            linux.without(&key);
            let result = linux.scan(31, 1, false);
            if fatal.contains(&key.as_str()) {
                let error = result.unwrap_err();
                assert!(
                    matches!(&error, Error::NoKey { key: named, .. } if *named == key || key.contains("_count")),
                    "{error}"
                );
                continue;
            }
            let selection = result.unwrap();
            // The linked list of 3.16 has no other mark of a tail than its place.
            assert!(frames(&selection).is_subset(&expected(31)), "{family:?} without {key}");
            let report = selection.report();
            let loses = frames(&selection) != expected(31);
            let is_said = !report.remarks().is_empty();
            assert!(
                is_said || !loses || silent.iter().any(|part| key.contains(part)),
                "{family:?} without {key}"
            );
        }
    }
}

#[test]
fn bits_are_off_without_their_keys() {
    let cache = Level::CACHE.with(Level::PRIVATE_CACHE);
    let user_free = Level::USER.with(Level::FREE);
    for (key, off) in [
        ("NUMBER(PG_lru)", cache),
        ("NUMBER(PG_private)", cache),
        ("NUMBER(PG_swapcache)", cache),
        ("NUMBER(PG_slab)", user_free),
        ("NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)", Level::FREE),
        ("OFFSET(page._mapcount)", Level::FREE),
        ("OFFSET(page.private)", Level::FREE),
        ("NUMBER(PG_head_mask)", Level::NONE),
    ] {
        let mut linux = sample(Family::Narrow, 64, Endianness::Little);
        linux.without(key);
        let selection = linux.scan(31, 1, false).unwrap();
        assert_eq!(selection.report().effective, Level::ALL.without(off), "{key}");
        assert!(selection.report().remarks().iter().any(|remark| remark.contains(key)), "{key}");
    }
    // Of what was not asked for nothing is said.
    for (level, key) in [(1, "NUMBER(PG_slab)"), (16, "NUMBER(PG_lru)"), (16, "NUMBER(PG_head_mask)")] {
        let mut linux = sample(Family::Narrow, 64, Endianness::Little);
        linux.without(key);
        let selection = linux.scan(level, 1, false).unwrap();
        assert_eq!(
            (selection.report().effective.number(), selection.report().remarks()),
            (level, vec![]),
            "{key}"
        );
    }
    // Before 2.6.39 free pages were told otherwise.
    let mut old = sample(Family::Lru, 64, Endianness::Little);
    old.key("OSRELEASE", "2.6.32-71.el6");
    old.without("NUMBER(PG_slab)");
    assert_eq!(old.scan(31, 1, false).unwrap().report().effective, Level::ALL);
}

#[test]
fn the_swap_cache_needs_both_flags_since_4_10() {
    for (family, expected) in [(Family::Lru, set(&[5..6])), (Family::Narrow, set(&[]))] {
        let mut linux = Linux::new(family, 64, Endianness::Little, 1);
        linux.flags(5, 1 << 10);
        assert_eq!(linux.removed(2), set(&[]), "{family:?}");
        linux.without("NUMBER(PG_swapbacked)");
        assert_eq!(linux.removed(2), expected, "{family:?}");
    }
}

#[test]
fn without_the_key_of_hwpoison_low_levels_look_at_nothing() {
    let mut linux = sample(Family::Narrow, 64, Endianness::Little);
    linux.without("NUMBER(PG_hwpoison)");
    assert_eq!(linux.removed(1), set(&[]));
    assert_eq!(linux.removed(2), &expected(2) - &set(&[26..27]));
}

#[test]
fn a_page_that_waiters_wait_for_is_no_slab() {
    // makedumpfile 1.7.9 takes bit 7 for PG_slab where that key is gone (spec/filter.md section 11, M1).
    let mut linux = Linux::new(Family::Typed, 64, Endianness::Little, 1);
    linux.anonymous(7, WAITERS);
    linux.free(8, 0);
    linux.flags(8, WAITERS);
    assert_eq!([2, 8, 16].map(|level| linux.removed(level)), [set(&[]), set(&[7..8]), set(&[8..9])]);
}

#[test]
fn unaccepted_memory_goes_by_the_largest_block() {
    let mut linux = Linux::new(Family::Info, 64, Endianness::Little, 2);
    linux.key("LENGTH(zone.free_area)", 6);
    linux.mapcount(64, 0xf700_0000);
    assert_eq!(linux.removed(16), set(&[64..96]));
    assert_eq!(linux.removed(15), set(&[]));
}

#[test]
fn a_page_across_sections() {
    for strict in [false, true] {
        let mut linux = Linux::new(Family::Narrow, 64, Endianness::Little, 8);
        linux.hugetlb(4 * SECTION, 9);
        linux.ram = vec![0..5 * SECTION + 9, 6 * SECTION..8 * SECTION];
        for threads in [1, 2, 7] {
            let selection = linux.scan(31, threads, strict).unwrap();
            assert_eq!(
                frames(&selection),
                set(&[512..5 * SECTION + 9, 6 * SECTION..8 * SECTION]),
                "{strict}"
            );
            assert_eq!(selection.report().removed[2], (Class::User, 3 * SECTION + 9));
        }
    }
}

/// No kernel has such a block; makedumpfile leaves out its pages, and so do we.
#[test]
fn a_block_that_ends_within_another_section() {
    let mut linux = Linux::new(Family::Narrow, 64, Endianness::Little, 3);
    linux.bad_free(SECTION - 8, 4);
    linux.anonymous(SECTION, 0);
    linux.anonymous(SECTION + 7, 0);
    linux.anonymous(SECTION + 8, 0);
    for threads in [1, 2] {
        let selection = linux.scan(24, threads, false).unwrap();
        assert_eq!(frames(&selection), set(&[120..137]));
        assert_eq!((selection.report().removed[2].1, selection.report().removed[3].1), (1, 16));
    }
    let selection = linux.scan(24, 1, true).unwrap();
    assert_eq!(frames(&selection), set(&[128..129, 135..137]), "strict");
    assert_eq!(selection.report().interventions.misaligned_blocks, 1);
}

#[test]
fn what_cannot_be_read_is_kept() {
    let mut linux = sample(Family::Narrow, 64, Endianness::Little);
    // The structs of pages 64 to 127: among them a large page whose head is there no more.
    linux.unmap_struct(64);
    linux.absent(3);
    let selection = linux.scan(31, 1, false).unwrap();
    let gone = set(&[64..128, 3 * SECTION..4 * SECTION]);
    assert_eq!(frames(&selection), &expected(31) - &gone);
    let report = selection.report();
    assert_eq!((report.unreadable_structs, report.absent_sections), (64, 2));
    assert_eq!(report.without_struct, SECTION + 128);
}

#[test]
fn what_was_left_out_before_is_counted_apart() {
    let linux = sample(Family::Narrow, 64, Endianness::Little);
    let first = linux.scan(2, 1, false).unwrap();
    let memory: Arc<dyn PhysMemory> = Arc::new(linux.memory());
    let kernel = linux.kernel_in(Arc::new(first.filtered(&memory)));
    for (level, min_gap) in [(0, 0), (2, 0), (2, 256), (16, 0), (31, 0)] {
        let filter = Filter::new(&kernel, Level::new(level).unwrap()).unwrap();
        let options = ScanOptions { threads: 1, min_gap, ..ScanOptions::default() };
        let selection = filter.scan(&[], options, &DumpState::default()).unwrap();
        let (again, both) = (selection.report(), linux.scan(level | 2, 1, false).unwrap());
        assert_eq!(again.kept_pages(), both.report().kept_pages(), "{level}");
        assert_eq!(again.removed_pages() + again.removed_before, both.report().removed_pages(), "{level}");
        assert_eq!(again.bridged, 0, "what is gone is in no gap");
    }
}

/// A section is held in memory at once, by each thread.
#[test]
fn sections_longer_than_any_are_refused() {
    for (struct_len, is_refused) in [(64, false), (1024, true)] {
        let mut linux = Linux::new(Family::Narrow, 64, Endianness::Little, 1);
        linux.key("SIZE(page)", struct_len);
        linux.key("NUMBER(SECTION_SIZE_BITS)", 32);
        let error = linux.scan(31, 1, false).err();
        let is_of_length =
            matches!(&error, Some(Error::NoKey { key, .. }) if key == "NUMBER(SECTION_SIZE_BITS)");
        assert_eq!(is_of_length, is_refused, "{struct_len}: {error:?}");
    }
}

/// Memory of which a part is left out already, or cannot be read.
struct Holed(BlockMemory, Range<u64>);

impl PhysMemory for Holed {
    fn regions(&self) -> &[Region] {
        self.0.regions()
    }
    fn read_at(&self, gpa: Gpa, buf: &mut [u8]) -> Result<Unreadable, Error> {
        let mut unreadable = self.0.read_at(gpa, buf)?;
        let (start, end) = (self.1.start.max(gpa.0), self.1.end.min(gpa.0 + buf.len() as u64));
        if start < end {
            buf[size(start - gpa.0)..size(end - gpa.0)].fill(0);
            unreadable.add(Gpa(start), end - start);
        }
        Ok(unreadable)
    }
}

#[test]
fn structs_that_are_not_in_the_dump() {
    let linux = sample(Family::Narrow, 56, Endianness::Little);
    // The head of a large page, and the struct behind it.
    let head = linux.frame_of_struct(64) * PAGE + 64 * 56;
    let holed = Holed(linux.memory(), head + 6..head + 60);
    let kernel = linux.kernel_in(Arc::new(holed));
    let scan = |threads| {
        let options = ScanOptions { threads, ..ScanOptions::default() };
        Filter::new(&kernel, Level::ALL).unwrap().scan(&[], options, &DumpState::default()).unwrap()
    };
    let selection = scan(1);
    assert_eq!(frames(&selection), &expected(31) - &set(&[64..96]));
    assert_eq!(selection.report().unreadable_structs, 2);
    assert_eq!(frames(&scan(2)), frames(&selection));
}

#[test]
fn memory_that_holds_the_structs_is_kept() {
    // The second section has its own structs, and calls all of its pages free.
    let mut linux = Linux::new(Family::Narrow, 64, Endianness::Little, 2);
    linux.flat();
    linux.free(SECTION, 7);
    linux.key("NUMBER(phys_ram_base)", DATA - SECTION * PAGE);
    linux.ram = vec![0..16];
    let memory = linux.memory();
    let filter = |keep: Option<u64>| {
        let kernel = linux.kernel_in(Arc::new(
            BlockMemory::new(vec![(Gpa(DATA), memory.slice(Gpa(DATA), 0x8_0000).unwrap().to_vec())]).unwrap(),
        ));
        let mut filter = Filter::new(&kernel, Level::FREE).unwrap();
        if let Some(pfn) = keep {
            filter.keep("VMCOREINFO", Gpa(pfn * PAGE + 0xfff), 2);
        }
        filter.scan(&[], ScanOptions { threads: 1, ..ScanOptions::default() }, &DumpState::default()).unwrap()
    };
    let first = DATA / PAGE;
    let structs = linux.frame_of_struct(SECTION);
    // The pointer to the array is in the page at +2.
    let selection = filter(None);
    let structs = structs..structs + 2;
    assert_eq!(
        frames(&selection),
        &set(&[first..first + 128]) - &set(&[structs.clone(), first + 2..first + 3])
    );
    assert_eq!(selection.report().guarded, [("struct pages", 2), ("the memory model", 1)]);
    assert_eq!(selection.report().removed_pages(), selection.removed().count());
    let with_note = filter(Some(first + 100));
    assert_eq!(&frames(&selection) - &frames(&with_note), set(&[first + 100..first + 102]));
    assert_eq!(with_note.report().guarded[0], ("VMCOREINFO", 2));
}

/// A running guest changes while it is read: what does not fit together is kept.
#[test]
fn strict_checks() {
    let mut linux = sample(Family::Typed, 64, Endianness::Little);
    for level in 0..32 {
        let found = linux.scan(level, 2, true).unwrap();
        assert_eq!(frames(&found), expected(level));
        assert_eq!(found.report().interventions.total(), 0);
    }
    // A page in the free block is handed out; the large page is split; a page table looks like a program's.
    linux.mapcount(3 * SECTION + 5, 3);
    linux.anonymous(70, 0);
    linux.compound(68, 0, 0);
    linux.anonymous(40, 0);
    linux.mapcount(40, 0xf200_0000);
    linux.bad_free(49, 3);
    let mut broken = linux.clone();
    broken.anonymous(66, 0);
    for tail in 65..96 {
        broken.untail(tail);
    }
    let found = broken.scan(31, 1, true).unwrap();
    let kept = &expected(31) - &frames(&found);
    let mut wanted = set(&[3 * SECTION + 5..3 * SECTION + 64, 65..96]);
    for pfn in [66, 70] {
        wanted.remove(&pfn);
    }
    assert_eq!(kept, wanted);
    let interventions = found.report().interventions;
    assert_eq!(
        (interventions.cut_blocks, interventions.broken_compounds, interventions.typed_pages),
        (1, 1, 1)
    );
    assert_eq!(interventions.misaligned_blocks, 1);
    assert!(!frames(&found).contains(&40) && !frames(&found).contains(&49));
}

#[test]
fn a_large_page_that_is_split_in_another_section() {
    let mut linux = Linux::new(Family::Narrow, 64, Endianness::Little, 4);
    linux.hugetlb(0, 9);
    linux.untail(2 * SECTION + 1);
    for threads in [1, 3] {
        let found = linux.scan(31, threads, true).unwrap();
        assert_eq!(frames(&found), set(&[0..2 * SECTION]));
        assert_eq!(found.report().interventions.broken_compounds, 1);
    }
    assert_eq!(linux.removed(31), set(&[0..4 * SECTION]));
}

#[test]
fn the_machine_gets_memory_without_them() {
    let linux = sample(Family::Narrow, 64, Endianness::Little);
    let selection: Selection = linux.scan(24, 1, false).unwrap();
    let arch = vmcore_core::arch::all().first();
    assert!(arch.is_none(), "no architecture is linked in");
    let mut machine = vmcore_core::Machine::from_notes(
        vmcore_core::Identity::UNKNOWN,
        Arc::new(linux.memory()),
        Vec::new(),
    );
    machine.header.dump_level = 2;
    selection.apply(&mut machine);
    assert_eq!(machine.header.dump_level, 26);
    assert_eq!(machine.memory.run_at(Gpa(0), u64::MAX).state, RunState::Excluded);
    assert_eq!(machine.memory.run_at(Gpa(0), u64::MAX).len, 17 * PAGE);
    assert_eq!(machine.memory.run_at(Gpa(17 * PAGE), PAGE).state, RunState::Data);
}

#[test]
fn a_cancelled_scan_ends() {
    let linux = sample(Family::Narrow, 64, Endianness::Little);
    let filter = Filter::new(&linux.kernel(), Level::ALL).unwrap();
    let state = DumpState::default();
    state.cancel();
    let result = filter.scan(&[], ScanOptions { threads: 3, ..ScanOptions::default() }, &state);
    assert!(matches!(result, Err(Error::Cancelled)));
}

proptest! {
    /// Whatever lies in the structs: the number of threads changes nothing, and strict checks only keep more.
    #[test]
    fn any_structs(
        bytes in prop::collection::vec(any::<u8>(), 64),
        places in prop::collection::vec((0..8 * 4 * SECTION, 0..8_usize), 0..300),
        family in prop::sample::select(&Family::ALL[..]),
        level in 0..32_u32,
    ) {
        let mut linux = sample(family, 64, Endianness::Little);
        for (at, from) in places {
            let start = 0x4000 + usize::try_from(at * 8).unwrap();
            linux.data[start..start + 8].copy_from_slice(&bytes[from * 8..][..8]);
        }
        let one = linux.scan(level, 1, false).unwrap();
        for threads in [2, 7] {
            let many = linux.scan(level, threads, false).unwrap();
            prop_assert_eq!(frames(&one), frames(&many));
            prop_assert_eq!(one.report(), many.report());
        }
        prop_assert_eq!(one.report().removed_pages(), one.removed().count());
        let strict = linux.scan(level, 1, true).unwrap();
        prop_assert_eq!(frames(&strict), frames(&linux.scan(level, 2, true).unwrap()));
    }

    /// Whatever VMCOREINFO and the kernel's records say: no panic, and an end.
    #[test]
    fn any_keys_and_records(
        values in prop::collection::vec((0..64_usize, hostile()), 1..6),
        records in prop::collection::vec((0..0x800_usize, any::<u64>()), 0..20),
        family in prop::sample::select(&Family::ALL[..]),
        model in 0..4,
        strict: bool,
    ) {
        let mut linux = sample(family, 64, Endianness::Little);
        match model {
            0 => linux.flat(),
            1 => linux.nodes(),
            2 => linux.vmemmap(),
            _ => {}
        }
        for (index, value) in values {
            let count = linux.keys.len();
            linux.keys[index % count].1 = value;
        }
        for (at, value) in records {
            linux.data[at * 8..][..8].copy_from_slice(&value.to_le_bytes());
        }
        if let Ok(selection) = linux.scan(31, 2, strict) {
            prop_assert_eq!(selection.report().removed_pages(), selection.removed().count());
        }
    }
}

/// Values of keys that no kernel has.
fn hostile() -> impl Strategy<Value = String> {
    const NUMBERS: [u64; 12] =
        [0, 1, 7, 8, 63, 64, 65, 4096, u32::MAX as u64, u64::MAX >> 1, u64::MAX - 7, u64::MAX];
    prop_oneof![
        prop::sample::select(&NUMBERS[..]).prop_map(|number| number.to_string()),
        prop::sample::select(&NUMBERS[..]).prop_map(|number| format!("{number:x}")),
        any::<u64>().prop_map(|number| format!("{number:#x}")),
        (0..70_u64).prop_map(|number| number.to_string()),
        Just(String::new()),
    ]
}
