//! kallsyms: the list of its own symbols that a kernel carries in its memory.
//!
//! ```text
//! kallsyms_num_syms       how many, 32 bits
//! kallsyms_names          each: a length (7 bits; 15 in two bytes since Linux 6.1), then so many tokens, a byte each
//! kallsyms_token_index    256 distances into the next table, 16 bits each
//! kallsyms_token_table    256 pieces of text, each with a NUL; all tokens of a name together: its type, then its name
//! kallsyms_offsets        each: 32 bits, from kallsyms_relative_base; or kallsyms_addresses: a word each
//! ```
//!
//! VMCOREINFO says where they lie since Linux 6.0. Symbols of modules are elsewhere (`modules.rs`).
//!
//! Source: Linux `kernel/kallsyms.c`, `scripts/kallsyms.c`, `kernel/vmcore_info.c`.

use crate::{Error, Symbol, SymbolTable};
use vmcore_core::{Gva, Kernel};

/// The most symbols of a kernel; real ones have 200,000.
const MAX_SYMBOLS: u64 = 1 << 22;
/// The longest list of names.
const MAX_NAMES_LEN: u64 = 1 << 28;
/// The longest name, its type included; the kernel's own bound is 512.
const MAX_NAME_LEN: usize = 1024;
/// How much text all names may be; those of real kernels are 8 MiB.
const MAX_TEXT_LEN: usize = 1 << 26;
/// How much of the list of names is read at once.
const CHUNK: usize = 1 << 16;
/// Tokens: a byte tells one of them.
const TOKENS: usize = 256;
/// The longest table of tokens.
const MAX_TOKEN_TABLE_LEN: usize = 1 << 16;
/// The symbol by which the way of counting addresses is known: VMCOREINFO states it too.
const LANDMARK: &str = "_stext";
/// What needs the keys.
const WHAT: &str = "the kernel's list of symbols";

/// Reads the list of a kernel.
///
/// # Errors
/// [`vmcore_core::Error::NoKey`] if VMCOREINFO does not say where it lies, as before Linux 6.0; [`Error::Table`] if something
/// else lies there, and errors of reading.
pub fn read(kernel: &Kernel) -> Result<SymbolTable, Error> {
    let count_at = kernel.symbol("kallsyms_num_syms", WHAT)?;
    let count = kernel.number_at::<4>(count_at)?;
    if !(1..=MAX_SYMBOLS).contains(&count) {
        let expected = "at least 1 and at most 4194304";
        return Err(Error::Table { what: "the number of symbols", gva: count_at, found: count, expected });
    }
    let names = names(kernel, count)?;
    let gvas = addresses(kernel, &names)?;
    let symbol = |(gva, (kind, name)): (Gva, (u8, String))| {
        // Types are those of nm: code, weak code, and what is not known of a section for initialization.
        let is_code = matches!(kind, b't' | b'T' | b'w' | b'W');
        Symbol { gva, len: 0, name, is_code }
    };
    Ok(SymbolTable::new(gvas.into_iter().zip(names).map(symbol)))
}

/// The text of each token.
fn tokens(kernel: &Kernel) -> Result<Vec<Vec<u8>>, Error> {
    let mut words = [0; 2 * TOKENS];
    kernel.read(kernel.symbol("kallsyms_token_index", WHAT)?, &mut words)?;
    let (pairs, _) = words.as_chunks::<2>();
    let index = pairs.iter().map(|pair| usize::try_from(kernel.endianness().decode(pair)).unwrap_or(0));
    let index: Vec<usize> = index.collect();
    // Only the begin of the last token is known; it ends within a name's length.
    let last = index.iter().copied().max().unwrap_or(0);
    let mut table = vec![0; (last + MAX_NAME_LEN).min(MAX_TOKEN_TABLE_LEN)];
    kernel.read(kernel.symbol("kallsyms_token_table", WHAT)?, &mut table)?;
    let text = |start: usize| {
        let text = table.get(start..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
        text[..text.len().min(MAX_NAME_LEN)].to_vec()
    };
    Ok(index.into_iter().map(text).collect())
}

/// A list of unknown length in memory, read piece by piece.
struct Stream<'a> {
    kernel: &'a Kernel,
    start: Gva,
    /// How many bytes were taken from memory.
    read: u64,
    buffer: Vec<u8>,
    position: usize,
}

