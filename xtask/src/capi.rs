//! `cargo xtask install-capi`: libvmcore with its header and its pkg-config file; and `cargo xtask ci capi`, which uses it as others do.

use crate::e2e;
use crate::run::{any_output, built_with, find, output, printed, repository, run};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where to.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder below which programs look for it, as in /usr
    #[arg(long, default_value = "/usr/local")]
    prefix: PathBuf,
    /// Folder of libraries below it, as in lib/x86_64-linux-gnu
    #[arg(long, default_value = "lib")]
    libdir: PathBuf,
    /// Folder that stands for / meanwhile, for those that make packages
    #[arg(long)]
    destdir: Option<PathBuf>,
}

/// Below the checkout.
const HEADER: &str = "crates/capi/include/vmcore.h";
const PKG_CONFIG: &str = include_str!("capi/vmcore.pc.in");
const EXAMPLE: &str = "crates/capi/examples/emulator.c";
const GUIDE: &str = "docs/embedding-c.md";

/// `cargo xtask install-capi`.
pub(crate) fn install(args: &Args) -> Result<()> {
    ensure!(args.prefix.is_absolute(), "--prefix is not absolute: the pkg-config file names it");
    ensure!(args.libdir.is_relative(), "--libdir lies below --prefix");
    // The shared library is in the same folder as the archive.
    let archive = built_with("capi", &["--package", "vmcore-capi"], "libvmcore.a")?;
    let prefix = match &args.destdir {
        None => args.prefix.clone(),
        Some(destdir) => destdir.join(args.prefix.strip_prefix("/").context("--prefix is not absolute")?),
    };
    let (include, lib) = (prefix.join("include"), prefix.join(&args.libdir));
    let pkgconfig = lib.join("pkgconfig");
    for folder in [&include, &pkgconfig] {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }

    let version = env!("CARGO_PKG_VERSION");
    let file = format!("libvmcore.so.{version}");
    let soname =
        concat!("libvmcore.so.", env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));
    let text =
        [("@PREFIX@", args.prefix.display().to_string()), ("@LIBDIR@", args.libdir.display().to_string())]
            .into_iter()
            .chain([("@VERSION@", version.to_owned())])
            .fold(PKG_CONFIG.to_owned(), |text, (what, value)| text.replace(what, &value));
    copy(&repository().join(HEADER), &include.join("vmcore.h"))?;
    copy(&archive, &lib.join("libvmcore.a"))?;
    copy(&archive.with_extension("so"), &lib.join(&file))?;
    for name in [soname, "libvmcore.so"] {
        let link = lib.join(name);
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).with_context(|| format!("replacing {}", link.display()))?;
        }
        symlink(&file, &link).with_context(|| format!("making {}", link.display()))?;
    }
    let path = pkgconfig.join("vmcore.pc");
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// The step of continuous integration: the example is built as its readers will build it, and dumps itself.
pub(crate) fn check() -> Result<()> {
    guide_is_the_example()?;
    let folder = tempfile::tempdir()?;
    let prefix = folder.path().join("prefix");
    install(&Args { prefix: prefix.clone(), libdir: "lib".into(), destdir: None })?;
    let flags = |more: &[&str]| {
        let mut command = Command::new("pkg-config");
        command.args(["--cflags", "--libs"]).args(more).arg("vmcore");
        let text = output(command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")))?;
        anyhow::Ok(text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-g"];

    let cpp = folder.path().join("user.cpp");
    fs::write(&cpp, "#include <vmcore.h>\nint main() { return vmcore_version() == nullptr; }\n")?;
    run(Command::new("g++").args(["-std=c++17", "-fsyntax-only"]).args(STRICT).arg(&cpp).args(flags(&[])?))?;

    // The archive, under gcc's sanitizers: what the example does with memory.
    let program = folder.path().join("emulator-static");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]).args(STRICT);
    gcc.arg("-o").arg(&program).arg(repository().join(EXAMPLE));
    let archive = prefix.join("lib/libvmcore.a").display().to_string();
    gcc.args(
        flags(&["--static"])?.into_iter().map(|flag| if flag == "-lvmcore" { archive.clone() } else { flag }),
    );
    run(&mut gcc)?;
    dumps(&mut Command::new(&program), &folder.path().join("static"))?;

    // The shared library, under valgrind: what the library does with memory.
    let program = folder.path().join("emulator-shared");
    let mut gcc = Command::new("gcc");
    gcc.arg("-std=c11")
        .args(STRICT)
        .arg("-o")
        .arg(&program)
        .arg(repository().join(EXAMPLE))
        .args(flags(&[])?);
    run(&mut gcc)?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args([
        "--quiet",
        "--error-exitcode=1",
        "--leak-check=full",
        "--show-leak-kinds=definite,indirect",
        "--errors-for-leak-kinds=definite,indirect",
    ]);
    valgrind.arg(&program).env("LD_LIBRARY_PATH", prefix.join("lib"));
    dumps(&mut valgrind, &folder.path().join("shared"))
}

/// Lets the example dump itself into a folder, and looks at its dumps with the tools of others.
fn dumps(emulator: &mut Command, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let said = output(emulator.arg(folder))?;
    for line in [
        r#"{"return": {}}"#,
        r#"{"error": {"class": "GenericError", "desc": "Could not create '/': Is a directory"}}"#,
    ] {
        ensure!(said.lines().any(|found| found == line), "the example does not say {line}:\n{said}");
    }
    ensure!(
        said.matches(r#"DUMP_COMPLETED {"result":{"status":"completed""#).count() == 2,
        "no two dumps:\n{said}"
    );
    let (elf, kdump, converted) =
        (folder.join("guest.vmcore"), folder.join("guest.kdump"), folder.join("converted.vmcore"));
    run(Command::new(e2e::build()?).arg("convert").arg(kdump).arg("-o").arg(&converted))?;
    for core in [elf, converted] {
        opens(&core)?;
    }
    Ok(())
}

/// What the example's guest is made of, in readelf and gdb.
fn opens(core: &Path) -> Result<()> {
    let out = any_output(Command::new("readelf").args(["--all", "--wide"]).arg(core))?;
    ensure!(out.status.success() && out.stderr.is_empty(), "readelf finds fault:\n{}", printed(&out));
    let Some(gdb) = find("gdb-multiarch") else { bail!("gdb-multiarch is missing") };
    let mut gdb = Command::new(gdb);
    gdb.args(["-nx", "-batch", "-ex"]).arg(format!("core-file {}", core.display()));
    for command in
        ["thread 2", "p/x $rip", "p/x $rsp", "p $xmm0.v16_int8[15]", "x/s 0x200000", "x/2xb 0xefff"]
    {
        gdb.args(["-ex", command]);
    }
    let said = output(&mut gdb)?;
    let lines =
        ["$1 = 0x100001", "$2 = 0x107000", "$3 = 17", "0x200000:\t\"a guest of C\"", "0xefff:\t0xf4\t0x00"];
    for line in lines {
        ensure!(
            said.lines().any(|found| found == line),
            "gdb does not say {line} of {}:\n{said}",
            core.display()
        );
    }
    Ok(())
}

/// Each block of C in the guide is a part of the example, word for word.
fn guide_is_the_example() -> Result<()> {
    let (guide, example) =
        (fs::read_to_string(repository().join(GUIDE))?, fs::read_to_string(repository().join(EXAMPLE))?);
    let blocks: Vec<&str> =
        guide.split("```c\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    ensure!(!blocks.is_empty(), "{GUIDE} has no C");
    match blocks.iter().find(|block| !example.contains(**block)) {
        Some(block) => bail!("{GUIDE} has code that {EXAMPLE} has not:\n{block}"),
        None => Ok(()),
    }
}
