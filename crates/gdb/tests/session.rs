//! What a session says, packet by packet.

#[cfg(test)]
mod toy;

use toy::{Client, Toy};

/// Each packet of the rows gets the answer beside it. A row without packet lets the machine run.
fn check(client: &mut Client, rows: &[(&str, &str)]) {
    for (packet, expected) in rows {
        let reply = if packet.is_empty() { client.run() } else { client.ask(packet) };
        assert_eq!(reply, *expected, "the answer to {packet}");
    }
}

#[rustfmt::skip] // a table is read by column
#[test]
fn gdb_looks_at_a_dump() {
    let mut client = Client::new(Toy::dump());
    assert_eq!(client.bytes(b"+"), b"");
    check(&mut client, &[
        ("qSupported:multiprocess+;swbreak+;hwbreak+;qRelocInsn+;vContSupported+;xmlRegisters=i386",
            "PacketSize=1000;QStartNoAckMode+;qXfer:features:read+;qXfer:threads:read+;vContSupported+;multiprocess+;\
             binary-upload+;error-message+"),
        ("vMustReplyEmpty", ""),
        ("QStartNoAckMode", "OK"),
        ("!", "OK"),
        ("Hgp0.0", "OK"),
        ("qXfer:features:read:target.xml:0,ffb", &format!("l{}", toy::TARGET_XML)),
        ("qTStatus", ""),
        ("?", "T05thread:p01.02;core:1;02:0010000000000000;"),
        ("qfThreadInfo", "mp01.01,p01.02"),
        ("qsThreadInfo", "l"),
        ("qAttached:1", "1"),
        ("Hc-1", "OK"),
        ("qOffsets", ""),
        ("g", "110000000000000000180000000000000010000000000000xxxxxxxx"),
        ("qSymbol::", "OK"),
        ("m1000,4", "00010203"),
        ("vCont?", "vCont;c;C;s;S"),
        ("vCont;c:p1.-1", "E01"),
        ("c", "E01"),
        ("P0=1122334455667788", "E01"),
        ("M1000,1:00", "E01"),
        ("X1000,0:", "OK"),
        ("Z0,1000,4", ""),
        ("bs", "E22"),
        ("D;1", "OK"),
    ]);
}
