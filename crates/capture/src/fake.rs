//! A scripted QMP server in a thread, for tests.

use crate::address::Address;
use serde_json::Value;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;

/// What QEMU 7.2 says first.
pub(crate) const GREETING: &[u8] =
    b"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \
    \"package\": \"Debian 1:7.2\"}, \"capabilities\": [\"oob\"]}}\r\n";

/// A server that runs until its script ends; a failed assertion in it fails the test.
pub(crate) struct Server {
    pub(crate) address: Address,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

/// Starts a server that plays `script` with its first client.
pub(crate) fn server(script: impl FnOnce(Peer) + Send + 'static) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        script(Peer { stream });
    });
    Server { address: Address::Unix(path), thread: Some(thread), _dir: dir }
}

impl Drop for Server {
    fn drop(&mut self) {
        let result = self.thread.take().map(JoinHandle::join);
        if let (Some(Err(panic)), false) = (result, std::thread::panicking()) {
            std::panic::resume_unwind(panic);
        }
    }
}

/// The client, as the server sees it.
pub(crate) struct Peer {
    stream: UnixStream,
}

impl Peer {
    /// One more handle of the connection, for events from another thread.
    pub(crate) fn twin(&self) -> Self {
        Self { stream: self.stream.try_clone().unwrap() }
    }

    /// Says something; the client must take it.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Says something, and tells whether the client took it.
    pub(crate) fn try_say(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Greets and answers the negotiation.
    pub(crate) fn greet(&mut self) {
        self.say(GREETING);
        let request = self.request();
        assert_eq!(request["execute"], "qmp_capabilities");
        self.answer(&request, &serde_json::json!({}));
    }

    /// Answers a request.
    pub(crate) fn answer(&mut self, request: &Value, value: &Value) {
        self.say(format!("{{\"return\": {value}, \"id\": {}}}\r\n", request["id"]).as_bytes());
    }

    /// Refuses a request.
    pub(crate) fn refuse(&mut self, request: &Value, desc: &str) {
        let error = serde_json::json!({ "class": "GenericError", "desc": desc });
        self.say(format!("{{\"error\": {error}, \"id\": {}}}\r\n", request["id"]).as_bytes());
    }

    /// Reports an event, at so many milliseconds after second 100.
    pub(crate) fn event(&mut self, name: &str, millis: u64, data: &Value) {
        let micros = millis * 1000;
        let time = format!("{{\"seconds\": 100, \"microseconds\": {micros}}}");
        let event = format!("{{\"timestamp\": {time}, \"event\": \"{name}\", \"data\": {data}}}\r\n");
        self.try_say(event.as_bytes());
    }

    /// The next request.
    pub(crate) fn request(&mut self) -> Value {
        self.request_with_fd().0
    }

    /// The next request, or `None` if the client has gone.
    pub(crate) fn next_request(&mut self) -> Option<(Value, Option<OwnedFd>)> {
        let mut line = Vec::new();
        let mut passed = None;
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
            let flags = rustix::net::RecvFlags::empty();
            let mut data = [IoSliceMut::new(&mut byte)];
            let received = rustix::net::recvmsg(&self.stream, &mut data, &mut control, flags).ok()?;
            if received.bytes == 0 {
                return None;
            }
            for message in control.drain() {
                if let rustix::net::RecvAncillaryMessage::ScmRights(mut fds) = message {
                    passed = fds.next();
                }
            }
            line.push(byte[0]);
        }
        Some((serde_json::from_slice(&line).unwrap(), passed))
    }

    /// The next request and what was passed with it.
    pub(crate) fn request_with_fd(&mut self) -> (Value, Option<OwnedFd>) {
        self.next_request().unwrap()
    }

    /// All that the client says until it goes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        rest
    }

    /// Ends the connection, of which there may be other handles.
    pub(crate) fn close(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Waits until the client goes.
    pub(crate) fn wait(&mut self) {
        self.rest();
    }
}
