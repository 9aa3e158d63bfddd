//! The packets, a row each, and how one is found and cut into its parameters.

use crate::dispatch::{Context, Outcome};
use crate::error::Error;
use crate::packets::{
    breakpoints, control, files, lldb, memory, program, qemu, query, registers, run, tags, threads, transfer,
};
use crate::wire;
use arrayvec::ArrayVec;

/// When a packet is taken and how it may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The target stands still; the answer comes at once.
    Answer,
    /// The target stands still; a stop reply may follow.
    Stop,
    /// Also while the target runs.
    Any,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) name: &'static str,
    /// What follows the name: words are parameters, what stands between them separates them, what is in brackets
    /// may be missing. The last parameter takes the rest; one called `binary` may have any byte.
    pub(crate) parameters: &'static str,
    pub(crate) turn: Turn,
    pub(crate) handler: fn(&mut Context<'_, '_>, &Parameters<'_>) -> Outcome,
}

const fn row(
    name: &'static str,
    parameters: &'static str,
    turn: Turn,
    handler: fn(&mut Context<'_, '_>, &Parameters<'_>) -> Outcome,
) -> Packet {
    Packet { name, parameters, turn, handler }
}

/// All packets that are known. What is not here gets the empty reply, `vMustReplyEmpty` above all.
///
/// Source: `spec/gdb-rsp.md` sections 3 and 5; gdb manual, "Packets" and "General Query Packets"; LLDB,
/// `docs/resources/lldbgdbremote.md`.
#[rustfmt::skip] // a table is read by column
pub(crate) static PACKETS: &[Packet] = &[
    // The session.
    row("!",                          "",                          Turn::Answer, control::extended),
    row("?",                          "",                          Turn::Stop,   control::why),
    row("D",                          "[;process]",                Turn::Answer, control::detach),
    row("k",                          "",                          Turn::Any,    control::kill),
    row("vAttach",                    ";process",                  Turn::Stop,   control::attach),
    row("vKill",                      ";process",                  Turn::Any,    control::kill_process),
    row("qAttached",                  "[:process]",                Turn::Answer, control::attached),
    row("qSupported",                 "[:features]",               Turn::Answer, control::supported),
    row("QStartNoAckMode",            "",                          Turn::Answer, control::without_acks),
    // Threads.
    row("H",                          "thread",                    Turn::Answer, threads::select),
    row("T",                          "thread",                    Turn::Answer, threads::is_alive),
    row("qC",                         "",                          Turn::Answer, threads::current),
    row("qfThreadInfo",               "",                          Turn::Answer, threads::first),
    row("qsThreadInfo",               "",                          Turn::Answer, threads::next),
    row("qThreadExtraInfo",           ",thread",                   Turn::Answer, threads::info),
    // Registers.
    row("g",                          "[;suffix]",                 Turn::Answer, registers::read_all),
    row("G",                          "values[;suffix]",           Turn::Answer, registers::write_all),
    row("p",                          "number[;suffix]",           Turn::Answer, registers::read),
    row("P",                          "number=value[;suffix]",     Turn::Answer, registers::write),
    // Memory.
    row("m",                          "address,length",            Turn::Answer, memory::read),
    row("M",                          "address,length:digits",     Turn::Answer, memory::write),
    row("x",                          "address,length",            Turn::Answer, memory::read_binary),
    row("X",                          "address,length:binary",     Turn::Answer, memory::write_binary),
    row("vFlashErase",                ":address,length",           Turn::Answer, memory::erase_flash),
    row("vFlashWrite",                ":address:binary",           Turn::Answer, memory::write_flash),
    row("vFlashDone",                 "",                          Turn::Answer, memory::finish_flash),
    row("qCRC",                       ":address,length",           Turn::Answer, memory::crc),
    row("qSearch:memory",             ":address;length;binary",    Turn::Answer, memory::search),
    row("qIsAddressTagged",           ":address",                  Turn::Answer, tags::is_tagged),
    row("qMemTags",                   ":address,length:kind",      Turn::Answer, tags::read),
    row("QMemTags",                   ":address,length:kind:tags", Turn::Answer, tags::write),
    // Running and stopping.
    row("c",                          "[address]",                 Turn::Stop,   run::go),
    row("C",                          "signal[;address]",          Turn::Stop,   run::go_signal),
    row("s",                          "[address]",                 Turn::Stop,   run::step),
    row("S",                          "signal[;address]",          Turn::Stop,   run::step_signal),
    row("bc",                         "",                          Turn::Stop,   run::go_back),
    row("bs",                         "",                          Turn::Stop,   run::step_back),
    row("vCont?",                     "",                          Turn::Answer, run::actions),
    row("vCont",                      ";actions",                  Turn::Stop,   run::resume),
    row("vCtrlC",                     "",                          Turn::Any,    run::interrupt),
    row("vRun",                       ";arguments",                Turn::Stop,   program::run),
    row("R",                          "digits",                    Turn::Stop,   program::restart),
    row("QCatchSyscalls",             ":syscalls",                 Turn::Answer, program::catch_syscalls),
    row("Z",                          "kind,address,length[;more]", Turn::Answer, breakpoints::insert),
    row("z",                          "kind,address,length[;more]", Turn::Answer, breakpoints::remove),
    // Documents and questions.
    row("qXfer:features:read",        ":annex:offset,length",      Turn::Answer, transfer::features),
    row("qXfer:threads:read",         ":annex:offset,length",      Turn::Answer, transfer::threads),
    row("qXfer:memory-map:read",      ":annex:offset,length",      Turn::Answer, transfer::memory_map),
    row("qXfer:auxv:read",            ":annex:offset,length",      Turn::Answer, transfer::auxv),
    row("qXfer:exec-file:read",       ":annex:offset,length",      Turn::Answer, transfer::exec_file),
    row("qXfer:libraries:read",       ":annex:offset,length",      Turn::Answer, transfer::libraries),
    row("qXfer:libraries-svr4:read",  ":annex:offset,length",      Turn::Answer, transfer::libraries_svr4),
    row("qXfer:siginfo:read",         ":annex:offset,length",      Turn::Answer, transfer::siginfo),
    row("qXfer:osdata:read",          ":annex:offset,length",      Turn::Answer, transfer::osdata),
    row("qOffsets",                   "",                          Turn::Answer, query::offsets),
    row("qSymbol",                    ":symbols",                  Turn::Answer, query::symbols),
    row("qRcmd",                      ",command",                  Turn::Answer, query::monitor),
    // QEMU's own.
    row("qqemu.Supported",            "",                          Turn::Answer, qemu::supported),
    row("qqemu.sstepbits",            "",                          Turn::Answer, qemu::step_bits),
    row("Qqemu.sstepbits",            "",                          Turn::Answer, qemu::step_bits),
    row("qqemu.sstep",                "[=flags]",                  Turn::Answer, qemu::step_flags),
    row("Qqemu.sstep",                "[=flags]",                  Turn::Answer, qemu::step_flags),
    row("Qqemu.sstep:",               "flags",                     Turn::Answer, qemu::step_flags),
    row("qqemu.PhyMemMode",           "",                          Turn::Answer, qemu::is_physical),
    row("Qqemu.PhyMemMode",           ":mode",                     Turn::Answer, qemu::set_physical),
    // LLDB's.
    row("QThreadSuffixSupported",     "",                          Turn::Answer, lldb::thread_suffix),
    row("QListThreadsInStopReply",    "",                          Turn::Answer, lldb::list_threads),
    row("QEnableErrorStrings",        "",                          Turn::Answer, lldb::error_strings),
    row("qHostInfo",                  "",                          Turn::Answer, lldb::host),
    row("qProcessInfo",               "",                          Turn::Answer, lldb::process),
    row("qGDBServerVersion",          "",                          Turn::Answer, lldb::version),
    row("qRegisterInfo",              "number",                    Turn::Answer, lldb::register),
    row("qMemoryRegionInfo",          ":address",                  Turn::Answer, lldb::memory_region),
    row("qThreadStopInfo",            "thread",                    Turn::Answer, lldb::thread_stop),
    row("jThreadsInfo",               "",                          Turn::Answer, lldb::threads),
    // Files.
    row("F",                          "value[,errno[,flag]]",      Turn::Stop,   files::completed),
    row("vFile:setfs",                ":process",                  Turn::Answer, files::set_fs),
    row("vFile:open",                 ":path,flags,mode",          Turn::Answer, files::open),
    row("vFile:close",                ":fd",                       Turn::Answer, files::close),
    row("vFile:pread",                ":fd,count,offset",          Turn::Answer, files::pread),
    row("vFile:pwrite",               ":fd,offset,binary",         Turn::Answer, files::pwrite),
    row("vFile:fstat",                ":fd",                       Turn::Answer, files::fstat),
    row("vFile:stat",                 ":path",                     Turn::Answer, files::stat),
    row("vFile:unlink",               ":path",                     Turn::Answer, files::unlink),
    row("vFile:readlink",             ":path",                     Turn::Answer, files::readlink),
];

impl Packet {
    /// The packet that begins `body`: the longest name that fits.
    pub(crate) fn find(body: &[u8]) -> Option<&'static Self> {
        let first = body.first();
        let alike = PACKETS.iter().filter(|packet| packet.name.as_bytes().first() == first);
        alike.filter(|packet| packet.begins(body)).max_by_key(|packet| packet.name.len())
    }

    /// Whether `body` has this name, and behind it the end or what begins the parameters. Behind a name of one
    /// letter there is only one packet that it can be.
    fn begins(&self, body: &[u8]) -> bool {
        let Some(rest) = body.strip_prefix(self.name.as_bytes()) else { return false };
        let first = self.parameters.bytes().find(|char| *char != b'[');
        match (first, rest.first()) {
            (_, None) => true,
            (Some(first), _) if first.is_ascii_alphabetic() => true,
            (first, next) => self.name.len() == 1 || first.as_ref() == next,
        }
    }

    /// Whether the last parameter is binary: escapes count there, runs do not.
    pub(crate) fn is_binary(&self) -> bool {
        self.parameters.ends_with("binary")
    }

    /// Cuts `body`, which has this name, into parameters.
    pub(crate) fn parameters<'p>(&self, body: &'p [u8]) -> Result<Parameters<'p>, Error> {
        let mut rest = &body[self.name.len()..];
        let mut fields = ArrayVec::new();
        let mut may_end = false;
        let mut pattern = self.parameters.bytes().peekable();
        while let Some(char) = pattern.next() {
            match char {
                b'[' => may_end = true,
                b']' => {}
                _ if char.is_ascii_alphabetic() => {
                    while pattern.next_if(|char| !is_mark(*char)).is_some() {}
                    let mut marks = pattern.clone();
                    let separator = marks.find(|char| !matches!(char, b'[' | b']'));
                    let end = separator.and_then(|separator| rest.iter().position(|byte| *byte == separator));
                    let (field, behind) = rest.split_at(end.unwrap_or(rest.len()));
                    fields.push(field);
                    rest = behind;
                }
                separator => match rest.split_first() {
                    Some((first, behind)) if *first == separator => rest = behind,
                    None if may_end => break,
                    _ => return Err(Error::INVALID),
                },
            }
        }
        if rest.is_empty() { Ok(Parameters(fields)) } else { Err(Error::INVALID) }
    }
}

