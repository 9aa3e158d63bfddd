//! Where a monitor listens.

use crate::error::CaptureError;
use std::fmt;
use std::path::PathBuf;

/// Where a monitor listens: what stands behind `qemu:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A UNIX socket.
    Unix(PathBuf),
    /// A host and a port, as in `localhost:4444` or `[::1]:4444`.
    Tcp(String),
}

impl Address {
    /// Parses `PATH` or `HOST:PORT`; also with QEMU's own `unix:` or `tcp:` before it.
    ///
    /// Whatever has a slash in it, or no port at its end, is a path.
    ///
    /// # Errors
    /// [`CaptureError::Address`] if it is empty or has no host.
    pub fn parse(address: &str) -> Result<Self, CaptureError> {
        let invalid = || CaptureError::Address { address: address.to_owned() };
        let (is_unix, is_tcp) = (address.starts_with("unix:"), address.starts_with("tcp:"));
        let rest = address.strip_prefix("unix:").or(address.strip_prefix("tcp:")).unwrap_or(address);
        // QEMU's options may follow, as in `/run/qmp.sock,server=on`.
        let rest = if is_unix || is_tcp { rest.split(',').next().unwrap_or(rest) } else { rest };
        if rest.is_empty() {
            return Err(invalid());
        }
        let port = rest.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
        match port {
            _ if is_unix || rest.contains('/') && !is_tcp => Ok(Self::Unix(rest.into())),
            Some((host, _)) if !host.is_empty() => Ok(Self::Tcp(rest.to_owned())),
            Some((_, port)) => Ok(Self::Tcp(format!("localhost:{port}"))),
            None if is_tcp => Err(invalid()),
            None => Ok(Self::Unix(rest.into())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_and_ports() {
        let unix = |text: &str| Ok::<_, ()>(Address::Unix(text.into()));
        let tcp = |text: &str| Ok::<_, ()>(Address::Tcp(text.into()));
        let check = |text: &str, expected: Result<Address, ()>| {
            assert_eq!(Address::parse(text).map_err(drop), expected, "{text}");
        };
        check("/run/qmp.sock", unix("/run/qmp.sock"));
        check("qmp.sock", unix("qmp.sock"));
        check("./a:1", unix("./a:1"));
        check("unix:/run/qmp.sock,server=on,wait=off", unix("/run/qmp.sock"));
        check("localhost:4444", tcp("localhost:4444"));
        check("[::1]:4444", tcp("[::1]:4444"));
        check(":4444", tcp("localhost:4444"));
        check("tcp:vm-host:4444,server", tcp("vm-host:4444"));
        check("a:99999", unix("a:99999"));
        check("tcp:vm-host", Err(()));
        check("", Err(()));
        check("unix:", Err(()));
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_an_error(text: String) {
            let _ = Address::parse(&text);
        }
    }
}
