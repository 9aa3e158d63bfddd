//! Page by page through a dump: libkdumpfile and we read the same pages of the same file.

use super::Bench;
use super::kdump::convert;
use super::report::Report;
use crate::apt::{Apt, RELEASE};
use crate::oracle::core_file::{CoreFile, FIRMWARE};
use crate::run::{built, output};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

const PAGE_LEN: usize = 4096;

/// All pages of the guest whose ELF core is `core`, in makedumpfile's dump of it and in ours.
pub(super) fn measure(bench: &Bench, core: &Path, makedumpfile: &Path, report: &mut Report) -> Result<()> {
    let path = |name: &str| bench.tmpfs.path().join(name);
    let (peer, dump, list) = (path("read_pages"), path("dump"), path("addresses"));
    build_peer(&peer)?;
    let ours = built(&["--package", "vmcore", "--example", "read_pages"], "examples/read_pages")?;
    let mut theirs = Command::new(makedumpfile);
    theirs.args(["-f", "-c", "-d", "1"]).args([core, &dump]);
    let makers = [("makedumpfile", theirs), ("convert", convert(bench, core, &dump, "zlib", 2))];

    let in_order = pages(core)?;
    let at_random = shuffled(in_order.clone());
    for (maker, mut make) in makers {
        output(&mut make)?;
        for (order, pages, bar) in [("in order", &in_order, 3.0), ("at random", &at_random, 2.0)] {
            std::fs::write(&list, pages.iter().flat_map(|gpa| gpa.to_ne_bytes()).collect::<Vec<u8>>())?;
            let (expected, _) = read(&peer, &dump, &list)?;
            let time_of = |program: &Path| {
                let (checksum, time) = read(program, &dump, &list)?;
                ensure!(checksum == expected, "{} reads other bytes than libkdumpfile", program.display());
                Ok(time)
            };
            let turns = bench.turns(|| time_of(&peer), || time_of(&ours))?;
            report.add(turns.named(
                &format!("reading, zlib dump of {maker}, pages {order}, tmpfs"),
                "libkdumpfile",
                bar,
            ));
        }
        std::fs::remove_file(&dump)?;
    }
    Ok(())
}

/// Compiles `read_pages.c`, with headers that need not be installed.
fn build_peer(program: &Path) -> Result<()> {
    let root = Apt::new(RELEASE, "amd64")?
        .unpacked("libkdumpfile-dev", |_| Ok(vec!["libkdumpfile-dev".to_owned()]))?;
    let source = crate::run::repository().join("xtask/src/bench/read_pages.c");
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-I"]).arg(root.join("usr/include")).arg(source);
    // By its full name: the link without a version is of the package that is not installed.
    output(cc.arg("-l:libkdumpfile.so.10").arg("-o").arg(program)).map(drop)
}

/// Reads the pages of a list: the checksum of their bytes, and the milliseconds without opening the dump.
fn read(program: &Path, dump: &Path, list: &Path) -> Result<(String, f64)> {
    let out = output(Command::new(program).args([dump, list]))?;
    let (checksum, time) = out.trim().split_once(' ').context("no checksum and time")?;
    Ok((checksum.to_owned(), time.parse::<f64>()? / 1e6))
}

/// The guest's pages, in ascending order; kdump dumps lack what lies behind the end of RAM.
fn pages(core: &Path) -> Result<Vec<u64>> {
    let segments = CoreFile::open(core)?.head.segments;
    let ram = segments.iter().filter(|segment| !FIRMWARE.contains(&segment.paddr));
    Ok(ram.flat_map(|segment| (segment.paddr..segment.paddr + segment.memsz).step_by(PAGE_LEN)).collect())
}

/// The same pages in another order, which is the same each time.
fn shuffled(mut pages: Vec<u64>) -> Vec<u64> {
    // Xorshift: any order will do that no cache foresees.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..pages.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let other = state % (last as u64 + 1);
        pages.swap(last, usize::try_from(other).expect("less than a usize"));
    }
    pages
}
