//! What clients say to a gdb server: the seeds of that fuzz target, a packet a line.

#[path = "../../crates/gdb/tests/toy/mod.rs"]
#[allow(clippy::unwrap_used, reason = "it is a part of the tests of that crate")]
mod toy;

/// Feeds the bytes of a client to the engine, before several targets.
///
/// # Panics
/// If the engine does not survive.
pub fn read(bytes: &[u8]) {
    toy::hostile::survive(bytes);
}

/// What the clients say, by name. Source: `spec/gdb-rsp.md` section 9, with the addresses of the toy.
pub const SEEDS: [(&str, &str); 4] = [
    (
        "gdb",
        "qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+;no-resumed+;error-message+\nvMustReplyEmpty\n\
         QStartNoAckMode\n!\nHgp0.0\nqXfer:features:read:target.xml:0,ffb\nqTStatus\n?\nqXfer:threads:read::0,ffb\n\
         qfThreadInfo\nqsThreadInfo\nqAttached:1\nHc-1\nqOffsets\ng\nm1000,40\nqSymbol::\nqThreadExtraInfo,p1.1\nHgp1.2\n\
         Z1,1010,1\nvCont?\nvCont;c:p1.-1\nz1,1010,1\np5\nP0=0018000000000000\nX1000,4:abcd\nM1000,2:abcd\nx1000,100\n\
         Z2,1800,8\nvCont;s:p1.1;c:p1.-1\nz2,1800,8\nTp1.2\nqRcmd,77686f\nqSearch:memory:1000;1000;abc\nqCRC:1000,10\n\
         vCont;r1000,1010:p1.1\nqXfer:memory-map:read::0,ffb\nqXfer:auxv:read::0,ffb\nD;1\n",
    ),
    (
        "lldb",
        "QStartNoAckMode\nqSupported:xmlRegisters=i386,arm,mips,arc;multiprocess+\nQThreadSuffixSupported\n\
         QListThreadsInStopReply\nqHostInfo\nvCont?\nQEnableErrorStrings\nqProcessInfo\nqC\nqfThreadInfo\n?\nHg1\n\
         p0;thread:0001;\nx0,0\nqRegisterInfo0\nqThreadStopInfo2\nqMemoryRegionInfo:1000\njThreadsInfo\nm1000,200\nc\n\
         vCont;s:0001\nD;0000000000000001\nk\n",
    ),
    (
        "qemu",
        "qqemu.Supported\nqqemu.sstepbits\nqqemu.sstep\nQqemu.sstep=5\nQqemu.PhyMemMode:1\nm0,40\nM0,1:ff\nbs\nbc\nvAttach;2\n\
         vCont;c:p2.-1\nD;2\nvKill;1\nvCtrlC\n",
    ),
    (
        "files",
        "vFile:setfs:0\nvFile:open:2f746f79,0,0\nvFile:pread:3,100,0\nvFile:pwrite:3,0,a*b\nvFile:fstat:3\n\
         vFile:readlink:2f6c696e6b\nvFile:close:3\nF3\nF-1,4,C\n",
    ),
];
