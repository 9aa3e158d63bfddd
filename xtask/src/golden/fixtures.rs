//! The files of `tests/fixtures`: each recipe is assembled, run, dumped and asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, GzBuilder, read::GzDecoder};
use serde_json::json;

use super::qemu::{Guest, Version, identify};
use super::{Dump, Recipe, Texts};
use crate::run;

/// Written by people, but for the table between these two lines.
const README: &str = "README.md";
const TABLE_BEGIN: &str = "<!-- The table is made by `cargo xtask golden`. -->\n";
const TABLE_END: &str = "<!-- End of the table. -->";
/// The tools that made the files: name, tab, first line of `--version`.
const VERSIONS: &str = "versions.tsv";
const BINUTILS: [&str; 3] = ["as", "ld", "objcopy"];
/// The programs of which symbols and debug information are kept, too.
const LINKED: [&str; 1] = ["calls"];

/// What came of it.
pub(super) struct Outcome {
    /// Files that are not what they were, though the tools are.
    pub(super) differences: usize,
    /// Recipes whose QEMU is missing.
    pub(super) skipped: usize,
}

/// Makes all fixtures; with `check` it only compares them.
pub(super) fn golden(repo: &Path, recipes: &[Recipe], check: bool) -> Result<Outcome> {
    let mut folder = Folder::open(repo.join("tests/fixtures"), check)?;
    let mut tools = Tools::new();
    for tool in BINUTILS {
        let line = identify(Path::new(tool)).context("binutils are needed: apt-get install binutils")?;
        tools.insert(tool.to_owned(), line);
    }
    let mut qemus = BTreeMap::new();
    let mut skipped = 0;
    for version in Version::ALL {
        match version.folder() {
            Ok(bin) => {
                tools.insert(version.tool(), identify(&bin.join(super::X86_64))?);
                qemus.insert(version, bin);
            }
            Err(error) if check => {
                println!("skipped, all *-{}*: {error:#}", version.label());
                skipped += recipes.len();
                folder.keep(|name| name.contains(&format!("-{}", version.label())));
            }
            Err(error) => return Err(error),
        }
    }
    let other_tools =
        if check { other_tools(&tools, &parse_tools(&folder.text(VERSIONS)?)) } else { BTreeSet::new() };

    let temporary = tempfile::tempdir()?;
    let mut table = String::from("| file | guest | how | bytes unpacked |\n|---|---|---|---|\n");
    for recipe in recipes {
        let program = Program::assemble(repo, recipe.guest, temporary.path())?;
        if LINKED.contains(&recipe.guest) {
            folder.forgive = other_tools.iter().any(|tool| BINUTILS.contains(&&**tool));
            folder.put(&format!("{}.vmlinux.gz", recipe.guest), &fs::read(&program.vmlinux)?)?;
        }
        let mut first = None;
        for (&version, bin) in &qemus {
            folder.forgive =
                other_tools.iter().any(|tool| *tool == version.tool() || BINUTILS.contains(&&**tool));
            let made = make(recipe, &program, bin, temporary.path())
                .with_context(|| format!("making {} with QEMU {}", recipe.name, version.number()))?;
            for (index, file) in made.iter().enumerate() {
                let same = first.as_ref().map(|made: &Vec<Made<'_>>| &*made[index].content);
                let Some(name) = folder.put_variant(recipe, version, file, same)? else { continue };
                if let Some(dump) = file.dump {
                    let (guest, how) = (recipe.guest, how(recipe, dump));
                    writeln!(table, "| {name} | {guest} | {how} | {} |", file.content.len())?;
                }
            }
            if version == Version::ALL[0] {
                first = Some(made);
            }
        }
    }

    folder.forgive = !other_tools.is_empty();
    if skipped == 0 {
        let readme = folder.text(README)?;
        let parts = readme
            .split_once(TABLE_BEGIN)
            .and_then(|(head, rest)| Some((head, rest.split_once(TABLE_END)?.1)));
        let (head, tail) = parts.context("README.md has lost the two lines around its table")?;
        folder.put(README, format!("{head}{TABLE_BEGIN}\n{table}\n{TABLE_END}{tail}").as_bytes())?;
    }
    if check {
        folder.keep(|name| name == README || name == VERSIONS);
    } else {
        let lines: String = tools.iter().map(|(tool, line)| format!("{tool}\t{line}\n")).collect();
        folder.put(VERSIONS, lines.as_bytes())?;
    }
    folder.forgive = false;
    folder.settle_orphans()?;
    Ok(Outcome { differences: folder.differences, skipped })
}

/// Name of a tool and the first line of its `--version`.
type Tools = BTreeMap<String, String>;

fn parse_tools(text: &str) -> Tools {
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(tool, line)| (tool.into(), line.into()))
        .collect()
}

/// Tools that are not those which made the fixtures; each is named.
fn other_tools(here: &Tools, then: &Tools) -> BTreeSet<String> {
    let mut others = BTreeSet::new();
    for (tool, line) in here {
        let made_with = then.get(tool).map_or("nothing that is recorded", String::as_str);
        if made_with != line {
            println!("{tool}: here is {line}; the fixtures were made with {made_with}");
            others.insert(tool.clone());
        }
    }
    others
}

