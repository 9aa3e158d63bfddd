//! `uname` of the guest's kernel, read from its memory.
//!
//! ```text
//! init_uts_ns + OFFSET(uts_namespace.name):  sysname nodename release version machine domainname, 65 bytes each
//! ```
//!
//! Source: `spec/vmcoreinfo.md` section 7; Linux `include/uapi/linux/utsname.h` (`struct new_utsname`).

use vmcore_core::machine::Uts;
use vmcore_core::{Endianness, Error, Gva, Kernel, Machine, Vmcoreinfo, memory};

/// Length of a field in bytes, its final NUL included.
pub(crate) const FIELD_LEN: usize = 65;
/// Length of all six.
const LEN: usize = 6 * FIELD_LEN;
/// Distance of the names in `uts_namespace` of kernels before 5.11, which do not state it: behind a reference count.
const OLD_OFFSET: u64 = 4;
/// What every Linux calls itself.
pub(crate) const SYSNAME: &str = "Linux";
/// The first two words of it.
pub(crate) const SYSNAME_START: &[u8; 8] = b"Linux\0\0\0";
/// The host name and the domain's: they may be set, and what is behind their NUL is then what was there before.
const SETTABLE: [&str; 2] = ["nodename", "domainname"];

/// What `uname` of the guest's first namespace says.
///
/// # Errors
/// [`Error::NoKey`] if VMCOREINFO does not say where it is, [`Error::Invalid`] if something else is there, and errors of
/// reading.
pub fn read(kernel: &Kernel) -> Result<Uts, Error> {
    let missing = || Error::NoKey { key: "SYMBOL(init_uts_ns)".to_owned(), what: "uname" };
    let gva = address(kernel.info()).ok_or_else(missing)?;
    match kernel.space().image(gva) {
        Some(gpa) => decode(&memory::read_array(&**kernel.memory(), gpa, "uname")?, gpa.0),
        None => read_by(gva, |gva, buf| kernel.read(gva, buf)),
    }
}

/// Lets the machine's header say what the guest's kernel says, where the dump that it was read from does not.
///
/// Headers of kdump dumps have fields for it; what QEMU writes there names the machine at most. `false` if nothing was done.
pub fn complete(machine: &mut Machine) -> bool {
    if is_in_header(machine) || machine.memory.is_sequential() {
        return false;
    }
    let Ok(uts) = machine.kernel().and_then(|kernel| read(&kernel)) else { return false };
    machine.header.uts = Some(uts);
    true
}

/// Whether the machine's header names its kernel.
pub(crate) fn is_in_header(machine: &Machine) -> bool {
    machine.header.uts.as_ref().is_some_and(|uts| !uts.release.is_empty())
}

/// Where it lies.
pub(crate) fn address(info: &Vmcoreinfo) -> Option<Gva> {
    let offset = info.value("OFFSET", "uts_namespace.name").unwrap_or(OLD_OFFSET);
    Some(Gva(info.symbol("init_uts_ns")?.wrapping_add(offset)))
}

/// Reads it at its virtual address.
pub(crate) fn read_by(
    gva: Gva,
    read: impl FnOnce(Gva, &mut [u8]) -> Result<(), Error>,
) -> Result<Uts, Error> {
    let mut bytes = [0; LEN];
    read(gva, &mut bytes)?;
    decode(&bytes, gva.0)
}

/// Takes it apart. `offset` is where it lies, for errors.
pub(crate) fn decode(bytes: &[u8; LEN], offset: u64) -> Result<Uts, Error> {
    let mut uts = Uts::default();
    let (fields, _) = bytes.as_chunks::<FIELD_LEN>();
    for ((name, slot), field) in uts.fields_mut().into_iter().zip(fields) {
        let end = field.iter().position(|byte| *byte == 0);
        let (text, rest) = field.split_at(end.unwrap_or(FIELD_LEN));
        let is_padded = SETTABLE.contains(&name) || rest.iter().all(|byte| *byte == 0);
        let is_text = text.iter().all(|byte| !byte.is_ascii_control());
        if end.is_none() || !is_padded || !is_text {
            let found = Endianness::Big.decode(&field[..8]);
            return Err(Error::Invalid {
                what: "a field of uname",
                offset,
                found,
                expected: "text and zeros",
            });
        }
        *slot = String::from_utf8_lossy(text).into_owned();
    }
    if uts.sysname != SYSNAME {
        let found = Endianness::Big.decode(&bytes[..8]);
        return Err(Error::Invalid { what: "the system's name in uname", offset, found, expected: SYSNAME });
    }
    Ok(uts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six fields, as a kernel has them.
    fn fields(values: [&[u8]; 6]) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        for (slot, value) in bytes.chunks_mut(FIELD_LEN).zip(values) {
            slot[..value.len()].copy_from_slice(value);
        }
        bytes
    }

    #[test]
    fn only_what_a_kernel_leaves_there_is_taken() {
        let good: [&[u8]; 6] = [b"Linux", b"host", b"6.1.0", b"#1 SMP", b"x86_64", b"(none)"];
        let uts = decode(&fields(good), 0).unwrap();
        let found: Vec<&str> = uts.fields().into_iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(found, ["Linux", "host", "6.1.0", "#1 SMP", "x86_64", "(none)"]);

        let with = |place: usize, value: &'static [u8]| {
            let mut values = good;
            values[place] = value;
            decode(&fields(values), 0)
        };
        assert!(with(0, b"Lynx").is_err());
        assert!(with(2, b"6.1\x01").is_err());
        assert!(with(3, &[b'#'; FIELD_LEN]).is_err(), "without a NUL");
        assert!(with(3, b"#1\0SMP").is_err(), "what is behind the NUL");
        assert_eq!(with(1, b"new\0name").unwrap().nodename, "new", "was set by sysctl");
    }

    #[test]
    fn a_header_without_it_gets_it() {
        let mut machine = vmcore_synth::demo::machine("x86_64").unwrap();
        machine.header.uts = Some(Uts { machine: "x86_64".to_owned(), ..Uts::default() });
        assert!(complete(&mut machine));
        let uts = machine.header.uts.clone().unwrap();
        assert_eq!((uts.nodename.as_str(), uts.release.as_str()), ("demo", "6.1.0-demo"));
        assert!(!complete(&mut machine), "it has one");
        machine.header.uts = None;
        machine.guest_note = None;
        assert!(!complete(&mut machine), "nobody knows where it is");
    }
}
