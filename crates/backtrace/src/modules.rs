//! The kernel's modules: where each lies, its functions and its ORC tables.
//!
//! ```text
//! modules (a list) ──► struct module: name, memory, kallsyms ──► struct mod_kallsyms: symbols as in ELF, names
//!                                                    arch (x86_64) ──► ORC tables
//! ```
//!
//! Where the members of these structs are, the kernel's BTF says.
//!
//! Source: Linux `include/linux/module.h`, `kernel/module/kallsyms.c`, `arch/x86/include/asm/module.h`.

use crate::btf::{Btf, Struct};
use crate::orc::Orc;
use crate::{Error, Symbol, SymbolTable};
use std::ops::Range;
use std::sync::Arc;
use vmcore_core::{Gva, Kernel};

/// The most modules; real kernels have 500.
const MAX_MODULES: usize = 1 << 14;
/// The most symbols of all modules.
const MAX_SYMBOLS: u64 = 1 << 22;
/// How long the lists of names of all modules may be, the names themselves, and a name.
const MAX_NAMES_LEN: u64 = 1 << 26;
const MAX_NAME_LEN: usize = 512;
/// The most pieces of memory of a module; Linux has 7 kinds of it.
const MAX_MEMORIES: u64 = 16;
/// The longest name of a module: `MODULE_NAME_LEN` is less.
const NAME_LEN: usize = 64;

/// A module that is loaded.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: Arc<str>,
    ranges: Vec<Range<u64>>,
    pub(crate) symbols: SymbolTable,
    pub(crate) orc: Option<Orc>,
}

impl Module {
    /// Whether an address is in its memory.
    pub(crate) fn contains(&self, address: u64) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }
}

/// All modules of a kernel with these symbols, whose pointers have `word` bytes.
///
/// `orc` are the kernel's own tables, if it has some: those of the modules look the same.
pub(crate) fn read(
    kernel: &Kernel,
    symbols: &SymbolTable,
    word: u8,
    orc: Option<&Orc>,
) -> Result<Vec<Module>, Error> {
    let head = symbols.need("modules")?;
    let reader = Reader { kernel, word, layout: Layout::of(&Btf::read(kernel, symbols)?)?, orc };
    let mut modules = Vec::new();
    let mut left = Left { symbols: MAX_SYMBOLS, lists: MAX_NAMES_LEN, names: MAX_NAMES_LEN };
    let mut entry = reader.pointer(head.0)?;
    while entry != head.0 {
        if modules.len() == MAX_MODULES {
            let expected = "back at its begin after 16384 modules";
            return Err(Error::Table { what: "the list of modules", gva: head, found: entry, expected });
        }
        let module = reader.module(entry.wrapping_sub(reader.layout.list), &mut left)?;
        modules.extend(module);
        entry = reader.pointer(entry)?;
    }
    Ok(modules)
}

/// What may still be read of modules: they may lead to the same memory again and again.
struct Left {
    symbols: u64,
    lists: u64,
    names: u64,
}

impl Left {
    fn take(left: &mut u64, count: u64, what: &'static str, gva: Gva) -> Result<(), Error> {
        let expected = "no more than modules have";
        *left = left.checked_sub(count).ok_or(Error::Table { what, gva, found: count, expected })?;
        Ok(())
    }
}

/// Where members are, in bytes.
struct Layout {
    list: u64,
    name: u64,
    /// Each piece of memory: where its address is, and its length (32 bits).
    memories: Vec<(u64, u64)>,
    /// Pointer to a `struct mod_kallsyms`, which has the next four.
    kallsyms: u64,
    symtab: u64,
    num_symtab: u64,
    strtab: u64,
    typetab: Option<u64>,
    /// How many ORC entries there are, and pointers to both tables.
    orc: Option<[u64; 3]>,
}

impl Layout {
    fn of(btf: &Btf) -> Result<Self, Error> {
        let module = btf.find("module")?;
        let kallsyms = btf.find("mod_kallsyms")?;
        Ok(Self {
            list: module.offset("list")?,
            name: module.offset("name")?,
            memories: memories(btf, &module)?,
            kallsyms: module.offset("kallsyms")?,
            symtab: kallsyms.offset("symtab")?,
            num_symtab: kallsyms.offset("num_symtab")?,
            strtab: kallsyms.offset("strtab")?,
            typetab: kallsyms.offset("typetab").ok(),
            orc: orc(btf, &module),
        })
    }
}

/// The pieces of memory of a module: an array since Linux 6.4, before two members.
fn memories(btf: &Btf, module: &Struct) -> Result<Vec<(u64, u64)>, Error> {
    if let Some((at, array)) = module.member("mem") {
        let memory = btf.find("module_memory")?;
        let (base, len) = (memory.offset("base")?, memory.offset("size")?);
        let count = btf.array_count(array).unwrap_or(0).min(MAX_MEMORIES);
        return Ok((0..count).map(|index| at + index * memory.len).map(|at| (at + base, at + len)).collect());
    }
    let layout = btf.find("module_layout")?;
    let (base, len) = (layout.offset("base")?, layout.offset("size")?);
    let members = ["core_layout", "init_layout"].map(|name| module.offset(name));
    members.into_iter().map(|at| at.map(|at| (at + base, at + len))).collect()
}

/// Where a module says where its ORC tables are; `None` if modules have none.
fn orc(btf: &Btf, module: &Struct) -> Option<[u64; 3]> {
    let arch = module.offset("arch").ok()?;
    let tables = btf.find("mod_arch_specific").ok()?;
    let [count, addresses, entries] =
        ["num_orcs", "orc_unwind_ip", "orc_unwind"].map(|name| tables.offset(name).ok());
    Some([arch + count?, arch + addresses?, arch + entries?])
}

