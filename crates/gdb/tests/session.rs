//! What a session says, packet by packet: the transcripts of `spec/gdb-rsp.md`, section 9, on a toy.

#[cfg(test)]
mod toy;

use toy::{Client, Toy};
use vmcore_gdb::{FileArgument, FileCall, Status, StopReason};

/// Each packet of the rows gets the answer beside it. A row without packet lets the machine run.
fn check(client: &mut Client, rows: &[(&str, &str)]) {
    for (packet, expected) in rows {
        let reply = if packet.is_empty() { client.run() } else { client.ask(packet) };
        assert_eq!(reply, *expected, "the answer to {packet}");
    }
}

const FEATURES: &str = "qSupported:multiprocess+;swbreak+;hwbreak+;qRelocInsn+;fork-events+;vfork-events+;\
    exec-events+;vContSupported+;QThreadEvents+;no-resumed+;memory-tagging+;xmlRegisters=i386";

#[rustfmt::skip] // a table is read by column
#[test]
fn gdb_looks_at_a_dump() {
    let mut client = Client::new(Toy::dump());
    assert_eq!(client.bytes(b"+"), b"");
    check(&mut client, &[
        (FEATURES, "PacketSize=1000;QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;vContSupported+;\
                    multiprocess+;binary-upload+;error-message+"),
        ("vMustReplyEmpty", ""),
        ("QStartNoAckMode", "OK"),
        ("!", "OK"),
        ("Hgp0.0", "OK"),
        ("qXfer:features:read:target.xml:0,ffb", &format!("l{}", toy::TARGET_XML)),
        ("qXfer:features:read:target.xml:0,5", "m<?xml"),
        ("qTStatus", ""),
        ("?", "T05thread:p01.02;core:1;02:0010000000000000;"),
        ("qC", "QCp01.02"), // the thread that has crashed, also for a client that asks for any
        ("qfThreadInfo", "mp01.01,p01.02"),
        ("qsThreadInfo", "l"),
        ("qsThreadInfo", "l"),
        ("qXfer:threads:read::0,ffb",
            "l<?xml version=\"1.0\"?>\n<threads>\n\
             <thread id=\"p01.01\" core=\"0\" name=\"vCPU 0\">CPU#0 [halted]</thread>\n\
             <thread id=\"p01.02\" core=\"1\" name=\"vCPU 1\">CPU#1 [halted]</thread>\n\
             </threads>\n"),
        ("qThreadExtraInfo,p1.1", "43505523 30205b68616c7465645d".replace(' ', "").as_str()),
        ("qAttached:1", "1"),
        ("Hc-1", "OK"),
        ("qOffsets", ""),
        ("g", "220000000000000000180000000000000010000000000000xxxxxxxx"),
        ("Hgp1.1", "OK"),
        ("g", "110000000000000000180000000000000010000000000000xxxxxxxx"),
        ("p4", "xxxxxxxx"),
        ("p5", "000102030405060708090a0b0c0d0e0f"),
        ("qSymbol::", "OK"),
        ("m1000,4", "00010203"),
        ("m2ffe,8", "0000"),  // what there is
        ("m3000,4", "E14"),
        ("m0,4", "E14"),
        ("vCont?", "vCont;c;C;s;S"),
        ("vCont;c:p1.-1", "E01"),
        ("c", "E01"),
        ("s", "E01"),
        ("C05", "E01"),
        ("P0=1122334455667788", "E01"),
        ("G1122334455667788", "E01"),
        ("M1000,1:00", "E01"),
        ("X1000,0:", "OK"),
        ("X1000,1:a", "E01"),
        ("Z0,1000,4", ""),
        ("vCtrlC", ""),
        ("qXfer:memory-map:read::0,ffb", ""),
        ("qXfer:auxv:read::0,ffb", ""),
        ("vFile:setfs:0", ""),
        ("qqemu.sstepbits", ""),
        ("qqemu.Supported", "PhyMemMode"),
        ("vKill;1", "E01"),
        ("D;1", "OK"),
    ]);
    // A byte 3 while nothing runs is no reason to tell that something has stopped.
    let mut client = Client::new(Toy::dump());
    client.bytes(&[3]);
    check(&mut client, &[("qSupported:error-message+", "PacketSize=1000;QStartNoAckMode+;qXfer:features:read+;\
            qXfer:threads:read+;vContSupported+;multiprocess+;binary-upload+;error-message+"),
        ("c", "E.this target does not run"),
        ("?", "T05thread:02;core:1;02:0010000000000000;"),
    ]);
    assert_eq!(client.bytes(&toy::frame(b"k")), b"+");
    assert_eq!(client.engine.status(), Status::Closed);
    assert_eq!(client.target.log, "+1 ", "nobody was killed");
}

