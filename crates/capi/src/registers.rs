//! `vmcore_registers`: the registers of one vCPU.

use crate::boundary::{Code, Failure, answer, from_c, into_c, without_panic};
use serde_json::json;
use std::ffi::c_char;
use std::{ptr, slice};
use vmcore::{Register, RegisterFile, RegisterTable};

/// The registers of one vCPU, which a callback fills in. They are valid until it returns.
#[derive(Debug)]
pub struct Registers {
    pub(crate) file: RegisterFile,
    /// The first mistake: the dump fails with it, whether or not the callback looks at codes.
    pub(crate) failure: Option<Failure>,
}

impl Registers {
    pub(crate) fn new(table: &'static RegisterTable) -> Self {
        Self { file: RegisterFile::new(table), failure: None }
    }

    /// Sets a register to a value, least significant byte first, that fits into it.
    fn set(&mut self, name: &str, value: &[u8]) -> Result<(), Failure> {
        let table = self.file.table();
        let found = table.find(name).and_then(|id| Some((id, table.row(id)?)));
        let (id, row) = found.ok_or_else(|| {
            Failure::argument(format!("{} has no register `{name}`", table.gdb_architecture))
        })?;
        let (fits, above) = value.split_at(value.len().min(row.byte_len()));
        if above.iter().any(|byte| *byte != 0) {
            return Err(Failure::argument(format!(
                "register {name} has {} bits: the value is larger",
                row.bits
            )));
        }
        self.file.set(id, fits);
        Ok(())
    }
}

/// Keeps the first mistake for the dump, and gives its code.
///
/// # Safety
/// `registers` is null, or what the callback was given.
unsafe fn set(registers: *mut Registers, work: impl FnOnce(&mut Registers) -> Result<(), Failure>) -> Code {
    // SAFETY: the caller vouches that it is null, or what the callback was given, which nobody else uses meanwhile.
    let Some(registers) = (unsafe { registers.as_mut() }) else { return Code::Argument };
    match without_panic(|| work(registers)) {
        Ok(()) => Code::Ok,
        Err(failure) => {
            let code = failure.code;
            registers.failure.get_or_insert(failure);
            code
        }
    }
}

/// Sets a register of at most 64 bits.
///
/// Names are those of the architecture's manual in lower case: `vmcore_list_registers` lists them. A register that is not set is
/// unknown, which is another thing than zero. An unknown name, or a value that is too large, also makes the dump fail, with
/// a message that names it: to look at the code is not necessary.
///
/// # Safety
/// `registers` is what the callback was given; `name` is a string that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcore_registers_set_u64(
    registers: *mut Registers,
    name: *const c_char,
    value: u64,
) -> Code {
    let work = |registers: &mut Registers| {
        // SAFETY: as the caller vouches.
        let name = unsafe { from_c(name, "name") }?;
        registers.set(name, &value.to_le_bytes())
    };
    // SAFETY: as the caller vouches.
    unsafe { set(registers, work) }
}

/// Sets a register of any width: `len` bytes from `value` on, least significant byte first whatever the guest's byte order.
/// Bytes that are not given are zero. The rest is as `vmcore_registers_set_u64` says.
///
/// # Safety
/// `registers` is what the callback was given; `name` is a string that ends with NUL; `value` has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcore_registers_set(
    registers: *mut Registers,
    name: *const c_char,
    value: *const u8,
    len: usize,
) -> Code {
    let work = |registers: &mut Registers| {
        if value.is_null() {
            return Err(Failure::null("value"));
        }
        // SAFETY: as the caller vouches.
        let name = unsafe { from_c(name, "name") }?;
        // SAFETY: it is not null; the caller vouches for its length.
        registers.set(name, unsafe { slice::from_raw_parts(value, len) })
    };
    // SAFETY: as the caller vouches.
    unsafe { set(registers, work) }
}

/// The registers of an architecture: a JSON array of `{"name": "rax", "bits": 64}`, or null with an error.
///
/// To be freed with `vmcore_string_free`, as is the error.
///
/// # Safety
/// `arch` is a string that ends with NUL; `error` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmcore_list_registers(arch: *const c_char, error: *mut *mut c_char) -> *mut c_char {
    let mut list = ptr::null_mut();
    let work = || {
        // SAFETY: as the caller vouches.
        let arch = unsafe { from_c(arch, "arch") }?;
        let arch = vmcore::arch::by_name(arch).map_err(|error| Failure::argument(error.to_string()))?;
        let rows = arch.registers().rows.iter();
        let rows: Vec<_> =
            rows.map(|Register { name, bits, .. }| json!({ "name": name, "bits": bits })).collect();
        list = into_c(&serde_json::Value::from(rows).to_string());
        Ok(())
    };
    // SAFETY: as the caller vouches.
    let code = unsafe { answer(error, work) };
    debug_assert_eq!(code == Code::Ok, !list.is_null(), "either a list or an error");
    list
}
