//! How streams are cut, acknowledged and sent again: `spec/gdb-rsp.md`, sections 1.3, 8 and 12.

#[cfg(test)]
mod toy;

use toy::{Client, Toy, frame};
use vmcore_gdb::{Engine, Status, buffer_len};

/// The answer to `?`.
const WHY: &[u8] = b"T05thread:01;core:0;02:0010000000000000;04:02000000;";

#[test]
fn streams_and_what_comes_back() {
    let why = frame(WHY);
    let nack_why = [b"-+", &why[..]].concat();
    let ack_why = [b"+", &why[..]].concat();
    let error = frame(b"E22");
    let broken = [b"+", &error[..], b"+", &why[..]].concat();
    let two = [&ack_why[..], &ack_why[..]].concat();
    let rows: &[(&[u8], &[u8])] = &[
        (b"$g#00", b"-"),
        (b"$qC#B4", b"+$QC01#f5"),
        (b"$m0,$?#3f", &ack_why),
        (b"$?#zz$?#3f", &nack_why),
        (b"$p0*#ca$?#3f", &broken),
        (b"$?#3f$?#3f", &two),
        (b"+++x$?#3f", &ack_why),
        (b"%Stop:T05#00$?#3f", &ack_why),
        (b"$#00", b"+$#00"),
        (b"-", b""),
    ];
    for (input, expected) in rows {
        let mut client = Client::new(Toy::live());
        client.engine.pack_runs(false);
        let reply = client.bytes(input);
        assert_eq!(String::from_utf8_lossy(&reply), String::from_utf8_lossy(expected), "{input:?}");
    }
}

#[test]
fn a_reply_is_held_until_it_is_acknowledged() {
    let mut client = Client::new(Toy::live());
    let reply = client.bytes(&frame(b"m1000,4"));
    assert_eq!(reply, [b"+", &frame(b"00010203")[..]].concat());
    assert_eq!(client.bytes(b"-"), reply[1..]);
    assert_eq!(client.bytes(b"-"), reply[1..]);
    assert_eq!(client.bytes(b"+"), b"");
    assert_eq!(client.bytes(b"-"), b"");
    client.bytes(&frame(b"QStartNoAckMode"));
    assert_eq!(client.bytes(b"+"), b"");
    assert_eq!(client.bytes(&frame(b"m1000,4")), frame(b"00010203"), "no acknowledgement");
    assert_eq!(client.bytes(b"-"), b"", "nothing is sent again");
    assert_eq!(client.bytes(b"$m1000,4#00"), frame(b"00010203"), "checksums do not count any more");
}

#[test]
fn the_longest_packet_is_the_one_that_is_advertised() {
    let mut client = Client::with_packet_size(Toy::live(), 512);
    for (len, expected) in [(512, "OK"), (513, "E22"), (100_000, "E22")] {
        let bytes = (len - "X1000,1f4:".len()).max(1);
        let mut body = format!("X1000,{bytes:x}:").into_bytes();
        body.resize(len, b'a');
        assert_eq!(client.ask_bytes(&body), expected, "{len} bytes");
    }
    assert_eq!(client.ask("m1000,2000").len(), 512, "as many bytes as fit");
    client.engine = Engine::new(vec![0; buffer_len(512) + 1]);
    assert!(client.ask("qSupported").starts_with("PacketSize=200;"), "also of a buffer with an odd byte");
    assert_eq!(client.ask("x2000,2000").len(), 512);
}

#[test]
fn an_interrupt_is_never_lost() {
    let mut client = Client::new(Toy::live());
    // In a packet it is data; in front of one it stops the next run, also while a reply is not acknowledged.
    client.bytes(b"$?#3f\x03");
    assert_eq!(client.ask("c"), "T02thread:01;core:0;02:0010000000000000;04:02000000;");
    assert_eq!(client.engine.status(), Status::Stopped);
    assert_eq!(client.ask("c"), "");
    assert_eq!(client.engine.status(), Status::Running);
    // Neither an acknowledgement nor any other byte stops the machine.
    client.bytes(b"+x\0");
    assert!(!client.target.is_interrupted);
    assert_eq!(client.bytes(&frame(b"vCtrlC")), b"+$OK#9a");
    assert!(client.target.is_interrupted);
    assert_eq!(client.run(), "T02thread:01;core:0;02:a01f000000000000;04:02000000;");
    assert_eq!(client.run(), "", "one stop reply for each run");
}

#[test]
fn nothing_is_heard_after_the_end() {
    let mut client = Client::new(Toy::dump());
    let mut out = |_: &[u8]| {};
    let rest = client.engine.receive(b"$k#6b$?#3f", &mut client.target, &mut out);
    assert_eq!((rest, client.engine.status()), (&b"$?#3f"[..], Status::Closed));
    assert_eq!(client.engine.receive(rest, &mut client.target, &mut |_| panic!("an answer")), b"");
    client.engine.disconnect(&mut client.target);
    assert!(client.ask("?").starts_with("T05"));
}

