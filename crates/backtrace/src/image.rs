//! The ELF file of the guest's kernel, a `vmlinux`: its symbols, its call-frame information, and where it lies in the guest.

use crate::cfi::{CallFrames, Caller, Kind, ReadWord};
use crate::debug_info::{DebugInfo, Function};
use crate::registers::{Names, Registers};
use crate::section::Section;
use crate::{Error, Symbol, SymbolTable};
use gimli::{RunTimeEndian, Vendor};
use object::read::elf::{ElfFile, FileHeader};
use object::{
    FileKind, Object, ObjectKind, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, ReadRef,
    SectionFlags, SectionKind, SymbolKind, elf,
};
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use vmcore_core::note::NoteIter;
use vmcore_core::{Arch, Endianness, Gva, Machine, ReadAt, Vmcoreinfo};

/// The longest section of notes that is looked at, and how many.
const MAX_NOTES: (u64, usize) = (1 << 16, 16);
/// The longest name of a symbol, and how much text all names may be: those of large kernels are 30 MiB.
const MAX_NAMES_LEN: (usize, usize) = (4096, 1 << 28);
/// Owner and type of the note that holds the build id. Source: binutils `include/elf/common.h`.
const BUILD_ID: (&str, u32) = ("GNU", 3);
/// The symbol that the kernel states in VMCOREINFO and that each vmlinux has: where its code begins.
const LANDMARK: &str = "_stext";

/// A vmlinux.
#[derive(Debug)]
pub struct Image {
    elf_machine: u16,
    build_id: Option<Vec<u8>>,
    /// Where its first segment that is loaded was linked.
    start: Option<Gva>,
    /// As the file has them.
    symbols: Vec<Symbol>,
    call_frames: Vec<CallFrames>,
    debug_info: Option<DebugInfo>,
}

/// Whether a vmlinux is that of the guest's kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identification {
    /// Their build ids are the same.
    Same,
    /// The guest or the file has no build id.
    Unknown,
    /// Their build ids differ.
    Other {
        /// That of the guest's kernel, in hex.
        guest: String,
        /// That of the file, in hex.
        file: String,
    },
}

impl Image {
    /// Reads symbols and call-frame information of a file, and finds its debug information, which is read when it is needed.
    ///
    /// # Errors
    /// [`Error::Elf`] and [`Error::Unusable`].
    pub fn open(file: &Arc<dyn ReadAt>) -> Result<Self, Error> {
        let cache = ReadCache::new(Cursor { file: Arc::clone(file), position: 0 });
        match FileKind::parse(&cache).map_err(bad("the header"))? {
            FileKind::Elf32 => Self::of_elf::<elf::FileHeader32<object::Endianness>, _>(file, &cache),
            FileKind::Elf64 => Self::of_elf::<elf::FileHeader64<object::Endianness>, _>(file, &cache),
            other => Err(Error::Unusable(format!("is no ELF file but {other:?}"))),
        }
    }

    fn of_elf<'data, H, R>(whole: &Arc<dyn ReadAt>, data: R) -> Result<Self, Error>
    where
        H: FileHeader<Endian = object::Endianness>,
        R: ReadRef<'data>,
    {
        let file = ElfFile::<'data, H, R>::parse(data).map_err(bad("the headers"))?;
        let refused = match file.kind() {
            ObjectKind::Relocatable => Some("is not linked: a kernel's module, perhaps"),
            ObjectKind::Core => Some("is a core: a dump, not the kernel's file"),
            _ => None,
        };
        if let Some(why) = refused {
            return Err(Error::Unusable(why.to_owned()));
        }
        let is_little = file.is_little_endian();
        let (endian, endianness) = if is_little {
            (RunTimeEndian::Little, Endianness::Little)
        } else {
            (RunTimeEndian::Big, Endianness::Big)
        };
        let address_size = if file.is_64() { 8 } else { 4 };
        let elf_machine = file.elf_header().e_machine(file.endian());
        // Arm has an instruction of its own: whether the return address is signed.
        let vendor = if elf_machine == elf::EM_AARCH64 { Vendor::AArch64 } else { Vendor::Default };
        let mut call_frames = Vec::new();
        // Where both know a function, the first says more: it was made for debuggers.
        for (name, kind) in [(".debug_frame", Kind::Debug), (".eh_frame", Kind::Exception)] {
            if let Some(section) = file.section_by_name(name) {
                let bytes = Section::new(whole, &section)?.bytes()?;
                call_frames.push(CallFrames::new(
                    kind,
                    bytes,
                    section.address(),
                    endian,
                    address_size,
                    vendor,
                ));
            }
        }
        let section =
            |name: &str| file.section_by_name(name).map(|section| Section::new(whole, &section)).transpose();
        Ok(Self {
            elf_machine: elf_machine.0,
            build_id: build_id(&file, endianness),
            start: file.segments().next().map(|segment| Gva(segment.address())),
            symbols: symbols(&file)?,
            call_frames,
            debug_info: DebugInfo::find(section, endian)?,
        })
    }

