//! A Python environment of our own for the consumers of the Python package index.

use crate::run::{cache, find, output, retry};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const PACKAGES: [&str; 2] = ["drgn", "volatility3"];

/// The folder of the environment's programs. It is made if it is missing.
pub(crate) fn environment() -> Result<PathBuf> {
    let folder = cache("python")?;
    let mark = folder.join("complete");
    if !mark.is_file() {
        let python = find("python3").context("python3 is not installed")?;
        output(Command::new(python).args(["-m", "venv", "--clear"]).arg(&folder))?;
        retry(3, "installing drgn and Volatility 3", || {
            let mut pip = Command::new(folder.join("bin/python"));
            output(pip.args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))
        })?;
        // The programs of an environment name their folder, so it cannot be made elsewhere and moved.
        fs::write(&mark, "")?;
    }
    Ok(folder.join("bin"))
}

/// Opens a dump with drgn: prints the release, then the bytes at physical addresses given as ADDR:LEN, or at the kernel's virtual
/// ones given as virtual:ADDR:LEN, in hex.
pub(crate) const DRGN: &str = r#"
import sys, drgn
program = drgn.Program()
program.set_core_dump(sys.argv[1])
print(program["UTS_RELEASE"].string_().decode())
for argument in sys.argv[2:]:
    address, length = (int(word, 0) for word in argument.split(":")[-2:])
    print(program.read(address, length, physical=not argument.startswith("virtual:")).hex())
"#;

/// Writes a dump again through liblzo2.
pub(crate) const LZO_PEER: &str = include_str!("lzo_peer.py");

/// Opens a dump with libkdumpfile: prints its architecture, then the bytes as above.
///
/// Source: libkdumpfile 0.5 `include/libkdumpfile/kdumpfile.h.in`.
pub(crate) const LIBKDUMPFILE: &str = r#"
import ctypes, os, sys
library = ctypes.CDLL("libkdumpfile.so.10")
library.kdump_new.restype = ctypes.c_void_p
library.kdump_get_err.restype = ctypes.c_char_p
MACHINE_PHYSICAL, KERNEL_VIRTUAL, STRING = 1, 2, 4
context = ctypes.c_void_p(library.kdump_new())
def check(status):
    if status != 0:
        sys.exit("libkdumpfile: " + library.kdump_get_err(context).decode())
descriptor = ctypes.c_int(os.open(sys.argv[1], os.O_RDONLY))
check(library.kdump_open_fdset(context, ctypes.c_uint(1), ctypes.byref(descriptor)))
class Attribute(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("string", ctypes.c_char_p)]
attribute = Attribute()
check(library.kdump_get_attr(context, b"arch.name", ctypes.byref(attribute)))
print(attribute.string.decode())
if any(argument.startswith("virtual:") for argument in sys.argv):
    linux = Attribute(STRING, b"linux")
    check(library.kdump_set_attr(context, b"addrxlat.ostype", ctypes.byref(linux)))
for argument in sys.argv[2:]:
    address, length = (int(word, 0) for word in argument.split(":")[-2:])
    space = KERNEL_VIRTUAL if argument.startswith("virtual:") else MACHINE_PHYSICAL
    buffer = ctypes.create_string_buffer(length)
    size = ctypes.c_size_t(length)
    check(library.kdump_read(context, ctypes.c_int(space), ctypes.c_uint64(address), buffer, ctypes.byref(size)))
    print(buffer.raw[:size.value].hex())
"#;
