//! `uname` of a guest that has no VMCOREINFO: the search in its memory.
//!
//! ```text
//! +0 "Linux", zeros   +65 nodename   +130 "6.1…"   +195 "#1…"   +260 machine   +325 domainname
//! ```
//!
//! The kernel's image holds a template of it, too, whose version has no number behind `#`; and memory holds those of earlier boots.
//! Where none is left, the kernel's banner says its release and version, and there is a template of that, too:
//!
//! ```text
//! Linux version 6.1.0-50-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 ...) #1 SMP ... (2026-08-01)\n
//! ```
//!
//! Source: `spec/vmcoreinfo.md` section 7.

use crate::scan;
use crate::uts;
use std::ops::ControlFlow;
use vmcore_core::machine::Uts;
use vmcore_core::{DumpState, Error, Gpa, Machine, PhysMemory, memory};

/// Addresses that are looked at closely: real guests have a handful.
const MAX_LOOKS: usize = 4096;
/// Different ones that are kept.
const MAX_FOUND: usize = 16;
/// How a kernel's banner begins (Linux `init/version.c`), and its first two words.
const BANNER: &str = "Linux version ";
const BANNER_START: &[u8; 8] = b"Linux ve";
/// The longest banner in bytes: the builder's and the compiler's names have no bound of their own, those of real kernels have 250.
const MAX_BANNER_LEN: usize = 512;

/// Lets the header of a machine without VMCOREINFO say what `uname` in memory says, if memory is of one mind.
///
/// What was found and differs is returned, if there is more than one, and nothing done. A header that names its kernel is left alone,
/// memory that comes as a stream is not searched.
///
/// # Errors
/// [`Error::Cancelled`], and errors of reading.
pub fn complete(machine: &mut Machine, state: &DumpState) -> Result<Vec<Uts>, Error> {
    if uts::is_in_header(machine) || machine.guest_note.is_some() || machine.memory.is_sequential() {
        return Ok(Vec::new());
    }
    let mut found = search(&*machine.memory, state)?;
    if found.len() > 1 {
        return Ok(found);
    }
    if let Some(mut uts) = found.pop() {
        if uts.machine.is_empty() {
            uts.machine = machine.header.uts.take().map(|uts| uts.machine).unwrap_or_default();
        }
        machine.header.uts = Some(uts);
    }
    Ok(Vec::new())
}

/// All that `uname` may say by what lies in memory, each once, in the order in which they were found; by banners, if there is nothing
/// else, and then the release and the version alone.
///
/// Of those that differ in the names that may be set, the first stands for all.
///
/// # Errors
/// As [`complete`].
pub fn search(memory: &dyn PhysMemory, state: &DumpState) -> Result<Vec<Uts>, Error> {
    let found = all(memory, uts::SYSNAME_START, state, |gpa| read(memory, gpa))?;
    if !found.is_empty() {
        return Ok(found);
    }
    let found = all(memory, BANNER_START, state, |gpa| read_banner(memory, gpa))?;
    let is_in_log = |uts: &Uts| found.iter().any(|other| is_copy_in_log(uts, other));
    Ok(found.iter().filter(|uts| !is_in_log(uts)).cloned().collect())
}