    /// `e_machine`.
    #[must_use]
    pub fn elf_machine(&self) -> u16 {
        self.elf_machine
    }

    /// Refuses the file of another architecture.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn check_arch(&self, arch: &dyn Arch) -> Result<(), Error> {
        let (theirs, ours) = (self.elf_machine, arch.elf_machine());
        if theirs == ours {
            return Ok(());
        }
        Err(Error::Unusable(format!("is of machine {theirs}, the dump of machine {ours} ({})", arch.name())))
    }

    /// Whether it has symbols: files that were stripped of all have none.
    #[must_use]
    pub fn has_symbols(&self) -> bool {
        !self.symbols.is_empty()
    }

    /// Whether it has call-frame information: files that were stripped have none.
    #[must_use]
    pub fn has_call_frames(&self) -> bool {
        !self.call_frames.is_empty()
    }

    /// Its build id, in hex.
    #[must_use]
    pub fn build_id(&self) -> Option<String> {
        let id = self.build_id.as_ref()?;
        Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Where its first segment that is loaded was linked: debuggers count KASLR's slide from there.
    #[must_use]
    pub fn start(&self) -> Option<Gva> {
        self.start
    }

    /// Whether it is the file of the machine's kernel.
    #[must_use]
    pub fn identify(&self, machine: &Machine) -> Identification {
        let guest = machine.vmcoreinfo().and_then(|info| Some(info.get("BUILD-ID")?.trim().to_lowercase()));
        match (guest, self.build_id()) {
            (Some(guest), Some(file)) if guest != file => Identification::Other { guest, file },
            (Some(_), Some(_)) => Identification::Same,
            _ => Identification::Unknown,
        }
    }

    /// How far the kernel lies from where it was linked, modulo 2^64: what KASLR has added.
    ///
    /// By the address that the kernel states of its first instruction, else by `KERNELOFFSET`; 0 if it states neither.
    #[must_use]
    pub fn slide(&self, info: &Vmcoreinfo) -> u64 {
        let linked = self.symbols.iter().find(|symbol| symbol.name == LANDMARK);
        let slide = info.symbol(LANDMARK).zip(linked).map(|(at, linked)| at.wrapping_sub(linked.gva.0));
        slide.or_else(|| info.hex("KERNELOFFSET")).unwrap_or(0)
    }

    /// Its symbols in a kernel that lies `slide` bytes from where it was linked.
    #[must_use]
    pub fn symbols(&self, slide: u64) -> SymbolTable {
        let moved = |symbol: &Symbol| Symbol { gva: Gva(symbol.gva.0.wrapping_add(slide)), ..symbol.clone() };
        SymbolTable::new(self.symbols.iter().map(moved))
    }

    /// The frame that called the one with these registers, whose code is at `address` in the file's address space.
    pub(crate) fn caller(
        &self,
        address: u64,
        registers: &Registers,
        names: &Names,
        read: ReadWord<'_>,
    ) -> Option<Result<Caller, Error>> {
        self.call_frames.iter().find_map(|frames| frames.caller(address, registers, names, read))
    }

    /// The functions of the code at `address` in the file's address space: the innermost first, all but the last inlined.
    ///
    /// Empty if nothing is known of that code.
    pub(crate) fn functions(&self, address: u64) -> Result<Vec<Function>, Error> {
        self.debug_info.as_ref().map_or(Ok(Vec::new()), |info| info.functions(address))
    }
}

