//! The log of the guest's kernel, as `dmesg` shows it, read from the kernel's own memory.
//!
//! | kernel | form | known by |
//! |---|---|---|
//! | 5.10 and later | a ring of descriptors beside one of texts (`log/ringbuffer.rs`) | `SYMBOL(prb)` |
//! | 3.5 to 5.9 | records one after another in one buffer (`log/records.rs`) | `SIZE(printk_log)`, or `SIZE(log)` before 3.11 |
//! | before 3.5 | characters (`log/chars.rs`) | `SYMBOL(logged_chars)` |
//!
//! The tables are read whole, in a few reads, when a log is opened; its records are looked at one by one after that, and
//! nothing is copied. Whatever a guest has written there, reading ends: no more records are given than the log has room for,
//! and their texts together are no longer than the buffer that holds them.
//!
//! Source: Linux `kernel/printk/printk.c` and the comments on top of `kernel/printk/printk_ringbuffer.c`; keys of
//! `log_buf_vmcoreinfo_setup`, called `log_buf_kexec_setup` before 4.15.

mod chars;
mod fields;
mod panic;
mod records;
mod ringbuffer;
#[cfg(test)]
mod tests;

use chars::CharBuffer;
use fields::WHAT;
use records::RecordBuffer;
use ringbuffer::RingBuffer;
use std::fmt;
use vmcore_core::{Error, Kernel};

/// What `dmesg` calls the levels, from 0, the most urgent one, on.
pub const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];

/// What `dmesg` calls the facilities, from 0 on. Nobody names those behind them.
pub const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "res0", "res1", "res2", "res3", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

/// Who wrote a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A thread, by its number; the idle thread of the first CPU is 0.
    Thread(u32),
    /// An interrupt on this CPU.
    Cpu(u32),
}

impl Caller {
    /// As kernels store it: the highest bit tells a CPU.
    fn of_id(id: u32) -> Self {
        const CPU: u32 = 1 << 31;
        if id & CPU == 0 { Self::Thread(id) } else { Self::Cpu(id & !CPU) }
    }
}

/// As kernels print it: `T1`, `C0`.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(number) => write!(f, "T{number}"),
            Self::Cpu(number) => write!(f, "C{number}"),
        }
    }
}

/// What was printed at once. Texts are bytes of the guest: of any encoding, and with any control character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number, from 0 on since the boot; kernels before 5.10 do not tell.
    pub sequence: Option<u64>,
    /// Nanoseconds of the kernel's clock, which begins near the start of the boot and stands still while the guest sleeps.
    pub timestamp_ns: Option<u64>,
    /// 0 is the kernel itself; an index into [`FACILITIES`].
    pub facility: u8,
    /// How urgent it is; an index into [`LEVELS`].
    pub level: u8,
    /// Who wrote it. Kernels before 5.10 tell only with `CONFIG_PRINTK_CALLER`, those before 5.1 not at all.
    pub caller: Option<Caller>,
    /// The text without a newline at its end; there may be some inside.
    pub text: &'a [u8],
    /// The subsystem of the device that it is about, as in `pci`; empty if it is about none.
    pub subsystem: &'a [u8],
    /// The device, as in `+pci:0000:00:1f.2`; empty if it is about none.
    pub device: &'a [u8],
}

/// A record that is not what it must be. It is left out; those behind it are still given, if they can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which record: the number of its descriptor, or where it begins in the buffer.
    pub place: u64,
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {:#x}: {}", self.place, self.what)
    }
}

/// The log of a guest's kernel, copied out of its memory: the guest may go on.
pub struct Log(Form);

enum Form {
    Ring(RingBuffer),
    Records(RecordBuffer),
    Chars(CharBuffer),
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match self.0 {
            Form::Ring(_) => "ring",
            Form::Records(_) => "records",
            Form::Chars(_) => "chars",
        };
        f.debug_tuple("Log").field(&form).finish()
    }
}

impl Log {
    /// Reads the log of `kernel`.
    ///
    /// # Errors
    /// [`Error::NoKey`] where VMCOREINFO does not tell of the log, [`Error::TooLarge`] and [`Error::Unsupported`] for what no
    /// kernel has, and those of [`Kernel::read`].
    pub fn open(kernel: &Kernel) -> Result<Self, Error> {
        let has_symbol = |name: &str| kernel.symbol(name, WHAT).is_ok();
        let form = if has_symbol("logged_chars") {
            Form::Chars(CharBuffer::open(kernel)?)
        } else if has_symbol("log_buf") {
            Form::Records(RecordBuffer::open(kernel)?)
        } else {
            Form::Ring(RingBuffer::open(kernel)?)
        };
        Ok(Self(form))
    }

    /// The records from the oldest on, each as it is, or what is wrong with it.
    pub fn records(&self) -> Box<dyn Iterator<Item = Result<Record<'_>, Damage>> + '_> {
        match &self.0 {
            Form::Ring(ring) => Box::new(ring.records()),
            Form::Records(buffer) => Box::new(buffer.records()),
            Form::Chars(buffer) => Box::new(buffer.records()),
        }
    }
}