impl Stream<'_> {
    fn byte(&mut self) -> Result<u8, Error> {
        if self.position == self.buffer.len() {
            let gva = Gva(self.start.0.wrapping_add(self.read));
            if self.read >= MAX_NAMES_LEN {
                let expected = "less than 256 MiB";
                return Err(Error::Table {
                    what: "the length of the names",
                    gva,
                    found: self.read,
                    expected,
                });
            }
            // Up to the end of a page: what lies behind the list need not be there.
            let len = CHUNK - usize::try_from(gva.0).unwrap_or(0) % CHUNK;
            self.buffer.resize(len, 0);
            if self.kernel.read(gva, &mut self.buffer).is_err() {
                self.buffer.truncate(0x1000 - usize::try_from(gva.0).unwrap_or(0) % 0x1000);
                self.kernel.read(gva, &mut self.buffer)?;
            }
            self.read += self.buffer.len() as u64;
            self.position = 0;
        }
        let byte = self.buffer[self.position];
        self.position += 1;
        Ok(byte)
    }
}

/// Types and names, in the order of the list.
fn names(kernel: &Kernel, count: u64) -> Result<Vec<(u8, String)>, Error> {
    let tokens = tokens(kernel)?;
    let start = kernel.symbol("kallsyms_names", WHAT)?;
    let mut stream = Stream { kernel, start, read: 0, buffer: Vec::new(), position: 0 };
    let mut names = Vec::new();
    let mut text_len = 0;
    for _ in 0..count {
        let mut len = usize::from(stream.byte()?);
        if len & 0x80 != 0 {
            len = len & 0x7f | usize::from(stream.byte()?) << 7;
        }
        let mut text = Vec::new();
        for _ in 0..len {
            let token = stream.byte()?;
            if text.len() < MAX_NAME_LEN {
                text.extend_from_slice(&tokens[usize::from(token)]);
            }
        }
        text.truncate(MAX_NAME_LEN);
        text_len += text.len();
        if text_len > MAX_TEXT_LEN {
            let (what, expected) = ("the text of the names", "at most 64 MiB");
            return Err(Error::Table { what, gva: start, found: text_len as u64, expected });
        }
        let (kind, name) = text.split_first().map_or((b'?', &[][..]), |(kind, name)| (*kind, name));
        names.push((kind, String::from_utf8_lossy(name).into_owned()));
    }
    Ok(names)
}

/// The addresses of all names.
fn addresses(kernel: &Kernel, names: &[(u8, String)]) -> Result<Vec<Gva>, Error> {
    let info = kernel.info();
    if let Some(at) = info.symbol("kallsyms_addresses") {
        return words::<8, _>(kernel, Gva(at), names.len(), Gva);
    }
    let base = kernel.number_at::<8>(kernel.symbol("kallsyms_relative_base", WHAT)?)?;
    let at = kernel.symbol("kallsyms_offsets", WHAT)?;
    let offsets = words::<4, _>(kernel, at, names.len(), |offset| offset)?;
    let counted = |way: Way| offsets.iter().map(move |offset| Gva(way.address(base, *offset)));
    let landmark = kernel.symbol(LANDMARK, WHAT)?;
    let fits =
        |way: &Way| counted(*way).zip(names).any(|(gva, (_, name))| name == LANDMARK && gva == landmark);
    let way = [Way::Offset, Way::Signed].into_iter().find(fits);
    let expected = "an address of _stext that is what VMCOREINFO says";
    let way = way.ok_or(Error::Table { what: "the symbols' base", gva: at, found: base, expected })?;
    Ok(counted(way).collect())
}

/// How an address is made of its 32 bits.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Added to the base.
    Offset,
    /// Where symbols of a processor's own memory count from 0 (`CONFIG_KALLSYMS_ABSOLUTE_PERCPU`, x86_64 up to Linux 6.14):
    /// those that are not negative are addresses themselves, the others are counted down from the base.
    Signed,
}

impl Way {
    fn address(self, base: u64, offset: u64) -> u64 {
        match (self, i32::try_from(offset)) {
            (Self::Signed, Ok(_)) => offset,
            (Self::Signed, Err(_)) => base.wrapping_add(u64::from(u32::MAX) - offset),
            (Self::Offset, _) => base.wrapping_add(offset),
        }
    }
}

/// `count` numbers of `N` bytes each.
fn words<const N: usize, T>(
    kernel: &Kernel,
    gva: Gva,
    count: usize,
    make: impl Fn(u64) -> T,
) -> Result<Vec<T>, Error> {
    // Bounded by the number of names that were read.
    let mut bytes = vec![0; count * N];
    kernel.read(gva, &mut bytes)?;
    Ok(bytes.chunks_exact(N).map(|word| make(kernel.endianness().decode(word))).collect())
}