/// The command by which gdb takes the symbols of `path` in a kernel that lies `slide` bytes from where it was linked.
#[must_use]
pub fn gdb_command(path: &str, slide: u64) -> String {
    match slide.cast_signed() {
        0 => format!("symbol-file {path}"),
        1.. => format!("symbol-file -o {slide:#x} {path}"),
        _ => format!("symbol-file -o -{:#x} {path}", slide.wrapping_neg()),
    }
}

fn bad(what: &'static str) -> impl FnOnce(object::read::Error) -> Error {
    move |source| Error::Elf { what, source }
}

fn build_id<'data, H, R>(file: &ElfFile<'data, H, R>, endianness: Endianness) -> Option<Vec<u8>>
where
    H: FileHeader<Endian = object::Endianness>,
    R: ReadRef<'data>,
{
    let (owner, note_type) = BUILD_ID;
    let notes = file
        .sections()
        .filter(|section| section.kind() == SectionKind::Note && section.size() <= MAX_NOTES.0);
    for section in notes.take(MAX_NOTES.1) {
        let bytes = section.data().unwrap_or_default();
        let mut notes = NoteIter::new(bytes, 0, endianness, section.align()).map_while(Result::ok);
        if let Some(note) = notes.find(|note| note.is(owner, note_type)) {
            return Some(note.desc);
        }
    }
    None
}

/// The symbols of a file, those that are known elsewhere too before those that are not.
fn symbols<'data, H, R>(file: &ElfFile<'data, H, R>) -> Result<Vec<Symbol>, Error>
where
    H: FileHeader<Endian = object::Endianness>,
    R: ReadRef<'data>,
{
    let table = file.elf_symbol_table();
    let strings = file.section_by_index(table.string_section()).and_then(|section| section.data());
    let is_long = |name: &[u8]| name.len() > MAX_NAMES_LEN.0;
    if strings.is_ok_and(|strings| strings.split(|byte| *byte == 0).any(is_long)) {
        return Err(Error::Unusable(format!(
            "has a symbol with a name of more than {} bytes",
            MAX_NAMES_LEN.0
        )));
    }
    let mut names_len = 0;
    let code: Vec<object::SectionIndex> = file
        .sections()
        // By the flag: files that hold debug information alone have no code in the sections of code.
        .filter(|section| match section.flags() {
            SectionFlags::Elf { sh_flags, .. } => sh_flags & elf::SHF_EXECINSTR != Default::default(),
            _ => false,
        })
        .map(|section| section.index())
        .collect();
    let mut found: Vec<(bool, Symbol)> = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.is_definition() || symbol.kind() == SymbolKind::Label)
    {
        // Arm's mapping symbols ($x, $d) and the compiler's labels name no function.
        let Some(name) = symbol.name().ok().filter(|name| !name.is_empty() && !name.starts_with(['$', '.']))
        else {
            continue;
        };
        names_len += name.len();
        if names_len > MAX_NAMES_LEN.1 {
            return Err(Error::Unusable(format!(
                "has symbols with names of more than {} bytes",
                MAX_NAMES_LEN.1
            )));
        }
        let is_code = symbol.section_index().is_some_and(|index| code.contains(&index))
            && matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Label | SymbolKind::Unknown);
        let len = if symbol.kind() == SymbolKind::Text { symbol.size() } else { 0 };
        found.push((
            symbol.is_local(),
            Symbol { gva: Gva(symbol.address()), len, name: name.to_owned(), is_code },
        ));
    }
    found.sort_by_key(|(is_local, symbol)| (*is_local, symbol.len == 0));
    Ok(found.into_iter().map(|(_, symbol)| symbol).collect())
}

/// A file as the `object` crate reads it.
struct Cursor {
    file: Arc<dyn ReadAt>,
    position: u64,
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(self.position, buf)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.file.byte_len().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gdb_takes_offsets_of_either_sign() {
        assert_eq!(gdb_command("vmlinux", 0), "symbol-file vmlinux");
        assert_eq!(gdb_command("vmlinux", 0x2f80_0000), "symbol-file -o 0x2f800000 vmlinux");
        assert_eq!(gdb_command("vmlinux", 0x1000_u64.wrapping_neg()), "symbol-file -o -0x1000 vmlinux");
    }
}
