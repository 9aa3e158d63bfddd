//! Servers that are not what `vmcore capture` expects.

use super::vmcore::fails_with;
use super::{Context, Verdict, files_in};
use crate::run::any_output;
use anyhow::{Context as _, Result, ensure};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}"#;
/// The longest that the command may take with a server that says nothing.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn not_qmp(context: &mut Context) -> Result<Verdict> {
    for says in [
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        "220 mail.example ESMTP\r\n",
        "{\"hello\": \"world\"}\r\n",
        "[1, 2, 3]\r\n",
        "\u{0}\u{1}\u{2}\u{3}",
        "",
    ] {
        check(context, says, false).with_context(|| format!("a server that says {says:?}"))?;
    }
    // Nobody there at all.
    let uri = format!("qemu:{}", context.path("nobody.sock").display());
    let out = any_output(&mut context.vmcore.capture_command(&uri, &context.path("out/guest.vmcore"), &[]))?;
    fails_with(&out, &["nobody.sock"])?;
    Ok(Verdict::Passed)
}

pub(crate) fn closes(context: &mut Context) -> Result<Verdict> {
    let half_greeting = &GREETING[..GREETING.len() / 2];
    let greeting = format!("{GREETING}\r\n");
    let half_reply = format!("{GREETING}\r\n{{\"return\": {{");
    let bad_reply = format!(
        "{GREETING}\r\n{{\"error\": {{\"class\": \"CommandNotFound\", \"desc\": \"no\"}}, \"id\": 1}}\r\n"
    );
    for says in ["", half_greeting, &greeting, &half_reply, &bad_reply] {
        check(context, says, true).with_context(|| format!("a server that closes after {says:?}"))?;
    }
    Ok(Verdict::Passed)
}

/// A server that says something, and then closes or listens for ever.
fn check(context: &mut Context, says: &str, closes: bool) -> Result<()> {
    let socket = context.path("fake.sock");
    let folder = context.path("out");
    // Both may be left from the row before.
    let _ = std::fs::remove_file(&socket);
    let _ = std::fs::create_dir(&folder);
    let listener = UnixListener::bind(&socket)?;
    let text = says.to_owned();
    let server = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        // The client may be gone before it has read everything.
        let _ = stream.write_all(text.as_bytes());
        if !closes {
            let _ = stream.read_to_end(&mut Vec::new());
        }
        Ok(())
    });
    let uri = format!("qemu:{}", socket.display());
    let start = Instant::now();
    let out = any_output(&mut context.vmcore.capture_command(&uri, &folder.join("guest.vmcore"), &[]))?;
    let took = start.elapsed();
    server.join().ok().context("the fake server panicked")??;
    fails_with(&out, &["fake.sock"])?;
    ensure!(took < PATIENCE, "it took {took:?}");
    ensure!(files_in(&folder)?.is_empty(), "it left {:?} behind", files_in(&folder)?);
    Ok(())
}