/// What ends QEMU's stub, or makes it silent, or makes it read behind the packet.
#[rustfmt::skip] // a table is read by column
#[test]
fn faults_of_qemu_are_not_ours() {
    let rows: &[(&str, &str)] = &[
        ("D;9", "E22"),                            // F2
        ("vCont;c:p9.-1", "E22"),                  // F3
        ("pfffffff0", "E14"), ("p80000000", "E14"), ("p100000000", "E14"), ("pffffffff", "E14"), // F4
        ("p3", "E14"),                             // a hole
        ("P0=aa", "E22"), ("P0=112233445566778", "E22"), ("P0=11223344556677889", "E22"),
        ("P0=zz22334455667788", "E22"), ("P0:1122334455667788", "E22"), ("P0", "E22"), // F5
        ("G11223344", "E22"), ("G", "E22"),        // F6
        ("M1000,2:zzzz", "E22"), ("M1000,2:aabbcc", "E22"), ("M1000,2:aa", "E22"), ("M1000,0:", "E22"), // F7
        ("M2fff,2:aabb", "E14"),
        ("Mffffffffffffffff,2:aabb", "E14"),
        ("mffffffffffffffff,2", "E14"),
        ("m1000,0", ""),
        ("mzz,4", "E22"), ("m 0,4", "E22"), ("m+10,4", "E22"), ("m0x100,4", "E22"), ("m0zz,4", "E22"),
        ("m10000000000000000,4", "E22"), ("m1000", "E22"), ("m", "E22"),
        ("Hgp1", "OK"), ("Hgp1.", "E22"), ("Hg", "E22"), ("H", "E22"), ("Hx1", "E22"), // F10
        ("qThreadExtraInfo,9", "E22"), ("qThreadExtraInfo", "E22"), ("q", ""), ("Q", ""), ("v", ""), ("vCont", "E22"), // F11
        ("vCont;", "E22"), ("vCont;x", "E22"), ("vCont;C", "E22"), ("vCont;c:", "E22"), ("vCont;cx", "E22"), ("vContx", ""),
        ("gx", "E22"), ("?x", "E22"), ("Cz", "E22"), ("C", "E22"), ("cz", "E22"), ("czz;1", "E22"),
        ("bx", ""), ("b", ""),
        ("qXfer:features:read:t:0,100", "E00"), ("qXfer:features:read::0,100", "E00"), // F18
        ("qXfer:features:read:target.xml:10000,1", "E00"), ("qXfer:features:read:target.xml:0,0", "E22"),
        ("qXfer:nothing:read::0,1", ""), ("qXfer:features:read", "E22"),
        ("P99=00", "E14"), ("T-1", "E22"), ("T", "E22"), // F20
        ("vFile:open:", "E22"), ("qXfer:exec-file:read", "E22"), // F21
        ("F", "E22"), ("F0", "E22"), ("vKill", "E22"), ("vKill;9", "E22"), ("vAttach;", "E22"),
        ("qSearch:memory:1000;10;", "E22"), ("qCRC:ffffffffffffffff,2", "E14"),
        ("jThreadsInfox", ""), ("qSupportedX", ""), ("i", ""), ("A", ""), ("R", ""), ("vRun", "E22"), ("vRun;z", "E22"),
        ("vFlashWrite:0", "E22"), ("QCatchSyscalls", "E22"), ("qMemTags:0,1", "E22"),
    ];
    for (packet, expected) in rows {
        let mut client = Client::new(Toy::live());
        let before = client.target.clone();
        assert_eq!(client.ask(packet), *expected, "the answer to {packet}");
        assert_eq!(client.engine.status(), Status::Stopped, "after {packet}");
        assert_eq!((&client.target.ram, client.target.vector), (&before.ram, before.vector), "after {packet}");
        assert_eq!(client.target.threads, before.threads, "after {packet}");
        assert_eq!(client.ask("?").as_bytes(), WHY, "after {packet}");
    }
}

#[test]
fn runs_are_packed_where_they_pay() {
    let mut client = Client::new(Toy::live());
    let zeros = client.bytes(&frame(b"m2000,400"));
    assert!(zeros.len() < 80, "{} bytes", zeros.len());
    assert_eq!(toy::bodies(&zeros), [b"0".repeat(0x800)]);
    let counting = client.bytes(&frame(b"m1000,400"));
    assert_eq!(counting.len(), 0x800 + 5);
    client.engine.pack_runs(false);
    assert_eq!(client.bytes(&frame(b"m2000,400")).len(), 0x800 + 5);
    // The bytes themselves, with all that has to be escaped.
    let all = client.bytes(&frame(b"x1000,100"));
    assert_eq!(toy::bodies(&all), [[&b"b"[..], &client.target.ram[..0x100]].concat()]);
}