#[rustfmt::skip] // a table is read by column
#[test]
fn gdb_debugs_a_machine() {
    let mut client = Client::new(Toy::live());
    check(&mut client, &[
        (FEATURES, "PacketSize=1000;QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;qXfer:memory-map:read+;\
            qXfer:auxv:read+;qXfer:exec-file:read+;qXfer:libraries:read+;qXfer:siginfo:read+;QCatchSyscalls+;\
            memory-tagging+;vContSupported+;multiprocess+;binary-upload+;error-message+;swbreak+;hwbreak+;ReverseStep+;ReverseContinue+"),
        ("?", "T05thread:p01.01;core:0;02:0010000000000000;04:02000000;"),
        ("vCont?", "vCont;c;C;s;S;r"),
        // break, twice the same
        ("Z0,1010,4", "OK"),
        ("Z0,1010,4", "OK"),
        ("vCont;c:p1.-1", ""),
        ("", "T05thread:p01.01;swbreak:;core:0;02:1010000000000000;04:02000000;"),
        ("z0,1010,4", "OK"),
        ("z0,1010,4", "E22"),
        // hbreak
        ("Z1,1020,1", "OK"),
        ("c", ""),
        ("", "T05thread:p01.01;hwbreak:;core:0;02:2010000000000000;04:02000000;"),
        ("z1,1020,1", "OK"),
        // stepi, of one thread while the other one stands still
        ("vCont;s:p1.2", ""),
        ("", "T05thread:p01.02;core:1;02:1c10000000000000;04:02000000;"),
        ("qC", "QCp01.02"),
        ("vCont;s:p1.1;c:p1.-1", ""),
        ("", "T05thread:p01.01;core:0;02:2410000000000000;04:02000000;"),
        ("s", ""),
        ("", "T05thread:p01.01;core:0;02:2810000000000000;04:02000000;"),
        ("s1050", ""),
        ("", "T05thread:p01.01;core:0;02:5410000000000000;04:02000000;"),
        ("vCont;r1054,1060:p1.1", ""),
        ("", "T05thread:p01.01;core:0;02:6010000000000000;04:02000000;"),
        ("bs", ""),
    ]);
    // The embedder tells of the end of the record.
    let stop = vmcore_gdb::Stop { thread: client.target.threads[0].0, reason: StopReason::ReplayStart };
    let mut reply = Vec::new();
    client.engine.stopped(stop, &mut client.target, &mut |bytes| reply.extend(bytes));
    assert_eq!(toy::bodies(&reply), [b"T05thread:p01.01;replaylog:begin;core:0;02:5c10000000000000;04:02000000;"]);
    check(&mut client, &[
        // watch
        ("P0=0018000000000000", "OK"),
        ("Z2,1800,8", "OK"),
        ("Z2,1800,0", "E22"),
        ("Z3,ffffffffffffffff,2", "E22"),
        ("Z5,1800,8", ""),
        ("Z0,1800,4;X1,22", "E22"),
        ("c", ""),
        ("", "T05thread:p01.01;watch:1800;core:0;02:0411000000000000;04:02000000;"),
        ("z2,1800,8", "OK"),
        // registers and memory
        ("P4=78563412", "OK"),
        ("G0100000000000000", "OK"),
        ("g", "0100000000000000001800000000000004110000000000 0078563412".replace(' ', "").as_str()),
        ("X1000,4:}\x03}\x04}]}\x0a", "OK"),
        ("m1000,4", "23247d2a"),
        ("M1000,2:abCD", "OK"),
        ("m1000,4", "abcd7d2a"),
        // interrupt
        ("vCont;c:p1.-1", ""),
        ("m1000,4", "E22"),
    ]);
    client.bytes(b"\x03");
    check(&mut client, &[
        ("", "T02thread:p01.01;core:0;02:a420000000000000;04:78563412;"),
        ("D;1", "OK"),
        ("g", "E22"),
        ("m1000,4", "E22"),
        ("?", "E22"),
        ("qfThreadInfo", "l"),
        ("D;1", "E22"),
        ("vAttach;1", "T05thread:p01.01;core:0;02:a420000000000000;04:78563412;"),
    ]);
    assert_eq!(client.target.log, "+1 -1 +1 ");
    assert_eq!(client.target.breakpoints, []);
}

