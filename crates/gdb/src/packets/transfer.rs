//! Documents that are read piece by piece: `qXfer`.
//!
//! A document that does not exist as text is written anew for each piece, of which the part that is asked for is
//! kept; so none needs memory.

use crate::dispatch::{Answer, Context, Outcome};
use crate::error::Error;
use crate::reply::Reply;
use crate::table::Parameters;
use crate::target::{Document, RegionKind};
use crate::thread::Name;
use core::fmt::{self, Write};

/// The part of a document that a client asks for. Offset and length count the bytes before they are escaped.
struct Piece<'r, 'b> {
    reply: &'r mut Reply<'b>,
    /// Bytes of the document so far.
    at: u64,
    start: u64,
    /// Bytes that are still wanted.
    left: u64,
    /// There is more behind the piece.
    is_cut: bool,
}

impl<'r, 'b> Piece<'r, 'b> {
    /// The piece of the parameters `:annex:offset,length`.
    fn new(reply: &'r mut Reply<'b>, parameters: &Parameters<'_>) -> Result<Self, Error> {
        let (start, left) = (parameters.number(1)?, parameters.number(2)?);
        // It becomes `l` at the end if the document ends here.
        reply.text("m");
        Ok(Self { reply, at: 0, start, left, is_cut: false })
    }

    fn push(&mut self, bytes: &[u8]) {
        let skipped = self.start.saturating_sub(self.at).min(bytes.len() as u64);
        self.at += bytes.len() as u64;
        let behind = usize::try_from(skipped).map_or(&[][..], |skipped| &bytes[skipped..]);
        for byte in behind {
            if self.is_cut || self.left == 0 || !self.reply.escaped(*byte) {
                self.is_cut = true;
                break;
            }
            self.left -= 1;
        }
    }

    fn finish(self) -> Outcome {
        match (self.start > self.at, self.is_cut, self.reply.len()) {
            (true, ..) => Err(Error::NO_DOCUMENT),
            // No byte was wanted, or none fits.
            (_, true, 1) => Err(Error::INVALID),
            (_, true, _) => Ok(Answer::Reply),
            (_, false, _) => {
                self.reply.set_first(b'l');
                Ok(Answer::Reply)
            }
        }
    }
}

impl Write for Piece<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Text in a document: what has a meaning there is written as an entity.
struct Escaped<'p, 'r, 'b>(&'p mut Piece<'r, 'b>);

