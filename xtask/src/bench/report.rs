//! The table of figures, with the machine that they were measured on.

use super::measure::{Peak, median};
use crate::guest::QemuVersion;
use crate::run::output;
use anyhow::Result;
use std::process::Command;

/// What a benchmark is about: a section of `BENCHMARKS.md`.
pub(crate) struct Subject {
    /// Its name on the command line.
    name: &'static str,
    /// How it is measured.
    text: &'static str,
    /// The most memory that we may take beyond mapped guest memory.
    peak_bar: u64,
}

/// ELF cores.
pub(crate) const CAPTURE: Subject = Subject {
    name: "capture",
    text: "QEMU's `dump-guest-memory` and `vmcore capture` dump\n\
           the same guest in turns, in one run. Times are medians (least to most); the ratio is the median of the rounds'\n\
           ratios. Dump times are of a stopped guest, from the command to the last byte written, our program's start\n\
           included; pauses are of a running guest, by the times of QEMU's STOP and RESUME events.",
    peak_bar: 64 << 20,
};

/// kdump dumps.
pub(crate) const KDUMP: Subject = Subject {
    name: "kdump",
    text: "QEMU, makedumpfile (of Debian 13 or later; its\n\
           best of one and two threads) and we write kdump dumps of the same stopped guest, or of the same ELF core, in turns, in one run, each into a new file. Times are\n\
           medians (least to most), the ratio is the median of the rounds' ratios. What fills the guest's memory are drivers of\n\
           Debian's kernel, so that it packs as program code and data do. Reading is of all its pages one by one, zero pages\n\
           too; libkdumpfile and we time the reads ourselves, without opening the dump.",
    peak_bar: 128 << 20,
};

/// Dump levels.
pub(crate) const FILTER: Subject = Subject {
    name: "filter",
    text: "makedumpfile (of Debian 13 or later; its best of one and two\n\
           threads) and we leave out of the same ELF core what dump level 31 leaves out, in turns, in one run, each into a new file. QEMU knows no dump levels: its\n\
           figures are of everything. Times are medians (least to most), the ratio is the median of the rounds' ratios. Pauses are of a running\n\
           guest, by the times of QEMU's STOP and RESUME events. What fills the guest's memory are drivers of Debian's kernel.",
    peak_bar: 128 << 20,
};

/// gdb's remote protocol.
pub(crate) const GDB: Subject = Subject {
    name: "gdb",
    text: "QEMU's stub and `vmcore gdb` show the same stopped guest to the same clients over loopback, in turns, in one run: ours\n\
           from a dump of it, and from the guest itself. Times are medians (least to most), the ratio is the median of the rounds'\n\
           ratios. A small client of our own reads 64 MiB that the guest uses most, half as many bytes at once as packets are long, and\n\
           looks at the replies when all have come; gdb-multiarch decodes them at once, and its time is that of `dump memory` alone.",
    peak_bar: 0,
};

/// The search for VMCOREINFO.
pub(crate) const SEARCH: Subject = Subject {
    name: "search",
    text: "What a 512 MiB guest has in use is repeated in memory that is resident, and searched by one thread for a note that\n\
           is in the last page (pages), or nowhere (pages, then words). The peer is the bar: 4 GB/s.",
    peak_bar: 0,
};

/// Embedding.
pub(crate) const EMBED: Subject = Subject {
    name: "embed",
    text: "A program that has a guest's memory itself, in vm-memory, dumps it through the library; `vmcore capture`\n\
           takes the same memory out of QEMU's process, its start and the conversation with QEMU included; in turns, in one run. Times are medians (least to\n\
           most), the ratio is the median of the rounds' ratios. The build is of a program that depends on the facade, without optimisation,\n\
           with all crates fetched.",
    peak_bar: 0,
};

/// How a section begins; its subject follows.
const TITLE: &str = "# Benchmarks: ";