/// What `read` makes of each address where `start` is, each once.
fn all(
    memory: &dyn PhysMemory,
    start: &[u8; 8],
    state: &DumpState,
    read: impl Fn(Gpa) -> Option<Uts>,
) -> Result<Vec<Uts>, Error> {
    let mut found: Vec<Uts> = Vec::new();
    let mut looks = 0;
    scan::words(memory, start, state, |gpa| {
        looks += 1;
        if looks > MAX_LOOKS || found.len() >= MAX_FOUND {
            return ControlFlow::Break(());
        }
        if let Some(uts) = read(gpa).filter(|uts| !found.iter().any(|other| is_same(uts, other))) {
            found.push(uts);
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// What lies at `gpa`, if it can be of a kernel that has run.
fn read(memory: &dyn PhysMemory, gpa: Gpa) -> Option<Uts> {
    let uts = uts::decode(&memory::read_array(memory, gpa, "uname").ok()?, gpa.0).ok()?;
    (is_of_a_kernel(&uts) && !uts.machine.is_empty()).then_some(uts)
}

/// The banner at `gpa`: one line, of which the release and the version are taken.
fn read_banner(memory: &dyn PhysMemory, gpa: Gpa) -> Option<Uts> {
    let mut bytes = [0; MAX_BANNER_LEN];
    // What cannot be read is zeros, which no line has.
    memory.read_at(gpa, &mut bytes).ok()?;
    let line = bytes.split(|byte| *byte == b'\n').next().filter(|line| line.len() < bytes.len())?;
    let line = str::from_utf8(line).ok().filter(|line| !line.contains(|char: char| char.is_control()))?;
    let (release, built) = line.strip_prefix(BANNER)?.split_once(" (")?;
    // Compilers' names may have a `#` as well, but the version is the last word that begins with one.
    let (_, version) = built.rsplit_once(" #")?;
    let uts = Uts {
        sysname: uts::SYSNAME.to_owned(),
        release: release.to_owned(),
        version: format!("#{version}"),
        ..Uts::default()
    };
    let fits = uts.fields().iter().all(|(_, text)| text.len() < uts::FIELD_LEN);
    (is_of_a_kernel(&uts) && fits).then_some(uts)
}

/// Whether `copy` is what the kernel's log has of the banner that `uts` is of: printk moves the text over its level, two bytes, and
/// its last two bytes then stand twice.
fn is_copy_in_log(copy: &Uts, uts: &Uts) -> bool {
    let rest = copy.version.strip_prefix(&uts.version);
    copy.release == uts.release && rest.is_some_and(|rest| rest.len() == 2 && uts.version.ends_with(rest))
}

/// Whether the release has numbers, and the version that of a build.
fn is_of_a_kernel(uts: &Uts) -> bool {
    let is_digit = |text: &str, at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_release = |(major, minor): (&str, &str)| is_number(major) && is_digit(minor, 0);
    uts.release.split_once('.').is_some_and(is_release)
        && uts.version.starts_with('#')
        && is_digit(&uts.version, 1)
}

/// Whether both are of one build of a kernel.
fn is_same(one: &Uts, other: &Uts) -> bool {
    (&one.release, &one.version, &one.machine) == (&other.release, &other.version, &other.machine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmcore_core::Region;
    use vmcore_core::memory::BlockMemory;

    fn uname(release: &str, version: &str) -> Vec<u8> {
        let fields = ["Linux", "host", release, version, "s390x", "(none)"];
        fields.iter().flat_map(|field| field.bytes().chain(std::iter::repeat(0)).take(65)).collect()
    }

    /// Memory of 4 MiB with these bytes at these places.
    fn machine(parts: &[(usize, Vec<u8>)]) -> Machine {
        let mut bytes = vec![0x5a; 4 << 20];
        for (at, part) in parts {
            bytes[*at..][..part.len()].copy_from_slice(part);
        }
        let mut machine = vmcore_synth::guest("x86_64").unwrap().ram(0..bytes.len() as u64).build().unwrap();
        machine.memory = std::sync::Arc::new(BlockMemory::new(vec![(Gpa(0), bytes)]).unwrap());
        assert_eq!(machine.memory.regions(), [Region::ram(Gpa(0), 4 << 20)]);
        machine
    }

    /// The releases that are found, and what the header then says.
    fn completed(parts: &[(usize, Vec<u8>)]) -> (Vec<String>, Option<String>) {
        let mut machine = machine(parts);
        let found = complete(&mut machine, &DumpState::default()).unwrap();
        (found.into_iter().map(|uts| uts.release).collect(), machine.header.uts.map(|uts| uts.release))
    }

    #[test]
    fn one_kernel_is_found() {
        // In the middle of a page, across pages, across blocks of the search: its name, too.
        for at in [0, 0x1004, 0x1f80, (1 << 20) - 8, (1 << 20) - 4, (4 << 20) - 392] {
            let template = (0x20_0000, uname("6.1.0-50-s390x", "# SMP Debian"));
            let found = completed(&[template, (at, uname("6.1.0-50-s390x", "#1 SMP Debian"))]);
            assert_eq!(found, (vec![], Some("6.1.0-50-s390x".to_owned())), "{at:#x}");
        }
    }

    #[test]
    fn what_is_none_is_not_taken() {
        for (at, part) in [
            (0x1002, uname("6.1.0", "#1 SMP")),
            (0x1000, uname("6.1.0", "# SMP")),
            (0x1000, uname("six", "#1 SMP")),
            (0x1000, uname("6.x", "#1 SMP")),
            ((4 << 20) - 388, uname("6.1.0", "#1 SMP")[..388].to_vec()),
        ] {
            assert_eq!(completed(&[(at, part)]), (vec![], None));
        }
    }

    #[test]
    fn kernels_that_differ_are_told() {
        let (one, other) = (uname("6.1.0", "#1 SMP"), uname("6.1.0", "#2 SMP"));
        let both = completed(&[(0x1000, one.clone()), (0x2000, one.clone()), (0x3000, other)]);
        assert_eq!(both, (vec!["6.1.0".to_owned(); 2], None));
        assert_eq!(completed(&[(0x1000, one.clone()), (0x2000, one)]), (vec![], Some("6.1.0".to_owned())));
    }

    #[test]
    fn a_header_that_has_it_keeps_it() {
        let mut machine = machine(&[(0x1000, uname("6.1.0", "#1 SMP"))]);
        machine.header.uts = Some(Uts { release: "5.0".to_owned(), ..Uts::default() });
        assert_eq!(complete(&mut machine, &DumpState::default()).unwrap(), []);
        assert_eq!(machine.header.uts.as_ref().unwrap().release, "5.0");
        machine.header.uts = Some(Uts { machine: "s390x".to_owned(), ..Uts::default() });
        assert_eq!(complete(&mut machine, &DumpState::default()).unwrap(), []);
        assert_eq!(machine.header.uts.unwrap().release, "6.1.0");
    }

    #[test]
    fn without_a_name_the_banner_counts() {
        let banner = |version: &str| {
            let compiler = "gcc-12 (Debian 12.2.0-14) 12.2.0, GNU ld #2";
            format!("Linux version 6.1.0-50-cloud-amd64 (builder@host) ({compiler}) {version}\n").into_bytes()
        };
        let (real, template) = (banner("#1 SMP Debian 6.1.176-1"), banner("# SMP Debian 6.1.176-1"));
        let cut = real[..real.len() - 1].to_vec();
        let in_log = [&real[..real.len() - 1], &real[real.len() - 3..]].concat();
        let found = |parts: &[(usize, Vec<u8>)]| {
            let mut machine = machine(parts);
            let others = complete(&mut machine, &DumpState::default()).unwrap();
            (others.len(), machine.header.uts)
        };
        for at in [0, 0x1f80, (1 << 20) - 4, (4 << 20) - 140] {
            assert!(real.len() <= 140);
            let (others, uts) = found(&[
                (0x20_0000, template.clone()),
                (0x30_0000, cut.clone()),
                (0x30_1000, in_log.clone()),
                (at, real.clone()),
            ]);
            let uts = uts.unwrap();
            assert_eq!(
                (others, uts.release.as_str(), uts.version.as_str()),
                (0, "6.1.0-50-cloud-amd64", "#1 SMP Debian 6.1.176-1")
            );
            assert_eq!((uts.sysname.as_str(), uts.machine.as_str()), ("Linux", ""));
        }
        for part in [template, cut, banner("#1 SMP\x07"), banner(&format!("#1 {}", "long".repeat(20)))] {
            assert_eq!(found(&[(0x1000, part)]), (0, None));
        }
        // Of two kernels, and of both where a name is.
        let other = banner("#2 SMP");
        assert_eq!(found(&[(0x1000, real.clone()), (0x2000, other.clone())]), (2, None));
        let (others, uts) = found(&[(0x1000, real), (0x2000, other), (0x3000, uname("6.1.0", "#3 SMP"))]);
        assert_eq!((others, uts.unwrap().version.as_str()), (0, "#3 SMP"));
    }

    #[test]
    fn memory_full_of_names_ends() {
        let name = uname("6.1.0", "#1 SMP");
        let mut parts: Vec<_> = (0..9000).map(|at| (at * 392, uname("6.1.0", "# SMP"))).collect();
        parts.push((0x3f_0000, name));
        assert_eq!(completed(&parts), (vec![], None));
    }
}
