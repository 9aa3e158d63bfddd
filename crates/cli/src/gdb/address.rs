//! Where clients connect.

use anyhow::Context;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fs, io};

/// Where a server waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Addresses of a name, all of which are tried.
    Tcp(Vec<SocketAddr>),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    /// `HOST:PORT`, `PORT` or `:PORT` on this machine, `unix:PATH`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        if let Ok(port) = text.trim_start_matches(':').parse() {
            return Ok(Self::Tcp(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)]));
        }
        let found = text
            .to_socket_addrs()
            .map_err(|error| format!("HOST:PORT, PORT or unix:PATH is expected: {error}"))?;
        Ok(Self::Tcp(found.collect()))
    }
}

/// A socket that clients connect to.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Address {
    /// Waits there from now on; tells what gdb has to be told, too.
    pub(super) fn bind(&self) -> anyhow::Result<(Listener, String)> {
        match self {
            Self::Tcp(addresses) => {
                let listener = TcpListener::bind(&addresses[..])
                    .with_context(|| format!("cannot listen on {}", list(addresses)))?;
                let name = listener.local_addr()?.to_string();
                Ok((Listener::Tcp(listener), name))
            }
            Self::Unix(path) => {
                let listener =
                    bind_unix(path).with_context(|| format!("cannot listen on {}", path.display()))?;
                Ok((Listener::Unix(listener), path.display().to_string()))
            }
        }
    }

    /// Whether others than this machine reach it.
    pub(super) fn is_public(&self) -> bool {
        matches!(self, Self::Tcp(addresses) if !addresses.iter().all(|address| address.ip().is_loopback()))
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Makes a socket that only this user reaches, in place of one that nobody listens to any more.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    // Permissions hold from the beginning: the protocol asks nobody who he is.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_of_this_machine_unless_said() {
        let local = |port| Address::Tcp(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)]);
        for (text, expected) in [
            ("127.0.0.1:1234", local(1234)),
            (":1234", local(1234)),
            ("0", local(0)),
            ("unix:/run/x:1", Address::Unix("/run/x:1".into())),
        ] {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
            assert!(!expected.is_public());
        }
        for public in ["0.0.0.0:1", "[::]:1"] {
            assert!(public.parse::<Address>().expect("an address").is_public(), "{public}");
        }
        for wrong in ["", "x", "70000", "127.0.0.1", "unix"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_socket_is_private_and_replaces_a_dead_one() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gdb.sock");
        drop(bind_unix(&path).expect("a socket"));
        let listener = bind_unix(&path).expect("in place of the dead one");
        assert_eq!(fs::metadata(&path).expect("a socket").permissions().mode() & 0o777, 0o600);
        assert!(bind_unix(&path).is_err(), "somebody listens there");
        drop(listener);
        let file = folder.path().join("file");
        fs::write(&file, "mine").expect("a file");
        assert!(bind_unix(&file).is_err(), "a file is nobody's to remove");
    }
}
