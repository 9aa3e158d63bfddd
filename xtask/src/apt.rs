//! Debian packages that are unpacked into the cache and not installed: kernels, another QEMU.
//!
//! apt works on a folder of our own, with the URI and the keyring of the machine's own sources, so that other suites and
//! architectures do not touch the system.

use crate::run::{cache, output, retry};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Debian release of which the kernels, QEMU 7.2 and (as backports) QEMU 10.0 are.
pub(crate) const RELEASE: &str = "bookworm";

/// One suite and architecture, with its own lists in the cache.
pub(crate) struct Apt {
    folder: PathBuf,
    arch: String,
    suite: String,
}

impl Apt {
    pub(crate) fn new(suite: &str, arch: &str) -> Result<Self> {
        let folder = cache(&format!("apt/{suite}-{arch}"))?;
        Ok(Self { folder, arch: arch.to_owned(), suite: suite.to_owned() })
    }

    /// Fetches packages and unpacks them over each other into one folder of the cache, unless that is done already.
    pub(crate) fn unpacked(
        &self,
        name: &str,
        packages: impl FnOnce(&Self) -> Result<Vec<String>>,
    ) -> Result<PathBuf> {
        let done = cache("unpacked")?.join(name);
        if done.is_dir() {
            return Ok(done);
        }
        eprintln!("fetching {name} from {}", self.suite);
        retry(4, "reading the package lists", || self.update())?;
        let packages = packages(self)?;
        let partial = tempfile::Builder::new().prefix(".partial").tempdir_in(cache("unpacked")?)?;
        let debs = partial.path().join("debs");
        fs::create_dir(&debs)?;
        retry(4, &format!("fetching {}", packages.join(", ")), || {
            output(self.tool("apt-get").arg("download").args(&packages).current_dir(&debs))
        })?;
        let root = partial.path().join("root");
        for deb in fs::read_dir(&debs)? {
            output(Command::new("dpkg-deb").arg("--extract").arg(deb?.path()).arg(&root))?;
        }
        match fs::rename(&root, &done) {
            // Another run may have been faster.
            Err(_) if done.is_dir() => {}
            result => result.with_context(|| format!("cannot make {}", done.display()))?,
        }
        Ok(done)
    }

    /// The packages that `package` depends on, alternatives and version numbers left out.
    pub(crate) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let out = output(self.tool("apt-cache").args(["depends", package]))?;
        Ok(out.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned).collect())
    }

    /// The newest image behind a kernel's meta package.
    pub(crate) fn kernel_image(&self, meta: &str) -> Result<String> {
        let images = self.dependencies(meta)?;
        let image = images.into_iter().find(|name| name.starts_with("linux-image-"));
        image.with_context(|| format!("{meta} of {} depends on no kernel", self.suite))
    }

    /// The packages with a kernel and its drivers: since 7.0 the image has neither, but depends on both.
    pub(crate) fn kernel_packages(&self, image: &str) -> Result<Vec<String>> {
        let parts = ["linux-base-", "linux-binary-", "linux-modules-"];
        let mut packages = self.dependencies(image)?;
        packages.retain(|name| parts.iter().any(|part| name.starts_with(part)));
        packages.push(image.to_owned());
        Ok(packages)
    }

    /// Whether a package can be fetched: old versions go.
    pub(crate) fn has(&self, package: &str) -> bool {
        output(self.tool("apt-cache").args(["show", package])).is_ok()
    }

    fn update(&self) -> Result<()> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        fs::write(self.folder.join("status"), "")?;
        fs::write(self.folder.join("suite.sources"), machine_source()?.stanza(&self.suite))?;
        output(self.tool("apt-get").arg("update"))?;
        Ok(())
    }

    fn tool(&self, tool: &str) -> Command {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new(tool);
        command.arg("-qq");
        for (option, value) in [
            ("APT::Architecture", self.arch.clone()),
            ("APT::Architectures", self.arch.clone()),
            ("APT::Sandbox::User", "root".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Dir::State::lists", path("lists")),
            ("Dir::State::status", path("status")),
            ("Dir::Cache", path("cache")),
            ("Dir::Etc::sourcelist", path("suite.sources")),
            ("Dir::Etc::sourceparts", "-".to_owned()),
        ] {
            command.arg("-o").arg(format!("{option}={value}"));
        }
        command
    }
}

/// Where the machine itself takes its packages from.
struct Source {
    uri: String,
    keyring: Option<String>,
}

impl Source {
    fn stanza(&self, suite: &str) -> String {
        let keyring = self.keyring.as_ref().map(|path| format!("Signed-By: {path}\n")).unwrap_or_default();
        // Security fixes have an archive of their own, which is named after the first.
        let archive = if suite.ends_with("-security") { "-security" } else { "" };
        let uri = self.uri.trim_end_matches('/');
        format!("Types: deb\nURIs: {uri}{archive}\nSuites: {suite}\nComponents: main\n{keyring}")
    }
}

/// The source of the machine's own release: any later or earlier suite lies beside it.
fn machine_source() -> Result<Source> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(folder.flatten().map(|entry| entry.path()));
    }
    files.sort();
    for file in &files {
        let Ok(text) = fs::read_to_string(file) else { continue };
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => text.split("\n\n").find_map(of_stanza),
            Some("list") => text.lines().find_map(of_line),
            _ => None,
        };
        if let Some(source) = found {
            return Ok(source);
        }
    }
    bail!("no apt source of a Debian release in {}: the test guests are Debian's", display(&files))
}

fn display(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Whether a suite is a release and not its updates, security fixes or a third party's.
fn is_release(suite: &str) -> bool {
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = os.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    suite == RELEASE || codename == Some(suite)
}

/// Of a deb822 stanza, as in `debian.sources`.
fn of_stanza(stanza: &str) -> Option<Source> {
    let field = |name: &str| {
        let mut lines = stanza.lines().filter(|line| !line.starts_with('#'));
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    field("Suites")?.split_whitespace().find(|suite| is_release(suite))?;
    let uri = field("URIs")?.split_whitespace().next()?.to_owned();
    Some(Source {
        uri,
        keyring: field("Signed-By").filter(|path| Path::new(path).is_file()).map(str::to_owned),
    })
}

/// Of a line as in `sources.list`: `deb [signed-by=KEYRING] URI SUITE COMPONENT...`.
fn of_line(line: &str) -> Option<Source> {
    let line = line.trim().strip_prefix("deb ")?.trim_start();
    let (options, line) = match line.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", line),
    };
    let mut words = line.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    let keyring = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    is_release(suite).then(|| Source { uri: uri.to_owned(), keyring: keyring.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_found_in_both_forms() {
        let stanza =
            "Types: deb\n# URIs: http://old\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n";
        assert_eq!(of_stanza(stanza).unwrap().uri, "http://mirror/debian");
        assert!(of_stanza(&stanza.replace("bookworm ", "bookworm-security ")).is_none());
        let source = of_line("deb [arch=amd64 signed-by=/k.gpg] http://mirror/debian bookworm main").unwrap();
        assert_eq!(
            (source.uri.as_str(), source.keyring.as_deref()),
            ("http://mirror/debian", Some("/k.gpg"))
        );
        assert!(of_line("deb http://mirror/x nodistro main").is_none());
    }
}