fn is_mark(char: u8) -> bool {
    matches!(char, b'[' | b']' | b',' | b';' | b':' | b'=')
}

/// The parameters of a packet, by their place in the row.
#[derive(Debug)]
pub(crate) struct Parameters<'p>(ArrayVec<&'p [u8], 4>);

impl<'p> Parameters<'p> {
    /// The parameter, if it is there; one may be there and empty.
    pub(crate) fn get(&self, index: usize) -> Option<&'p [u8]> {
        self.0.get(index).copied()
    }

    /// The parameter, empty if it is missing.
    pub(crate) fn bytes(&self, index: usize) -> &'p [u8] {
        self.get(index).unwrap_or_default()
    }

    /// A parameter that has to be a number.
    pub(crate) fn number(&self, index: usize) -> Result<u64, Error> {
        wire::number(self.bytes(index)).ok_or(Error::INVALID)
    }

    /// A parameter that has to be a number of 32 bits.
    pub(crate) fn small(&self, index: usize) -> Result<u32, Error> {
        u32::try_from(self.number(index)?).map_err(|_| Error::INVALID)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(body: &[u8]) -> Option<&'static str> {
        Packet::find(body).map(|packet| packet.name)
    }

    #[test]
    fn names_are_unique_and_found() {
        for packet in PACKETS {
            assert_eq!(PACKETS.iter().filter(|other| other.name == packet.name).count(), 1);
            assert_eq!(name(packet.name.as_bytes()), Some(packet.name));
        }
        assert_eq!(name(b"vCont?"), Some("vCont?"));
        assert_eq!(name(b"vCont;c"), Some("vCont"));
        assert_eq!(name(b"Qqemu.sstep=7"), Some("Qqemu.sstep"));
        for unknown in
            [&b""[..], b"q", b"Q", b"v", b"b", b"bx", b"qSupportedX", b"vMustReplyEmpty", b"vContX"]
        {
            assert_eq!(name(unknown), None);
        }
    }

    #[test]
    fn parameters_are_cut() {
        let check = |body: &[u8], expected: Option<&[&[u8]]>| {
            let parameters = Packet::find(body).unwrap().parameters(body);
            assert_eq!(parameters.as_ref().ok().map(|found| &found.0[..]), expected, "{body:?}");
        };
        check(b"m10,20", Some(&[b"10", b"20"]));
        check(b"m10", None);
        check(b"M10,2:ab:cd", Some(&[b"10", b"2", b"ab:cd"]));
        check(b"c", Some(&[b""]));
        check(b"C05", Some(&[b"05"]));
        check(b"D", Some(&[]));
        check(b"D;1", Some(&[b"1"]));
        check(b"D1", None);
        check(b"gx", None);
        check(b"?x", None);
        check(b"qXfer:features:read:target.xml:0,ffb", Some(&[b"target.xml", b"0", b"ffb"]));
        check(b"qXfer:threads:read::0,ffb", Some(&[b"", b"0", b"ffb"]));
        check(b"vCont", None);
        check(b"F-1,4,C", Some(&[b"-1", b"4", b"C"]));
    }
}
