//! What is true of every stream of bytes.

#[cfg(test)]
mod toy;

use proptest::collection::vec;
use proptest::prelude::*;
use toy::{Client, Toy, frame};
use vmcore_gdb::Status;

/// Packets that clients send, and some that they had better not.
const PACKETS: &[&str] = &[
    "?",
    "g",
    "G0011",
    "p0",
    "p5",
    "P0=0011223344556677",
    "m1000,40",
    "m1ff0,8000",
    "mffffffffffffffff,9",
    "M1000,2:abcd",
    "x1000,100",
    "X1000,3:ab}\x03",
    "X1000,0:",
    "c",
    "s",
    "C05",
    "vCont?",
    "vCont;c",
    "vCont;s:1;c",
    "vCont;r1000,2000:1",
    "bs",
    "bc",
    "vCtrlC",
    "Z0,1010,4",
    "z0,1010,4",
    "Z2,1800,8",
    "z2,1800,8",
    "Hg0",
    "Hgp1.2",
    "Hc-1",
    "T1",
    "qC",
    "qfThreadInfo",
    "qsThreadInfo",
    "qThreadExtraInfo,1",
    "qSupported:multiprocess+;swbreak+;error-message+",
    "qXfer:features:read:target.xml:0,ffb",
    "qXfer:threads:read::5,10",
    "qXfer:memory-map:read::0,ffb",
    "qRcmd,6c6f6e67",
    "qRcmd,77686f",
    "QStartNoAckMode",
    "D;1",
    "D;2",
    "!",
    "vRun;2f746f79;61",
    "R00",
    "QCatchSyscalls:1;3",
    "vFlashErase:8000,100",
    "vFlashWrite:8000:ab*}\x03",
    "vFlashDone",
    "qMemTags:1000,20:1",
    "QMemTags:1000,20:1:07",
    "qXfer:libraries:read::0,ffb",
    "vFile:stat:2f746f79",
    "vAttach;1",
    "vAttach;2",
    "k",
    "vKill;1",
    "F3",
    "F-1,4,C",
    "jThreadsInfo",
    "qThreadStopInfo1",
    "QThreadSuffixSupported",
    "QListThreadsInStopReply",
    "QEnableErrorStrings",
    "g;thread:1;",
    "qHostInfo",
    "qProcessInfo",
    "qRegisterInfo0",
    "qMemoryRegionInfo:1000",
    "qCRC:1000,100",
    "qSearch:memory:1000;1000;abc",
    "Qqemu.sstep=1",
    "Qqemu.PhyMemMode:1",
    "vFile:open:2f746f79,0,0",
    "vFile:pread:3,100,0",
    "vFile:fstat:3",
    "vMustReplyEmpty",
    "p0* ",
    "m0,4}\x00j",
];

fn packet() -> impl Strategy<Value = Vec<u8>> {
    proptest::sample::select(PACKETS).prop_map(|body| frame(body.as_bytes()))
}

/// Something that may come in a stream: mostly packets, some damaged, and what stands between them.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => packet(),
        2 => (packet(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut packet, at, byte)| {
            let at = at.index(packet.len());
            packet[at] = byte;
            packet
        }),
        1 => (packet(), any::<prop::sample::Index>()).prop_map(|(packet, at)| packet[..at.index(packet.len())].to_vec()),
        2 => proptest::sample::select(vec![&b"+"[..], b"-", b"\x03", b"%Stop:T05#00"]).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..20),
    ]
}

/// All that comes back. The machine runs when it is let go, and when it is interrupted.
fn replies(target: &Toy, stream: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut client = Client::with_packet_size(target.clone(), 512);
    let mut rest = stream;
    for size in sizes.iter().chain([&stream.len()]) {
        let (mut now, behind) = rest.split_at((*size).min(rest.len()));
        while !now.is_empty() && client.engine.status() != Status::Closed {
            let was_running = client.engine.status() == Status::Running;
            now =
                client.engine.receive(now, &mut client.target, &mut |bytes| client.sent.push(bytes.to_vec()));
            if client.engine.status() == Status::Running && !was_running || client.target.is_interrupted {
                client.run();
            }
        }
        rest = behind;
    }
    client.sent.concat()
}

proptest! {
    #[test]
    fn any_stream_leaves_the_engine_alive(pieces in vec(piece(), 0..30)) {
        toy::hostile::survive(&pieces.concat());
    }

    #[test]
    fn any_bodies_leave_the_engine_alive(lines in vec((proptest::sample::select(PACKETS), vec(any::<u8>(), 0..6)), 0..20)) {
        let bodies: Vec<Vec<u8>> = lines.iter().map(|(body, more)| [body.as_bytes(), more].concat()).collect();
        toy::hostile::survive(&bodies.join(&b'\n'));
    }

    #[test]
    fn any_pieces_of_a_stream_give_the_same_replies(pieces in vec(piece(), 0..20), sizes in vec(0..40usize, 0..60)) {
        let stream = pieces.concat();
        for target in [Toy::live(), Toy::dump()] {
            prop_assert_eq!(replies(&target, &stream, &[]), replies(&target, &stream, &sizes));
        }
    }

    #[test]
    fn a_document_is_read_in_any_pieces(len in 1..5000u64, packet_size in 512..5000usize) {
        let mut client = Client::with_packet_size(Toy::live(), packet_size);
        let mut document = String::new();
        loop {
            let piece = client.ask(&format!("qXfer:threads:read::{:x},{len:x}", document.len()));
            document += &piece[1..];
            match &piece[..1] {
                "m" => prop_assert!(piece.len() > 1 && piece.len() as u64 <= len + 1),
                last => {
                    prop_assert_eq!(last, "l");
                    break;
                }
            }
        }
        prop_assert!(document.ends_with("</threads>\n"));
        prop_assert_eq!(document.matches("<thread ").count(), 2);
    }
}

/// A document of characters that all have to be escaped, of lengths around what fits in a packet.
#[test]
fn escaped_documents_are_read_whole() {
    for len in [1, 2044, 2045, 2046, 2047, 2048, 4090] {
        let target = Toy { document: "}".repeat(len), ..Toy::dump() };
        let mut client = Client::with_packet_size(target, 0x1000);
        let mut document = String::new();
        loop {
            let before = client.sent.len();
            let piece = client.ask(&format!("qXfer:features:read:target.xml:{:x},ffb", document.len()));
            assert!(client.sent[before..].concat().len() <= 0x1000 + 5);
            document += &piece[1..];
            if piece.starts_with('l') {
                break;
            }
            assert_eq!(document.len() % 2047, 0, "as much as fits");
        }
        assert_eq!(document, "}".repeat(len));
    }
}
