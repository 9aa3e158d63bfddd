//! Where clients connect.

use anyhow::Context;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, fs, io};

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
        match text.strip_prefix("unix:") {
            // The kernel would choose a name, which has no permissions.
            Some("") => return Err("a path is expected behind unix:".to_owned()),
            Some(path) => return Ok(Self::Unix(path.into())),
            None => {}
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
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Where a server waits, as gdb has to be told. A socket's file goes when this is dropped.
pub(crate) struct Place {
    name: String,
    file: Option<SocketFile>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Another server may have taken the place of one that has stopped to listen.
        if let Some(file) = &self.file
            && SocketFile::at(&file.path).is_ok_and(|now| now == *file)
        {
            fs::remove_file(&file.path).ok();
        }
    }
}

/// The file of a socket.
#[derive(PartialEq, Eq)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: file.dev(), inode: file.ino() })
    }
}

impl Address {
    /// Waits there from now on.
    pub(crate) fn bind(&self) -> anyhow::Result<(Listener, Place)> {
        match self {
            Self::Tcp(addresses) => {
                let listener = TcpListener::bind(&addresses[..])
                    .with_context(|| format!("cannot listen on {}", list(addresses)))?;
                let name = listener.local_addr()?.to_string();
                Ok((Listener::Tcp(listener), Place { name, file: None }))
            }
            Self::Unix(path) => {
                let listener =
                    bind_unix(path).with_context(|| format!("cannot listen on {}", path.display()))?;
                let file = SocketFile::at(path).ok();
                Ok((Listener::Unix(listener), Place { name: path.display().to_string(), file }))
            }
        }
    }

    /// Whether others than this machine reach it.
    pub(crate) fn is_public(&self) -> bool {
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
        for wrong in ["", "x", "70000", "127.0.0.1", "unix", "unix:"] {
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