#[rustfmt::skip] // a table is read by column
#[test]
fn lldb_looks_at_a_dump() {
    let mut client = Client::new(Toy::dump());
    let registers = |tid: &str| format!("\"tid\":{tid},");
    check(&mut client, &[
        ("QStartNoAckMode", "OK"),
        ("qSupported:xmlRegisters=i386,arm,mips,arc;multiprocess+;fork-events+;vfork-events+",
            "PacketSize=1000;QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;vContSupported+;\
             multiprocess+;binary-upload+;error-message+"),
        ("QThreadSuffixSupported", "OK"),
        ("QListThreadsInStopReply", "OK"),
        ("qHostInfo", "triple:7838365f36342d756e6b6e6f776e2d6c696e75782d676e75;endian:little;ptrsize:8;\
            watchpoint_exceptions_received:after;vm-page-size:4096;addressing_bits:48;"),
        ("vCont?", "vCont;c;C;s;S"),
        ("qVAttachOrWaitSupported", ""),
        ("QEnableErrorStrings", "OK"),
        ("qProcessInfo", "pid:1;parent-pid:0;triple:7838365f36342d756e6b6e6f776e2d6c696e75782d676e75;\
            endian:little;ptrsize:8;"),
        ("qC", "QCp01.02"),
        ("?", "T05thread:p01.02;core:1;hexname:764350552031;threads:p01.01,p01.02;02:0010000000000000;"),
        ("Hg1", "OK"),
        ("p0", "1100000000000000"),
        ("p0;thread:0002;", "2200000000000000"),
        ("g;thread:0002;", "220000000000000000180000000000000010000000000000xxxxxxxx"),
        ("p0;thread:0003;", "E22"),
        ("p0;other:0001;", "E22"),
        ("qStructuredDataPlugins", ""),
        ("qShlibInfoAddr", ""),
        ("x0,0", "b"),
        ("mfffff000002010,8", "E14"),
        ("qThreadStopInfo2", "T05thread:p01.02;core:1;hexname:764350552031;threads:p01.01,p01.02;02:0010000000000000;"),
        ("qThreadStopInfo1", "T00thread:p01.01;core:0;hexname:764350552030;threads:p01.01,p01.02;02:0010000000000000;"),
        ("qMemoryRegionInfo:1004", "start:1000;size:2000;permissions:rx;"),
        ("qMemoryRegionInfo:4000", "start:3000;size:ffffffffffffd000;"),
        ("qRegisterInfo0", ""),
        ("jThreadExtendedInfo:", ""),
        ("jThreadsInfo", &format!(
            "[{{{}\"reason\":\"none\",\"signal\":0,\"name\":\"vCPU 0\",\"registers\":{{\"2\":\"0010000000000000\"}}}},\
              {{{}\"reason\":\"trace\",\"signal\":5,\"name\":\"vCPU 1\",\"registers\":{{\"2\":\"0010000000000000\"}}}}]",
            registers("1"), registers("2"))),
        ("qWatchpointSupportInfo:", ""),
        // An error would end its session.
        ("c", "O746869732074617267657420646f6573206e6f742072756e0a \
            T02thread:p01.01;core:0;hexname:764350552030;threads:p01.01,p01.02;02:0010000000000000;"),
        ("vKill;1", "E01;74686973207461726765742063616e6e6f74206265206b696c6c65642066726f6d2068657265"),
        ("D;0000000000000001", "OK"),
    ]);
    let mut client = Client::new(Toy::live());
    check(&mut client, &[
        ("p0;thread:0002;", "E22"), // not agreed on
        ("qRegisterInfo2", "name:pc;bitsize:64;offset:16;encoding:uint;format:hex;set:General;generic:pc;"),
        ("qRegisterInfo3", "E45"),
        ("vCont;s:0001", ""),
        ("", "T05thread:01;core:0;02:0410000000000000;04:02000000;"),
    ]);
}

