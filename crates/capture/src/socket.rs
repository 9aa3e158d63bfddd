//! The stream under a monitor: a UNIX or TCP socket with deadlines, and file descriptors passed along.

use crate::address::Address;
use crate::error::CaptureError;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the monitor may take to accept what we send.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// A connected stream.
#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    /// Connects.
    pub(crate) fn connect(address: &Address, timeout: Duration) -> Result<Self, CaptureError> {
        let name = address.to_string();
        let connect_error = |source: io::Error| CaptureError::Connect {
            address: name.clone(),
            advice: advice(&source),
            source,
        };
        let socket = match address {
            Address::Unix(path) => match connect_unix(path) {
                Ok(socket) => Self::Unix(socket),
                // The queue of waiting clients is full.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(CaptureError::Busy { address: name });
                }
                Err(error) => return Err(connect_error(error)),
            },
            Address::Tcp(address) => Self::Tcp(connect_tcp(address, timeout).map_err(connect_error)?),
        };
        let set_timeout = match &socket {
            Self::Unix(socket) => socket.set_write_timeout(Some(SEND_TIMEOUT)),
            Self::Tcp(socket) => {
                socket.set_nodelay(true).and_then(|()| socket.set_write_timeout(Some(SEND_TIMEOUT)))
            }
        };
        set_timeout.map_err(connect_error)?;
        Ok(socket)
    }

    /// The process that listened, on UNIX sockets.
    pub(crate) fn peer_pid(&self) -> Option<i32> {
        match self {
            Self::Unix(socket) => {
                let credentials = rustix::net::sockopt::socket_peercred(socket).ok()?;
                Some(credentials.pid.as_raw_pid())
            }
            Self::Tcp(_) => None,
        }
    }

    /// Sends all of `bytes`, the file descriptor with the first of them.
    pub(crate) fn send(&mut self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        match (self, fd) {
            (Self::Unix(socket), Some(fd)) => {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let fds = [fd];
                if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
                let data = [IoSlice::new(bytes)];
                let sent = rustix::net::sendmsg(&*socket, &data, &mut control, SendFlags::NOSIGNAL)?;
                socket.write_all(bytes.get(sent..).unwrap_or_default())
            }
            (Self::Unix(socket), None) => socket.write_all(bytes),
            (Self::Tcp(socket), None) => socket.write_all(bytes),
            (Self::Tcp(_), Some(_)) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Receives some bytes, 0 at the end of the stream, or `None` at the deadline.
    pub(crate) fn receive(&mut self, buf: &mut [u8], deadline: Instant) -> io::Result<Option<usize>> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let read = match self {
                Self::Unix(socket) => socket.set_read_timeout(Some(left)).and_then(|()| socket.read(buf)),
                Self::Tcp(socket) => socket.set_read_timeout(Some(left)).and_then(|()| socket.read(buf)),
            };
            match read {
                Ok(len) => return Ok(Some(len)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Connects without waiting: a blocking connect to a UNIX socket whose queue is full never returns.
fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => {}
        Err(Errno::AGAIN) => return Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => return Err(error.into()),
    }
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(false)?;
    Ok(socket)
}

fn connect_tcp(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "is it the path of QEMU's -qmp option? Start QEMU with -qmp unix:PATH,server=on,wait=off to have one"
        }
        io::ErrorKind::ConnectionRefused => {
            "nobody listens there any more: QEMU has ended, or the address is another one"
        }
        io::ErrorKind::PermissionDenied => "run vmcore as the user that QEMU runs as, or as root",
        _ => "check the address of QEMU's -qmp option",
    }
}
