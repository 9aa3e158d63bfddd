//! Files: the client's for the target (`F`), the target's for the client (`vFile`).
//!
//! Source: `spec/gdb-rsp.md` section 7.1; gdb manual, "Host I/O Packets" and "The F Reply Packet".

use crate::dispatch::{Answer, Context, Outcome};
use crate::error::Error;
use crate::session::Run;
use crate::table::Parameters;
use crate::target::{Errno, FileResult, HostIo, Stat};
use crate::wire;

/// `FVALUE[,ERRNO[,C]]`: the file operation that the target asked for is done, the target goes on. `C` says that the
/// user has interrupted it.
pub(crate) fn completed(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    if context.session.run != Run::FileCall {
        return Err(Error::INVALID);
    }
    let text = parameters.bytes(0);
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let value = wire::number(digits).and_then(|value| i64::try_from(value).ok()).ok_or(Error::INVALID)?;
    let value = if digits.len() < text.len() { -value } else { value };
    let errno = match parameters.bytes(1) {
        [] => 0,
        _ => parameters.small(1)?,
    };
    let is_interrupted = match parameters.get(2) {
        None => false,
        Some(b"C") => true,
        Some(_) => return Err(Error::INVALID),
    };
    let files = context.target.file_io().ok_or(Error::INVALID)?;
    files.completed(FileResult { value, errno })?;
    context.session.run = Run::Running;
    if is_interrupted | core::mem::take(&mut context.session.is_interrupted) {
        context.session.interrupt(context.target);
    }
    Ok(Answer::Later)
}

fn files<'c>(context: &'c mut Context<'_, '_>) -> Result<&'c mut dyn HostIo, Error> {
    context.target.host_io().ok_or(Error::UNSUPPORTED)
}

/// Writes `F` and a number, or `F-1` and why not.
fn answer(context: &mut Context<'_, '_>, result: Result<u64, Errno>) -> Outcome {
    match result {
        Ok(number) => context.reply.format(format_args!("F{number:x}")),
        Err(errno) => context.reply.format(format_args!("F-1,{errno:x}")),
    }
    Ok(Answer::Reply)
}

/// Writes `F`, how many bytes `read` gives, `;` and the bytes: as many as fit.
fn answer_bytes(
    context: &mut Context<'_, '_>,
    count: usize,
    read: impl FnOnce(&mut dyn HostIo, &mut [u8]) -> Result<usize, Errno>,
) -> Outcome {
    let files = context.target.host_io().ok_or(Error::UNSUPPORTED)?;
    // The number goes before the bytes, and is known after them: it has as many digits as it may need.
    context.reply.text("F0000000;");
    let mut failure = None;
    let count = context.reply.escaped_from(count.min(LONGEST_READ), |buf| {
        read(files, buf).map_err(|errno| {
            failure = Some(errno);
            Error::FAULT
        })
    });
    match (failure, count) {
        (Some(errno), _) => {
            context.reply.truncate(0);
            answer(context, Err(errno))
        }
        (None, count) => {
            context.reply.set_number(1, 7, count?);
            Ok(Answer::Reply)
        }
    }
}

/// The longest read of a file that is answered, so that seven digits count its bytes.
const LONGEST_READ: usize = 0xfff_ffff;

/// The path in a parameter, decoded.
fn path<'b>(parameters: &Parameters<'_>, buf: &'b mut [u8; LONGEST_PATH]) -> Result<&'b [u8], Error> {
    wire::unhex(parameters.bytes(0), buf).map(|path| &*path).ok_or(Error::INVALID)
}

/// Linux' longest path.
const LONGEST_PATH: usize = 4096;

/// `vFile:setfs:PROCESS`: whose files these are. There is one file system only.
pub(crate) fn set_fs(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    files(context)?;
    parameters.number(0)?;
    answer(context, Ok(0))
}

/// `vFile:open:PATH,FLAGS,MODE`
pub(crate) fn open(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (flags, mode) = (parameters.small(1)?, parameters.small(2)?);
    let mut buf = [0; LONGEST_PATH];
    let fd = files(context)?.open(path(parameters, &mut buf)?, flags, mode);
    answer(context, fd.map(u64::from))
}

/// `vFile:close:FD`
pub(crate) fn close(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let closed = files(context)?.close(parameters.small(0)?);
    answer(context, closed.map(|()| 0))
}

/// `vFile:pread:FD,COUNT,OFFSET`
pub(crate) fn pread(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (fd, offset) = (parameters.small(0)?, parameters.number(2)?);
    let count = usize::try_from(parameters.number(1)?).unwrap_or(usize::MAX);
    answer_bytes(context, count, |files, buf| files.pread(fd, offset, buf))
}

/// `vFile:pwrite:FD,OFFSET,BYTES`
pub(crate) fn pwrite(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (fd, offset) = (parameters.small(0)?, parameters.number(1)?);
    let count = files(context)?.pwrite(fd, offset, parameters.bytes(2));
    answer(context, count.map(|count| count as u64))
}

/// `vFile:fstat:FD`
pub(crate) fn fstat(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let stat = files(context)?.fstat(parameters.small(0)?);
    answer_stat(context, stat)
}

/// `vFile:stat:PATH`
pub(crate) fn stat(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let mut buf = [0; LONGEST_PATH];
    let stat = files(context)?.stat(path(parameters, &mut buf)?);
    answer_stat(context, stat)
}

/// Writes 64 bytes, numbers with the most significant byte first.
fn answer_stat(context: &mut Context<'_, '_>, stat: Result<Stat, Errno>) -> Outcome {
    let stat = match stat {
        Ok(stat) => stat,
        Err(errno) => return answer(context, Err(errno)),
    };
    // dev ino mode nlink uid gid rdev, then in 64 bits size blksize blocks, then atime mtime ctime.
    let mut bytes = [0; 64];
    bytes[8..12].copy_from_slice(&stat.mode.to_be_bytes());
    bytes[12..16].copy_from_slice(&1u32.to_be_bytes());
    bytes[28..36].copy_from_slice(&stat.len.to_be_bytes());
    bytes[36..44].copy_from_slice(&512u64.to_be_bytes());
    bytes[44..52].copy_from_slice(&stat.len.div_ceil(512).to_be_bytes());
    for time in bytes[52..].as_chunks_mut::<4>().0 {
        *time = stat.modified.to_be_bytes();
    }
    context.reply.text("F40;");
    context.reply.escaped_from(bytes.len(), |buf| {
        let room = buf.get_mut(..bytes.len()).ok_or(Error::NO_ROOM)?;
        room.copy_from_slice(&bytes);
        Ok(bytes.len())
    })?;
    Ok(Answer::Reply)
}

/// `vFile:unlink:PATH`
pub(crate) fn unlink(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let mut buf = [0; LONGEST_PATH];
    let removed = files(context)?.unlink(path(parameters, &mut buf)?);
    answer(context, removed.map(|()| 0))
}

/// `vFile:readlink:PATH`
pub(crate) fn readlink(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let mut buf = [0; LONGEST_PATH];
    let path = path(parameters, &mut buf)?;
    answer_bytes(context, LONGEST_PATH, |files, buf| files.readlink(path, buf))
}
