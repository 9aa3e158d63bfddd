//! A monitor that is cut off: everything goes through to QEMU, descriptors too, until QEMU has said so many bytes.

use anyhow::{Context, Result};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;

/// Serves one client. After `bytes` from QEMU both ends are closed. The thread's value is how many bytes QEMU said.
pub(crate) fn cut_after(bytes: usize, socket: &Path, qemu: &Path) -> Result<JoinHandle<Result<usize>>> {
    let listener =
        UnixListener::bind(socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
    let qemu = qemu.to_owned();
    Ok(std::thread::spawn(move || {
        let (mut client, _) = listener.accept()?;
        let mut monitor = UnixStream::connect(qemu)?;
        let (from, to) = (client.try_clone()?, monitor.try_clone()?);
        let upward = std::thread::spawn(move || forward_requests(&from, &to));
        let mut said = 0;
        let mut chunk = [0; 4096];
        while said < bytes {
            let want = chunk.len().min(bytes - said);
            let len = match monitor.read(&mut chunk[..want]) {
                Ok(0) | Err(_) => break,
                Ok(len) => len,
            };
            said += len;
            if client.write_all(&chunk[..len]).is_err() {
                break;
            }
        }
        // Either may be closed already.
        let _ = client.shutdown(Shutdown::Both);
        let _ = monitor.shutdown(Shutdown::Both);
        upward.join().ok().context("the proxy panicked")?;
        Ok(said)
    }))
}

fn forward_requests(from: &UnixStream, to: &UnixStream) {
    let mut chunk = [0; 4096];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(from, &mut [IoSliceMut::new(&mut chunk)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        let len = match received {
            Ok(message) if message.bytes > 0 => message.bytes,
            _ => break,
        };
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&borrowed));
        }
        if sendmsg(to, &[IoSlice::new(&chunk[..len])], &mut control, SendFlags::NOSIGNAL).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