/// The sections of `old`, by their subjects, with `text` in the place of that of `subject`.
fn with_section(old: &str, subject: &str, text: &str) -> String {
    let others = old.split(TITLE).skip(1).filter(|section| section.lines().next() != Some(subject));
    let mut sections: Vec<&str> = others.chain(text.strip_prefix(TITLE)).map(str::trim_end).collect();
    sections.sort_unstable();
    sections.iter().map(|section| format!("{TITLE}{section}\n")).collect::<Vec<_>>().join("\n\n")
}

/// One comparison. Times in milliseconds.
pub(crate) struct Figure {
    name: String,
    /// Whom we are compared with.
    peer: &'static str,
    theirs: Vec<f64>,
    ours: Vec<f64>,
    /// The ratio to reach.
    bar: f64,
}

impl Figure {
    pub(crate) fn new(name: &str, peer: &'static str, theirs: Vec<f64>, ours: Vec<f64>, bar: f64) -> Self {
        let figure = Self { name: name.to_owned(), peer, theirs, ours, bar };
        println!("{}: {:.1} ms, ours {:.1} ms", figure.name, median(&figure.theirs), median(&figure.ours));
        figure
    }

    /// The median of the ratios of each round: whatever slows the machine slows both.
    fn ratio(&self) -> f64 {
        let ratios: Vec<f64> =
            self.theirs.iter().zip(&self.ours).map(|(theirs, ours)| theirs / ours).collect();
        median(&ratios)
    }
}

pub(crate) struct Report {
    figures: Vec<Figure>,
    peaks: Vec<(String, Peak)>,
    /// What it is of, bytes of theirs and of ours.
    sizes: Vec<(String, u64, u64)>,
    subject: &'static Subject,
    /// What else there is to say.
    pub(crate) note: Option<String>,
    /// Bytes of the 512 MiB guest that are stored.
    pub(crate) used: u64,
    machine: Vec<(&'static str, String)>,
}

impl Report {
    pub(crate) fn new(subject: &'static Subject, qemu: QemuVersion, rounds: usize) -> Result<Self> {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpus = file("/proc/cpuinfo");
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let memory = file("/proc/meminfo");
        let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
        let tool = |program: &str, args: &[&str]| -> Result<String> {
            Ok(output(Command::new(program).args(args))?.trim().to_owned())
        };
        let disk = tool(
            "stat",
            &["--file-system", "--format=%T", &crate::run::cache("tmp")?.display().to_string()],
        )?;
        let qemu = if qemu == QemuVersion::V7 { "7.2 (TCG, no KVM)" } else { "10.0 (TCG, no KVM)" };
        let machine = vec![
            ("date", tool("date", &["--utc", "+%Y-%m-%d"])?),
            ("commit", tool("git", &["describe", "--always", "--dirty"]).unwrap_or_default()),
            ("processor", model.map_or_else(String::new, |(_, model)| model.to_owned())),
            ("cores", std::thread::available_parallelism()?.to_string()),
            ("memory", memory.trim().to_owned()),
            ("kernel", tool("uname", &["-sr"])?),
            ("disk", disk),
            ("QEMU", qemu.to_owned()),
            ("load at the start", file("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")),
            ("rounds", rounds.to_string()),
        ];
        Ok(Self {
            figures: Vec::new(),
            peaks: Vec::new(),
            sizes: Vec::new(),
            subject,
            note: None,
            used: 0,
            machine,
        })
    }

    pub(crate) fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    pub(crate) fn add_peak(&mut self, guest: &str, peak: Peak) {
        println!("peak memory, {guest}: {}, of that anonymous {}", mib(peak.all), mib(peak.anonymous));
        self.peaks.push((guest.to_owned(), peak));
    }

    pub(crate) fn add_size(&mut self, name: &str, theirs: u64, ours: u64) {
        println!("size, {name}: {}, ours {}", mib(theirs), mib(ours));
        self.sizes.push((name.to_owned(), theirs, ours));
    }

    /// Puts the result in the place of the last one in `BENCHMARKS.md`.
    pub(crate) fn write(&self) -> Result<()> {
        let path = crate::run::repository().join("BENCHMARKS.md");
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(&path, with_section(&old, self.subject.name, &self.text()))?;
        Ok(())
    }

