//! What no stream of bytes may do to the engine: the properties, and the fuzz target.

use super::{Client, Toy, bodies, frame};
use vmcore_gdb::{Status, buffer_len};

const PACKET_SIZE: usize = 512;

/// Sends `input` to a live machine and to a dump: as it is, and with each line as a packet. Whatever comes, each
/// frame of the answers is sound and no longer than was said, and the next packet is answered.
///
/// # Panics
/// If it is not so.
pub(crate) fn survive(input: &[u8]) {
    let packets: Vec<u8> = input.split(|byte| *byte == b'\n').flat_map(frame).collect();
    for target in [Toy::live(), Toy::dump(), Toy::new(true, &[1, 2, 2])] {
        for stream in [input, &packets[..]] {
            let mut client = Client::with_packet_size(target.clone(), PACKET_SIZE);
            send(&mut client, stream);
            is_alive(&mut client);
        }
    }
}

fn send(client: &mut Client, mut stream: &[u8]) {
    while !stream.is_empty() {
        if client.engine.status() == Status::Closed {
            client.engine.disconnect(&mut client.target);
        }
        let before = stream.len();
        let mut longest = 0;
        stream = client.engine.receive(stream, &mut client.target, &mut |bytes| {
            longest = longest.max(bytes.len());
            assert!(bodies(bytes).len() <= 1, "a reply is a frame");
        });
        assert!(stream.len() < before, "it goes on");
        assert!(longest <= buffer_len(PACKET_SIZE) - PACKET_SIZE, "{longest} bytes at once");
        client.run();
    }
}

fn is_alive(client: &mut Client) {
    if client.engine.status() == Status::Closed {
        client.engine.disconnect(&mut client.target);
    }
    // An interrupt that waits is answered, and stops what runs; the next packet begins anew whatever came before it.
    client.bytes(b"$?#3f\x03");
    client.run();
    for _ in 0..2 {
        let reply = client.ask("?");
        let is_answer = reply.starts_with('T') || reply == "E22";
        assert!(is_answer, "{reply:?} is no answer to why the target stands still");
    }
    client.engine.disconnect(&mut client.target);
    assert_eq!(client.target.breakpoints, [], "nothing is left of a session");
    assert!(client.ask("?").starts_with("T05thread:0"), "and the next one begins");
}