/// The command line that matters, and the arguments of the dump.
fn how(recipe: &Recipe, dump: &Dump) -> String {
    let Recipe { binary, machine, cpu, more, .. } = recipe;
    let mut how = format!("`{binary} -machine {machine} -cpu {cpu} {more}`");
    if dump.paging {
        how += ", paging";
    }
    if let Some((begin, length)) = dump.range {
        how += &format!(", begin {begin:#x} length {length:#x}");
    }
    how
}

/// A guest program, assembled.
struct Program {
    /// ELF: symbols and debug information, no code.
    vmlinux: PathBuf,
    rom: PathBuf,
    /// Virtual addresses that QEMU shall translate.
    probes: Vec<u64>,
}

impl Program {
    fn assemble(repo: &Path, name: &str, folder: &Path) -> Result<Self> {
        let sources = Path::new("tests/guests");
        let path = |extension| folder.join(name).with_extension(extension);
        let (object, linked, vmlinux) = (path("o"), path("elf"), path("vmlinux"));
        let (rom, probes) = (path("rom"), path("probe"));
        let source = sources.join(name).with_extension("S");
        // Debug information names no folder of this machine.
        let debug = ["--64", "--gdwarf-5", "--debug-prefix-map"];
        let mut assemble = Command::new("as");
        assemble.current_dir(repo).args(debug).arg(format!("{}=.", repo.display()));
        run::run(assemble.arg("-I").arg(sources).arg("-o").args([&object, &source]))?;
        run::run(
            Command::new("ld")
                .args(["-m", "elf_x86_64", "-nostdlib", "-e", "0xffff0"])
                .args(["--section-start=.text=0xf0000", "--section-start=.reset=0xffff0", "-o"])
                .args([&linked, &object]),
        )?;
        let objcopy = |options: &[&str], to| {
            run::run(Command::new("objcopy").args(["-O", "binary"]).args(options).args([&linked, to]))
        };
        objcopy(&["-j", ".text", "-j", ".reset"], &rom)?;
        // The code itself is in the dumps.
        run::run(Command::new("objcopy").arg("--only-keep-debug").args([&linked, &vmlinux]))?;
        objcopy(&["-j", ".probe", "--set-section-flags", ".probe=alloc"], &probes)?;

        let len = fs::metadata(&rom)?.len();
        ensure!(len == 0x1_0000, "{name}.S: a ROM of 64 KiB is needed, {len:#x} bytes came out");
        let probes = fs::read(probes)?.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        Ok(Self { vmlinux, rom, probes })
    }
}

/// One file of what a run gives; each version of QEMU gives the same files in the same order.
struct Made<'a> {
    /// The end of its name, after recipe and version.
    suffix: String,
    content: Vec<u8>,
    dump: Option<&'a Dump>,
}

fn make<'a>(recipe: &'a Recipe, program: &Program, bin: &Path, folder: &Path) -> Result<Vec<Made<'a>>> {
    let mut arguments = vec!["-machine", recipe.machine, "-cpu", recipe.cpu];
    arguments.extend(recipe.more.split_whitespace());
    let binary = bin.join(recipe.binary);
    let mut guest = Guest::ready(&binary, &arguments, &program.rom, recipe.running, folder)?;

    let mut files = Vec::new();
    let path = folder.join("dump");
    for dump in recipe.dumps {
        let mut arguments = json!({"paging": dump.paging, "protocol": format!("file:{}", path.display())});
        if let Some((begin, length)) = dump.range {
            arguments["begin"] = json!(begin);
            arguments["length"] = json!(length);
        }
        guest.command("dump-guest-memory", arguments)?;
        let suffix = format!("{}.elf.gz", dump.suffix);
        files.push(Made { suffix, content: fs::read(&path)?, dump: Some(dump) });
        fs::remove_file(&path)?;
    }

    let mut text = |suffix: &str, text: String| {
        files.push(Made { suffix: suffix.to_owned(), content: text.into_bytes(), dump: None });
    };
    text(".registers.txt", guest.monitor("info registers -a", 0)?);
    text(".mtree.txt", sort_views(&guest.monitor("info mtree -f", 0)?));
    if recipe.texts == Texts::All {
        let mut translations = String::from("cpu\tgva\tgpa\n");
        let mut leaves = String::new();
        let mut gdb = String::from("cpu\tg packet\n");
        for cpu in 0..guest.cpu_count()? {
            for gva in &program.probes {
                let gpa = gva2gpa(&guest.monitor(&format!("gva2gpa {gva:#x}"), cpu)?)?;
                writeln!(translations, "{cpu}\t{gva:#x}\t{gpa}")?;
            }
            writeln!(leaves, "CPU#{cpu}\n{}", guest.monitor("info tlb", cpu)?.trim_end())?;
            writeln!(gdb, "{cpu}\t{}", guest.gdb_registers(cpu)?)?;
        }
        text(".gva2gpa.tsv", translations);
        text(".tlb.txt", leaves);
        text(".gdb.tsv", gdb);
    }
    Ok(files)
}