    /// What does not reach its bar.
    pub(crate) fn missed(&self) -> Vec<String> {
        let figures = self.figures.iter().filter(|figure| figure.ratio() < figure.bar);
        let figures =
            figures.map(|figure| format!("{} ({:.1} of {})", figure.name, figure.ratio(), figure.bar));
        let peaks = self.peaks.iter().filter(|(_, peak)| peak.all > self.subject.peak_bar);
        let sizes = self.sizes.iter().filter(|(_, theirs, ours)| size_ratio(*theirs, *ours) > SIZE_BAR);
        let sizes = sizes.map(|(name, theirs, ours)| {
            format!("size, {name} ({:.3} of {SIZE_BAR})", size_ratio(*theirs, *ours))
        });
        figures
            .chain(peaks.map(|(guest, peak)| format!("peak memory, {guest} ({})", mib(peak.all))))
            .chain(sizes)
            .collect()
    }

    /// The page `BENCHMARKS.md`.
    pub(crate) fn text(&self) -> String {
        let Subject { name, text, peak_bar } = self.subject;
        let mut text = format!(
            "# Benchmarks: {name}\n\nMade by `cargo xtask bench {name} --write`; the newest result. {text}\n\n"
        );
        text += "| measure | peer | its time | ours | ratio | bar | |\n|---|---|---:|---:|---:|---:|---|\n";
        for figure in &self.figures {
            let ratio = figure.ratio();
            text += &format!(
                "| {} | {} | {} | {} | {ratio:.1} | {} | {} |\n",
                figure.name,
                figure.peer,
                times(&figure.theirs),
                times(&figure.ours),
                figure.bar,
                verdict(ratio >= figure.bar)
            );
        }
        if !self.sizes.is_empty() {
            text += &format!(
                "\n| size of the dump | theirs | ours | ours / theirs | bar {SIZE_BAR} |\n|---|---:|---:|---:|---|\n"
            );
        }
        for (name, theirs, ours) in &self.sizes {
            let ratio = size_ratio(*theirs, *ours);
            text += &format!(
                "| {name} | {} | {} | {ratio:.3} | {} |\n",
                mib(*theirs),
                mib(*ours),
                verdict(ratio <= SIZE_BAR)
            );
        }
        if !self.peaks.is_empty() {
            text += "\n| peak memory, no guest memory mapped | all | anonymous | bar for all | |\n|---|---:|---:|---:|---|\n";
        }
        for (guest, peak) in &self.peaks {
            let verdict = verdict(peak.all <= *peak_bar);
            text += &format!(
                "| {guest} | {} | {} | {} | {verdict} |\n",
                mib(peak.all),
                mib(peak.anonymous),
                mib(*peak_bar)
            );
        }
        if let Some(note) = &self.note {
            text += &format!("\n{note}\n");
        }
        text += &format!("\nThe 512 MiB guest has {} in use: what a capture stores of it.\n", mib(self.used));
        text += "\n| the machine | |\n|---|---|\n";
        for (name, value) in &self.machine {
            text += &format!("| {name} | {value} |\n");
        }
        text
    }
}

/// Our dump may be this much larger.
const SIZE_BAR: f64 = 1.03;

#[expect(clippy::cast_precision_loss, reason = "a ratio of lengths, shown with three digits")]
fn size_ratio(theirs: u64, ours: u64) -> f64 {
    ours as f64 / theirs as f64
}

fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "**missed**" }
}

fn times(times: &[f64]) -> String {
    let (least, most) =
        times.iter().fold((f64::MAX, 0_f64), |(least, most), &time| (least.min(time), most.max(time)));
    format!("{:.1} ms ({least:.1} to {most:.1})", median(times))
}

fn mib(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_its_former_one() {
        let mut file = String::new();
        for (subject, text) in [("b", "one"), ("a", "two"), ("b", "three"), ("c", "four"), ("a", "five")] {
            file = with_section(&file, subject, &format!("{TITLE}{subject}\n\n{text}\n\n"));
        }
        assert_eq!(
            file,
            "# Benchmarks: a\n\nfive\n\n\n# Benchmarks: b\n\nthree\n\n\n# Benchmarks: c\n\nfour\n"
        );
    }
}
