use super::*;
use crate::fake::{GREETING, server};
use proptest::prelude::*;

fn connect(address: &Address) -> Result<Qmp, CaptureError> {
    Qmp::connect_within(address, Duration::from_millis(300))
}

/// What the client makes of a server that says `said` at once and then closes.
fn error_of(said: &'static [u8]) -> CaptureError {
    let server = server(move |mut peer| peer.say(said));
    connect(&server.address).unwrap_err()
}

#[test]
fn events_between_a_command_and_its_reply_are_queued() {
    let server = server(|mut peer| {
        peer.greet();
        let request = peer.request();
        assert_eq!(request["execute"], "stop");
        assert!(request.get("arguments").is_none());
        peer.say(br#"{"timestamp": {"seconds": 5, "microseconds": 7}, "event": "STOP"}"#);
        peer.say(br#"{"return": {"of": "another"}, "id": 999}"#);
        let id = &request["id"];
        peer.say(format!("{{\n  \"id\": {id},\n  \"return\": {{\n  }}\n}}\n").as_bytes());
        peer.say(br#"{"timestamp": {"seconds": 5, "microseconds": 9}, "event": "RESUME", "data": {"a": 1}}"#);
        peer.wait();
    });
    let mut qmp = connect(&server.address).unwrap();
    assert_eq!(qmp.version(), "7.2.22 (Debian 1:7.2)");
    assert_eq!(qmp.peer_pid(), i32::try_from(std::process::id()).ok());
    assert_eq!(qmp.execute("stop", &Value::Null).unwrap(), serde_json::json!({}));
    let soon = || Instant::now() + Duration::from_secs(5);
    assert!(qmp.wait_for("RESUME", soon()).unwrap());
    assert!(qmp.wait_for("STOP", soon()).unwrap());
    let seen: Vec<_> = qmp.events().map(|event| (event.name.as_str(), event.time)).collect();
    assert_eq!(
        seen,
        [("STOP", Duration::from_micros(5_000_007)), ("RESUME", Duration::from_micros(5_000_009))]
    );
    assert!(!qmp.wait_for("NEVER", Instant::now() + Duration::from_millis(20)).unwrap());
}

#[test]
fn a_refusal_keeps_class_and_text() {
    let server = server(|mut peer| {
        peer.greet();
        let id = peer.request()["id"].clone();
        peer.say(
            format!(r#"{{"id": {id}, "error": {{"class": "GenericError", "desc": "no such fd"}}}}"#)
                .as_bytes(),
        );
        peer.request();
        peer.say(br#"{"error": {"class": "GenericError", "desc": "JSON parse error"}}"#);
        peer.wait();
    });
    let mut qmp = connect(&server.address).unwrap();
    let error = qmp.execute("closefd", &serde_json::json!({"fdname": "x"})).unwrap_err();
    assert!(matches!(&error, CaptureError::Refused { class, .. } if class == "GenericError"));
    assert_eq!(error.to_string(), "QEMU refuses `closefd`: no such fd");
    assert!(matches!(qmp.execute("x", &Value::Null), Err(CaptureError::Refused { .. })));
}

#[test]
fn a_file_descriptor_goes_along() {
    use std::io::{Read, Write};
    let server = server(|mut peer| {
        peer.greet();
        let (request, fd) = peer.request_with_fd();
        assert_eq!(request["arguments"]["fdname"], "name");
        std::fs::File::from(fd.unwrap()).write_all(b"hello").unwrap();
        peer.answer(&request, &serde_json::json!({}));
        peer.wait();
    });
    let mut qmp = connect(&server.address).unwrap();
    let (read, write) = std::io::pipe().unwrap();
    let arguments = serde_json::json!({"fdname": "name"});
    use std::os::fd::AsFd;
    qmp.execute_with_fd("getfd", &arguments, write.as_fd()).unwrap();
    drop(write);
    let mut text = String::new();
    { read }.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
}

#[test]
fn a_server_that_says_nothing_is_busy_and_gets_nothing() {
    let server = server(|mut peer| {
        // Nothing may come before the greeting: it would be carried out later.
        assert_eq!(peer.rest(), b"");
    });
    let error = connect(&server.address).unwrap_err();
    assert!(matches!(error, CaptureError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("libvirt"), "{error}");
}

#[test]
fn other_servers_are_named_by_what_they_say() {
    let check = |said, expected: &str| {
        let error = error_of(said).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(b"QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) ", "does not speak QMP");
    check(b"SSH-2.0-OpenSSH_9.2\r\n", "`SSH-2.0-OpenSSH_9.2`");
    check(b"+$T05#b9", "-gdb");
    check(b"{\"jsonrpc\": \"2.0\"}", "does not speak QMP");
    check(b"{]}", "does not speak QMP");
    check(b"", "closed the connection before it greeted");
    check(b"{\"QMP\": {", "closed the connection before it greeted");
}

#[test]
fn the_end_in_the_middle_of_a_reply_is_told() {
    for said in [&b""[..], b"{\"return\": {\"a\": ", b"{\"event\": \"SHUTDOWN\"}"] {
        let server = server(move |mut peer| {
            peer.greet();
            peer.request();
            peer.say(said);
        });
        let error = connect(&server.address).unwrap().execute("query-status", &Value::Null).unwrap_err();
        let expected = "closed the connection before it answered `query-status`";
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn an_endless_reply_is_refused() {
    let server = server(|mut peer| {
        peer.greet();
        peer.request();
        peer.say(b"{\"return\": \"");
        let piece = vec![b'a'; 1 << 20];
        while peer.try_say(&piece) {}
    });
    let error = connect(&server.address).unwrap().execute("query-status", &Value::Null).unwrap_err();
    assert!(matches!(error, CaptureError::TooLong { .. }), "{error}");
}

#[test]
fn addresses_where_nobody_listens_say_what_to_do() {
    let missing = Address::Unix("/nonexistent/qmp.sock".into());
    let error = connect(&missing).unwrap_err();
    assert!(error.to_string().contains("-qmp unix:PATH"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dead");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let error = connect(&Address::Unix(path)).unwrap_err();
    assert!(error.to_string().contains("QEMU has ended"), "{error}");
}

#[test]
fn a_full_queue_of_clients_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full");
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let error = connect(&Address::Unix(path)).unwrap_err();
    assert!(matches!(error, CaptureError::Busy { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_after_the_greeting_give_an_error_or_a_reply(bytes: Vec<u8>) {
        let server = server(move |mut peer| {
            peer.greet();
            peer.request();
            peer.try_say(&bytes);
        });
        let mut qmp = connect(&server.address).unwrap();
        let _ = qmp.execute("query-status", &Value::Null);
        let _ = GREETING;
    }
}