/// `gpa: 0x1000`, `gpa: 0` or `Unmapped` as a field: `0x1000`, `0x0`, `-`.
fn gva2gpa(reply: &str) -> Result<String> {
    let reply = reply.trim();
    if reply == "Unmapped" {
        return Ok("-".to_owned());
    }
    let Some(gpa) = reply.strip_prefix("gpa: ") else { bail!("gva2gpa says {reply:?}") };
    let gpa = u64::from_str_radix(gpa.trim_start_matches("0x"), 16).with_context(|| reply.to_owned())?;
    Ok(format!("{gpa:#x}"))
}

/// The flat views that hold memory, in a fixed order: QEMU prints them in the order of a hash of pointers.
fn sort_views(mtree: &str) -> String {
    let mut views: Vec<_> = mtree
        .split("FlatView #")
        .filter(|view| view.contains(", ram)") || view.contains(", rom)"))
        .filter_map(|view| Some(view.split_once('\n')?.1.trim_end()))
        .collect();
    views.sort_unstable();
    views.iter().enumerate().map(|(index, view)| format!("FlatView #{index}\n{view}\n\n")).collect()
}

/// The folder of fixtures: told what belongs in it, it writes or compares.
struct Folder {
    path: PathBuf,
    check: bool,
    /// A difference is printed and not counted, because another tool made the file.
    forgive: bool,
    differences: usize,
    strangers: BTreeSet<String>,
}

impl Folder {
    fn open(path: PathBuf, check: bool) -> Result<Self> {
        let mut strangers = BTreeSet::new();
        for entry in fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))? {
            strangers.insert(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(Self { path, check, forgive: false, differences: 0, strangers })
    }

    fn text(&self, name: &str) -> Result<String> {
        fs::read_to_string(self.path.join(name)).with_context(|| format!("reading {name}"))
    }

    fn keep(&mut self, is_ours: impl Fn(&str) -> bool) {
        self.strangers.retain(|name| !is_ours(name));
    }

    /// `content` belongs in the file `name`, compressed if that ends in `.gz`.
    fn put(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let known = self.strangers.remove(name);
        let path = self.path.join(name);
        // What is in the file counts, not how it was packed: a newer flate2 is no difference.
        let stored = known.then(|| unpack(&path)).transpose()?;
        if stored.as_deref() == Some(content) {
            return Ok(());
        }
        let absent = if self.check { "is missing" } else { "is new" };
        let what = stored.map_or(absent.to_owned(), |stored| first_difference(&stored, content));
        if self.forgive {
            println!("{name}: {what} (made with another tool, see above)");
        } else {
            println!("{name}: {what}");
            self.differences += 1;
        }
        if !self.check {
            fs::write(&path, pack(name, content)?).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// Puts a file of one version, unless the first version made the same, `same` now or in the folder. Its name.
    fn put_variant(
        &mut self,
        recipe: &Recipe,
        version: Version,
        file: &Made<'_>,
        same: Option<&[u8]>,
    ) -> Result<Option<String>> {
        let name = |version: Version| format!("{}-{}{}", recipe.name, version.label(), file.suffix);
        let first = Version::ALL[0];
        if version != first {
            let stored = unpack(&self.path.join(name(first))).ok();
            if same == Some(&file.content) || stored.as_ref() == Some(&file.content) {
                return Ok(None);
            }
        }
        self.put(&name(version), &file.content)?;
        Ok(Some(name(version)))
    }

    /// What nothing was put in is removed, or counted.
    fn settle_orphans(&mut self) -> Result<()> {
        for name in std::mem::take(&mut self.strangers) {
            println!("{name}: no recipe makes it");
            self.differences += 1;
            if !self.check {
                fs::remove_file(self.path.join(name))?;
            }
        }
        Ok(())
    }
}

fn pack(name: &str, content: &[u8]) -> Result<Vec<u8>> {
    if !name.ends_with(".gz") {
        return Ok(content.to_vec());
    }
    // No name and no time in the header: the same bytes each time.
    let mut gz = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gz.write_all(content)?;
    Ok(gz.finish()?)
}

fn unpack(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    if path.extension().is_none_or(|extension| extension != "gz") {
        return Ok(bytes);
    }
    let mut content = Vec::new();
    GzDecoder::new(&*bytes)
        .read_to_end(&mut content)
        .with_context(|| format!("unpacking {}", path.display()))?;
    Ok(content)
}

/// Where two contents part, for a person: a line of text, or an offset.
pub(super) fn first_difference(old: &[u8], new: &[u8]) -> String {
    let offset = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    match (str::from_utf8(old), str::from_utf8(new)) {
        (Ok(old), Ok(new)) => {
            let index = old.lines().zip(new.lines()).take_while(|(old, new)| old == new).count();
            let line = |text: &str| text.lines().nth(index).unwrap_or("the end").trim().to_owned();
            format!("differs in line {}: was `{}`, is `{}`", index + 1, line(old), line(new))
        }
        _ => format!("differs at offset {offset:#x}; is {:#x} bytes, was {:#x}", new.len(), old.len()),
    }
}