#[rustfmt::skip] // a table is read by column
#[test]
fn scripts_for_qemu_go_on_to_work() {
    let mut client = Client::new(Toy::live());
    check(&mut client, &[
        ("qqemu.Supported", "sstepbits;sstep;PhyMemMode"),
        ("qqemu.sstepbits", "ENABLE=1,NOIRQ=2,NOTIMER=4"),
        ("qqemu.sstep", "0x7"),
        ("Qqemu.sstep=5", "OK"),
        ("Qqemu.sstep", "0x5"),
        ("Qqemu.sstep:1", "OK"),
        ("qqemu.sstep", "0x1"),
        ("Qqemu.sstep=8", "E22"),
        ("Qqemu.sstep=", "E22"),
        ("qqemu.PhyMemMode", "0"),
        ("m0,4", "E14"),
        ("Qqemu.PhyMemMode:1", "OK"),
        ("qqemu.PhyMemMode", "1"),
        ("m0,4", "00010203"),
        ("M0,1:ff", "OK"),
        ("m0,4", "ff010203"),
        ("m2000,4", "E14"), // a hole is no zeros
        ("M2000,4:00000000", "E14"),
        ("Qqemu.PhyMemMode:", "E22"),
        ("Qqemu.PhyMemMode=1", ""),
        ("Qqemu.PhyMemMode:0", "OK"),
        ("m1000,4", "ff010203"),
        ("qToy", "toy"),
    ]);
    assert_eq!(client.target.step_flags, 1);
    client.ask("Qqemu.PhyMemMode:1");
    client.ask("Z0,1010,4");
    client.bytes(b"$m1000,4");
    client.engine.disconnect(&mut client.target);
    assert_eq!(client.target.breakpoints, []);
    check(&mut client, &[
        ("qqemu.PhyMemMode", "0"),
        ("qqemu.sstep", "0x7"),
        ("?", "T05thread:01;core:0;02:0010000000000000;04:02000000;"),
    ]);
    assert_eq!(client.target.step_flags, 7);
}

#[rustfmt::skip] // a table is read by column
#[test]
fn clusters_are_processes() {
    let mut client = Client::new(Toy::new(true, &[1, 1, 2]));
    check(&mut client, &[
        ("qSupported:multiprocess+", "PacketSize=1000;QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;\
            qXfer:memory-map:read+;qXfer:auxv:read+;qXfer:exec-file:read+;qXfer:libraries:read+;qXfer:siginfo:read+;\
            QCatchSyscalls+;memory-tagging+;vContSupported+;multiprocess+;binary-upload+;error-message+;swbreak+;hwbreak+;ReverseStep+;ReverseContinue+"),
        ("qfThreadInfo", "mp01.01,p01.02"),
        ("Tp2.3", "E22"),
        ("T3", "E22"),
        ("Hgp2.3", "E22"),
        ("vAttach;9", "E22"),
        ("vAttach;2", "T05thread:p02.03;core:2;02:0010000000000000;04:02000000;"),
        ("qfThreadInfo", "mp01.01,p01.02,p02.03"),
        ("qC", "QCp02.03"),
        ("Tp2.3", "OK"),
        ("Tp1.3", "E22"),
        ("T3", "OK"),
        ("T-1", "E22"),
        ("Hgp1", "OK"),
        ("qC", "QCp01.01"),
        ("Hgp-1.-1", "OK"),
        ("qC", "QCp01.01"),
        ("Hgp-1.2", "E22"),
        ("vCont;c:p9.-1", "E22"),
        ("vCont;s:p2.0", ""),
        ("", "T05thread:p02.03;core:2;02:0410000000000000;04:02000000;"),
        ("D", "E22"),
        ("D;9", "E22"),
        ("D;2", "OK"),
        ("qC", "QCp01.01"),
        ("qXfer:exec-file:read:1:0,100", "l/boot/toy"),
        ("qXfer:exec-file:read:2:0,100", "E00"),
        ("vKill;2", "E22"),
        ("vKill;1", "OK"),
    ]);
    assert_eq!(client.target.log, "+1 +2 -2 kill Some(1) ");
    assert_eq!(client.engine.status(), Status::Closed);
}