/// Reads modules of a kernel.
struct Reader<'a> {
    kernel: &'a Kernel,
    /// Bytes of a pointer.
    word: u8,
    layout: Layout,
    orc: Option<&'a Orc>,
}

impl Reader<'_> {
    fn number(&self, address: u64, len: usize) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        let bytes = &mut bytes[..len.min(8)];
        self.kernel.read(Gva(address), bytes)?;
        Ok(self.kernel.endianness().decode(bytes))
    }

    fn pointer(&self, address: u64) -> Result<u64, Error> {
        self.number(address, usize::from(self.word))
    }

    /// The module at `at`; `None` if it has no memory, as while it is loaded.
    fn module(&self, at: u64, left: &mut Left) -> Result<Option<Module>, Error> {
        let layout = &self.layout;
        let mut name = [0; NAME_LEN];
        self.kernel.read(Gva(at.wrapping_add(layout.name)), &mut name)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut ranges = Vec::new();
        for (base, len) in &layout.memories {
            let base = self.pointer(at.wrapping_add(*base))?;
            let len = self.number(at.wrapping_add(*len), 4)?;
            ranges.extend((base != 0 && len != 0).then(|| base..base.saturating_add(len)));
        }
        if ranges.is_empty() {
            return Ok(None);
        }
        let orc = match self.orc.zip(layout.orc) {
            Some((kernel, [count, addresses, entries])) => {
                let count = self.number(at.wrapping_add(count), 4)?;
                let [addresses, entries] =
                    [addresses, entries].map(|table| self.pointer(at.wrapping_add(table)));
                Some(kernel.of_module(Gva(addresses?), Gva(entries?), count, ranges.clone()))
            }
            None => None,
        };
        let symbols = self.symbols(self.pointer(at.wrapping_add(layout.kallsyms))?, &ranges, left)?;
        Ok(Some(Module { name: String::from_utf8_lossy(name).into(), ranges, symbols, orc }))
    }

    /// The functions that a `struct mod_kallsyms` lists.
    fn symbols(&self, at: u64, ranges: &[Range<u64>], left: &mut Left) -> Result<SymbolTable, Error> {
        let layout = &self.layout;
        let count = self.number(at.wrapping_add(layout.num_symtab), 4)?;
        Left::take(&mut left.symbols, count, "the number of symbols of modules", Gva(at))?;
        let count = usize::try_from(count).unwrap_or(0);
        let mut table = vec![0; count * self.symbol_len()];
        self.kernel.read(Gva(self.pointer(at.wrapping_add(layout.symtab))?), &mut table)?;
        let mut types = vec![0; count];
        if let Some(typetab) = layout.typetab {
            self.kernel.read(Gva(self.pointer(at.wrapping_add(typetab))?), &mut types)?;
        }
        let entries: Vec<ElfSymbol> =
            table.chunks_exact(self.symbol_len()).map(|entry| self.symbol(entry)).collect();
        let names_len = entries.iter().map(|symbol| symbol.name).max().unwrap_or(0) + MAX_NAME_LEN as u64;
        Left::take(&mut left.lists, names_len, "the length of the names of modules", Gva(at))?;
        let names = self.names(self.pointer(at.wrapping_add(layout.strtab))?, names_len);
        let mut texts_len = 0;
        let named = |symbol: &ElfSymbol| {
            let name = names.get(usize::try_from(symbol.name).ok()?..)?;
            let name = &name[..name.len().min(MAX_NAME_LEN)];
            name.split(|byte| *byte == 0).next()
        };
        entries.iter().filter_map(named).for_each(|name| texts_len += name.len() as u64);
        Left::take(&mut left.names, texts_len, "the length of the names of modules", Gva(at))?;
        let found = entries.iter().zip(types).filter_map(|(symbol, kind)| {
            let name = String::from_utf8_lossy(named(symbol)?).into_owned();
            // Types are those of nm. Before Linux 5.2 they stand where ELF has its own.
            let kind = if layout.typetab.is_some() { kind } else { symbol.info };
            let is_inside = ranges.iter().any(|range| range.contains(&symbol.value));
            let is_code = matches!(kind, b't' | b'T' | b'w' | b'W') && is_inside;
            let is_named = !name.is_empty() && !name.starts_with(['$', '.']);
            is_named.then_some(Symbol { gva: Gva(symbol.value), len: symbol.size, name, is_code })
        });
        Ok(SymbolTable::new(found))
    }

    /// The list of names at `at`, as far as it can be read: what lies behind it need not be there.
    fn names(&self, at: u64, len: u64) -> Vec<u8> {
        let mut names = Vec::new();
        while (names.len() as u64) < len {
            let address = at.wrapping_add(names.len() as u64);
            let mut page = [0; 0x1000];
            let page = &mut page[usize::try_from(address % 0x1000).unwrap_or(0)..];
            if self.kernel.read(Gva(address), page).is_err() {
                break;
            }
            names.extend_from_slice(page);
        }
        names
    }

    /// Length of `Elf64_Sym` or `Elf32_Sym` in bytes.
    fn symbol_len(&self) -> usize {
        if self.word == 8 { 24 } else { 16 }
    }

    /// What such an entry says; it has as many bytes.
    fn symbol(&self, entry: &[u8]) -> ElfSymbol {
        let field = |at: usize, len| self.kernel.endianness().decode(&entry[at..at + len]);
        let (info, value, size, len) = if self.word == 8 { (4, 8, 16, 8) } else { (12, 4, 8, 4) };
        ElfSymbol { name: field(0, 4), info: entry[info], value: field(value, len), size: field(size, len) }
    }
}

/// A symbol of an ELF file.
struct ElfSymbol {
    /// Where its name is among the names.
    name: u64,
    info: u8,
    value: u64,
    size: u64,
}