impl Write for Escaped<'_, '_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            match char {
                '<' => self.0.write_str("&lt;")?,
                '&' => self.0.write_str("&amp;")?,
                '"' => self.0.write_str("&quot;")?,
                _ => self.0.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// The target description and what it includes.
pub(crate) fn features(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let process = context.session.thread()?.process;
    context.target.description(process, "target.xml").ok_or(Error::UNSUPPORTED)?;
    let annex = core::str::from_utf8(parameters.bytes(0)).map_err(|_| Error::NO_DOCUMENT)?;
    let document = context.target.description(process, annex).ok_or(Error::NO_DOCUMENT)?;
    let mut piece = Piece::new(context.reply, parameters)?;
    piece.push(document);
    piece.finish()
}

/// These documents have no parts with names.
fn without_annex(parameters: &Parameters<'_>) -> Result<(), Error> {
    if parameters.bytes(0).is_empty() { Ok(()) } else { Err(Error::NO_DOCUMENT) }
}

/// All threads with what there is to say of them.
pub(crate) fn threads(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    without_annex(parameters)?;
    let with_process = context.session.client.knows_processes;
    let mut piece = Piece::new(context.reply, parameters)?;
    let written =
        write_threads(&mut piece, context.session.threads(context.target), context.target, with_process);
    written.map_err(|fmt::Error| Error::INVALID)?;
    piece.finish()
}

fn write_threads(
    piece: &mut Piece<'_, '_>,
    threads: impl Iterator<Item = crate::ThreadId>,
    target: &dyn crate::Target,
    with_process: bool,
) -> fmt::Result {
    piece.write_str("<?xml version=\"1.0\"?>\n<threads>\n")?;
    for id in threads {
        let name = Name { id, with_process };
        write!(piece, "<thread id=\"{name}\" core=\"{}\" name=\"", id.vcpu_index())?;
        target.thread_name(id, &mut Escaped(piece))?;
        piece.write_str("\">")?;
        target.thread_info(id, &mut Escaped(piece))?;
        piece.write_str("</thread>\n")?;
    }
    piece.write_str("</threads>\n")
}

/// All memory.
pub(crate) fn memory_map(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let map = context.target.memory_map().ok_or(Error::UNSUPPORTED)?;
    without_annex(parameters)?;
    let mut piece = Piece::new(context.reply, parameters)?;
    let written = (|| {
        piece.write_str("<?xml version=\"1.0\"?>\n<memory-map>\n")?;
        for region in (0..).map_while(|index| map.region(index)) {
            let kind = match region.kind {
                RegionKind::Ram => "ram",
                RegionKind::Rom => "rom",
                RegionKind::Flash { .. } => "flash",
            };
            write!(
                piece,
                "<memory type=\"{kind}\" start=\"{:#x}\" length=\"{:#x}\"",
                region.start, region.len
            )?;
            match region.kind {
                RegionKind::Flash { block_size } => {
                    writeln!(piece, "><property name=\"blocksize\">{block_size:#x}</property></memory>")?;
                }
                RegionKind::Ram | RegionKind::Rom => piece.write_str("/>\n")?,
            }
        }
        piece.write_str("</memory-map>\n")
    })();
    written.map_err(|fmt::Error| Error::INVALID)?;
    piece.finish()
}

/// The auxiliary vector of a program.
pub(crate) fn auxv(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let thread = context.session.thread()?;
    let program = context.target.program().ok_or(Error::UNSUPPORTED)?;
    let auxv = program.auxv(thread).ok_or(Error::UNSUPPORTED)?;
    without_annex(parameters)?;
    let mut piece = Piece::new(context.reply, parameters)?;
    piece.push(auxv);
    piece.finish()
}

/// The path of a program; the annex is its process, or empty for the current one.
pub(crate) fn exec_file(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let process = match parameters.bytes(0) {
        [] => context.session.thread()?.process,
        _ => parameters.small(0)?,
    };
    let program = context.target.program().ok_or(Error::UNSUPPORTED)?;
    if !context.session.is_attached(process) {
        return Err(Error::NO_DOCUMENT);
    }
    let path = program.exec_file(process).ok_or(Error::NO_DOCUMENT)?;
    let mut piece = Piece::new(context.reply, parameters)?;
    piece.push(path);
    piece.finish()
}

/// Any other document of a program.
fn document(context: &mut Context<'_, '_>, parameters: &Parameters<'_>, which: Document) -> Outcome {
    let thread = context.session.thread()?;
    let program = context.target.program().filter(|program| program.documents().contains(&which));
    let program = program.ok_or(Error::UNSUPPORTED)?;
    let annex = core::str::from_utf8(parameters.bytes(0)).map_err(|_| Error::NO_DOCUMENT)?;
    let document = program.document(thread, which, annex).ok_or(Error::NO_DOCUMENT)?;
    let mut piece = Piece::new(context.reply, parameters)?;
    piece.push(document);
    piece.finish()
}

/// Libraries, or modules of a kernel.
pub(crate) fn libraries(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    document(context, parameters, Document::Libraries)
}

/// Libraries as a dynamic linker lists them.
pub(crate) fn libraries_svr4(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    document(context, parameters, Document::LibrariesSvr4)
}

/// What the thread's signal came with.
pub(crate) fn siginfo(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    document(context, parameters, Document::Siginfo)
}

/// Tables of the system.
pub(crate) fn osdata(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    document(context, parameters, Document::Osdata)
}