#[rustfmt::skip] // a table is read by column
#[test]
fn files_and_words() {
    let mut client = Client::with_packet_size(Toy::live(), 512);
    check(&mut client, &[
        ("vFile:setfs:0", "F0"),
        ("vFile:open:2f746f79,0,0", "F3"),
        ("vFile:open:2f,0,0", "F-1,2"),
        ("vFile:open:", "E22"),
        ("vFile:open:2f746f79,0", "E22"),
        ("vFile:pread:3,100,0", "F000000e;a $ is escaped"),
        ("vFile:pread:3,100,e", "F0000000;"),
        ("vFile:pread:4,100,0", "F-1,9"),
        ("vFile:pwrite:3,0,*", "F-1,1e"),
        ("vFile:fstat:4", "F-1,9"),
        ("vFile:unlink:2f746f79", "F-1,1e"),
        ("vFile:readlink:2f6c696e6b", "F0000001;x"),
        ("vFile:close:3", "F0"),
        ("vFile:close:4", "F-1,9"),
        ("vFile:chmod:3", ""),
        ("qXfer:auxv:read::0,ffb", "l\x06\0*}"),
        ("qXfer:auxv:read::1,1", "m\0"),
        ("qXfer:auxv:read::4,1", "l"),
        ("qXfer:auxv:read::5,1", "E00"),
        ("qXfer:auxv:read::0,0", "E22"),
        ("qXfer:auxv:read:x:0,1", "E00"),
        ("qXfer:auxv:write::0,1", ""),
        ("qXfer:memory-map:read::0,ffb",
            "l<?xml version=\"1.0\"?>\n<memory-map>\n<memory type=\"ram\" start=\"0x1000\" length=\"0x2000\"/>\n\
             <memory type=\"flash\" start=\"0x8000\" length=\"0x1000\"><property name=\"blocksize\">0x100</property>\
             </memory>\n</memory-map>\n"),
        ("qOffsets", "TextSeg=1000"),
        ("qRcmd,77686f", "O764350552030 0a OK".replacen(' ', "", 1).as_str()),
        ("qRcmd,6e6f", "O6e6f207375636820636f6d6d616e640a E01"),
        ("qRcmd,6", "E22"),
        ("qRcmd,zz", "E22"),
        ("qRcmd,", "E22"),
        ("qCRC:1000,100", "C494a116a"),
        ("qCRC:2fff,2", "E14"),
        ("qSearch:memory:1000;2000;\x10\x11\x12", "1,1010"),
        ("qSearch:memory:1011;2000;\x10\x11\x12", "1,1110"),
        ("qSearch:memory:2000;1000;\x01", "0"),
        ("qSearch:memory:2000;2000;\x01", "E14"),
        ("qSearch:memory:1000;2;\x10\x11\x12", "0"),
    ]);
    let long = client.ask("qRcmd,6c6f6e67");
    let (text, last) = long.rsplit_once(' ').unwrap();
    let digits: String = text.split(' ').map(|packet| packet.strip_prefix('O').unwrap()).collect();
    let text: Vec<u8> = digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    assert_eq!(text, (0..100).flat_map(|line| format!("line {line}\n").into_bytes()).collect::<Vec<u8>>());
    assert_eq!(last, "OK");
    let stat = client.bytes(&toy::frame(b"vFile:fstat:3"));
    let stat = &toy::bodies(&stat)[0];
    assert_eq!((&stat[..4], stat.len()), (&b"F40;"[..], 68));
    assert_eq!(stat[4 + 28..4 + 36], 14u64.to_be_bytes());
}

#[test]
fn a_target_asks_for_files() {
    let mut client = Client::new(Toy::live());
    let arguments = [
        FileArgument::Text { address: 0x4010_0200, len: 0xa },
        FileArgument::Number(0),
        FileArgument::Number(0x1a4),
    ];
    let call = FileCall { name: "open", arguments: &arguments };
    let request = |client: &mut Client| {
        let mut bytes = Vec::new();
        let is_asked = client.engine.file_call(&call, &mut |reply| bytes.extend(reply));
        is_asked.then(|| String::from_utf8(toy::bodies(&bytes).concat()).unwrap())
    };
    assert_eq!(request(&mut client), None, "nothing runs");
    check(&mut client, &[("F3", "E22"), ("c", "")]);
    assert_eq!(request(&mut client).as_deref(), Some("Fopen,40100200/a,0,1a4"));
    assert_eq!(client.engine.status(), Status::Stopped);
    check(&mut client, &[("m1000,1", "00"), ("c", "E22"), ("F", "E22"), ("F3", "")]);
    assert_eq!(client.engine.status(), Status::Running);
    assert_eq!(request(&mut client).as_deref(), Some("Fopen,40100200/a,0,1a4"));
    check(&mut client, &[("F-1,4,C", "")]);
    assert!(client.target.is_interrupted);
    assert_eq!(client.target.log, "+1 file 3 0 file -1 4 ");
}

#[rustfmt::skip] // a table is read by column
#[test]
fn programs_and_boards() {
    let mut client = Client::new(Toy::live());
    check(&mut client, &[
        ("qXfer:libraries:read::0,ffb", "l<library-list/>"),
        ("qXfer:libraries:read:x:0,ffb", "E00"),
        ("qXfer:libraries-svr4:read::0,ffb", ""),
        ("qXfer:siginfo:read::0,ffb", "l\x05\0\0\0"),
        ("Hg2", "OK"),
        ("qXfer:siginfo:read::0,ffb", "E00"), // this one has got no signal
        ("vFlashErase:8000,200", "OK"),
        ("vFlashErase:8001,200", "E22"),
        ("vFlashErase:8000,0", "E22"),
        ("vFlashWrite:8000:a*}\x03", "OK"),
        ("vFlashWrite:8000:", "E22"),
        ("vFlashWrite:ffffffffffffffff:ab", "E22"),
        ("vFlashDone", "OK"),
        ("qIsAddressTagged:1000", "01"),
        ("qIsAddressTagged:2000", "00"),
        ("qMemTags:1008,10:1", "m0707"),
        ("qMemTags:1008,10:2", "E14"),
        ("QMemTags:1000,10:1:0c", "OK"),
        ("QMemTags:1000,10:1:", "E22"),
        ("QMemTags:1000,10:1:c", "E22"),
        ("qMemTags:1000,10:1", "m0c"),
        ("vFile:stat:2f", "F-1,2"),
        ("QCatchSyscalls:1;3;ff", "OK"),
        ("QCatchSyscalls:1;zz", "E22"),
        ("QCatchSyscalls:2", "E22"),
    ]);
    assert_eq!(client.target.caught, [3, 255]);
    assert_eq!(client.bytes(&toy::frame(b"vFile:stat:2f746f79")), client.bytes(&toy::frame(b"vFile:fstat:3")));
    let stopped = |client: &mut Client, reason| {
        client.ask("c");
        let stop = vmcore_gdb::Stop { thread: client.target.threads[0].0, reason };
        let mut reply = Vec::new();
        client.engine.stopped(stop, &mut client.target, &mut |bytes| reply.extend(bytes));
        String::from_utf8(toy::bodies(&reply).concat()).unwrap()
    };
    let at = "core:0;02:0010000000000000;04:02000000;";
    assert_eq!(stopped(&mut client, StopReason::SyscallEntry(255)), format!("T05thread:01;syscall_entry:ff;{at}"));
    assert_eq!(stopped(&mut client, StopReason::SyscallReturn(3)), format!("T05thread:01;syscall_return:3;{at}"));
    assert_eq!(stopped(&mut client, StopReason::Libraries), format!("T05thread:01;library:;{at}"));
    check(&mut client, &[("QCatchSyscalls:0", "OK")]);
    assert_eq!(client.target.caught, [0; 0]);
    check(&mut client, &[("QCatchSyscalls:1", "OK")]);
    client.engine.disconnect(&mut client.target);
    assert_eq!(client.target.caught, [0; 0], "nothing is left of a session");
    assert_eq!(client.target.log, "+1 erase 8000 200 erase 8001 200 flash 8000 [61, 2a, 23] done -1 ");
}

#[rustfmt::skip] // a table is read by column
#[test]
fn a_program_begins_anew() {
    let mut client = Client::new(Toy::live());
    check(&mut client, &[
        ("!", "OK"),
        ("s", ""),
        ("", "T05thread:01;core:0;02:0410000000000000;04:02000000;"),
        ("vRun;2f746f79;2d76", "T05thread:01;core:0;02:0010000000000000;04:02000000;"),
        ("vRun;zz", "E22"),
        ("vKill;1", "OK"),
        ("g", "E22"),
        ("vRun;", "T05thread:01;core:0;02:0010000000000000;04:02000000;"),
        ("k", ""),
        ("R00", ""),
        ("?", "T05thread:01;core:0;02:0010000000000000;04:02000000;"),
    ]);
    assert_eq!(client.target.log, "+1 run [\"/toy\", \"-v\"] kill Some(1) -1 run [\"\"] +1 kill None -1 run [\"\"] +1 ");
    // A client that does not ask for more has one target only.
    let mut client = Client::new(Toy::live());
    check(&mut client, &[("vKill;1", "OK")]);
    assert_eq!(client.engine.status(), Status::Closed);
    let mut client = Client::new(Toy::dump());
    check(&mut client, &[("!", "OK"), ("vRun;", ""), ("R00", ""), ("g", "220000000000000000180000000000000010000000000000xxxxxxxx")]);
}
