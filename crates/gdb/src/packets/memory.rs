//! Memory, as the current thread sees it or physical.

use crate::dispatch::{Answer, Context, Outcome};
use crate::error::Error;
use crate::session::Session;
use crate::table::Parameters;
use crate::target::Target;
use crate::wire;

/// Reads in the address space of the session.
fn read_at(session: &Session, target: &mut dyn Target, address: u64, buf: &mut [u8]) -> Result<usize, Error> {
    // No read passes the end of the address space.
    let last = usize::try_from(u64::MAX - address).unwrap_or(usize::MAX);
    let len = buf.len().min(last.saturating_add(1));
    let buf = &mut buf[..len];
    if buf.is_empty() {
        return Ok(0);
    }
    let thread = session.thread()?;
    let count = match target.physical_memory().filter(|_| session.is_physical) {
        Some(memory) => memory.read(address, buf),
        None => target.read_memory(thread, address, buf),
    }?;
    if count == 0 { Err(Error::FAULT) } else { Ok(count.min(buf.len())) }
}

/// Writes in the address space of the session: `bytes` has to have the length that the packet says.
fn write_at(session: &Session, target: &mut dyn Target, address: u64, len: u64, bytes: &[u8]) -> Outcome {
    let thread = session.thread()?;
    if u64::try_from(bytes.len()) != Ok(len) || len == 0 {
        return Err(Error::INVALID);
    }
    address.checked_add(len - 1).ok_or(Error::FAULT)?;
    match target.physical_memory().filter(|_| session.is_physical) {
        Some(memory) => memory.write(address, bytes),
        None => target.write_memory(thread, address, bytes),
    }?;
    Ok(Answer::Ok)
}

/// A length; one that no memory has is as good as the longest.
fn length(parameters: &Parameters<'_>, index: usize) -> Result<usize, Error> {
    Ok(usize::try_from(parameters.number(index)?).unwrap_or(usize::MAX))
}

/// `mADDRESS,LENGTH`: digits of as much as can be read and as fits, from the first byte on.
pub(crate) fn read(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (address, len) = (parameters.number(0)?, length(parameters, 1)?);
    let (session, target) = (&*context.session, &mut *context.target);
    context.reply.hex_from(len, |buf| read_at(session, target, address, buf))?;
    Ok(Answer::Reply)
}

/// `xADDRESS,LENGTH`: as `m`, the bytes themselves.
pub(crate) fn read_binary(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (address, len) = (parameters.number(0)?, length(parameters, 1)?);
    let (session, target) = (&*context.session, &mut *context.target);
    // An older LLDB asks `x0,0` and takes `OK` for a form without this letter; ours is gdb's.
    context.reply.text("b");
    context.reply.escaped_from(len, |buf| read_at(session, target, address, buf))?;
    Ok(Answer::Reply)
}

/// `MADDRESS,LENGTH:DIGITS`
pub(crate) fn write(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (address, len) = (parameters.number(0)?, parameters.number(1)?);
    let bytes = wire::unhex(parameters.bytes(2), context.reply.scratch()).ok_or(Error::INVALID)?;
    write_at(context.session, context.target, address, len, bytes)
}

/// `XADDRESS,LENGTH:BYTES`. A client that writes no byte asks whether there is such a packet.
pub(crate) fn write_binary(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (address, len) = (parameters.number(0)?, parameters.number(1)?);
    match (len, parameters.bytes(2)) {
        (0, []) => Ok(Answer::Ok),
        (_, bytes) => write_at(context.session, context.target, address, len, bytes),
    }
}

/// `vFlashErase:ADDRESS,LENGTH`
pub(crate) fn erase_flash(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (address, len) = (parameters.number(0)?, parameters.number(1)?);
    let flash = context.target.flash().ok_or(Error::UNSUPPORTED)?;
    if len == 0 || address.checked_add(len - 1).is_none() {
        return Err(Error::INVALID);
    }
    flash.erase_flash(address, len)?;
    Ok(Answer::Ok)
}

/// `vFlashWrite:ADDRESS:BYTES`
pub(crate) fn write_flash(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (address, bytes) = (parameters.number(0)?, parameters.bytes(1));
    let flash = context.target.flash().ok_or(Error::UNSUPPORTED)?;
    if bytes.is_empty() || address.checked_add(bytes.len() as u64 - 1).is_none() {
        return Err(Error::INVALID);
    }
    flash.write_flash(address, bytes)?;
    Ok(Answer::Ok)
}

/// `vFlashDone`
pub(crate) fn finish_flash(context: &mut Context<'_, '_>, _: &Parameters<'_>) -> Outcome {
    context.target.flash().ok_or(Error::UNSUPPORTED)?.finish_flash()?;
    Ok(Answer::Ok)
}

/// `qCRC:ADDRESS,LENGTH`: polynomial 0x04c11db7, most significant bit first, from all ones, not inverted.
pub(crate) fn crc(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (mut address, mut left) = (parameters.number(0)?, parameters.number(1)?);
    if left > 0 && address.checked_add(left - 1).is_none() {
        return Err(Error::FAULT);
    }
    let mut crc = u32::MAX;
    while left > 0 {
        let block = context.reply.scratch();
        let len = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
        let count = read_at(context.session, context.target, address, &mut block[..len])?;
        for byte in &block[..count] {
            crc = crc << 8 ^ CRC[usize::from(crc.to_be_bytes()[0] ^ byte)];
        }
        let count = count as u64;
        (address, left) = (address.wrapping_add(count), left - count);
    }
    context.reply.format(format_args!("C{crc:x}"));
    Ok(Answer::Reply)
}

/// What a byte adds to the checksum.
static CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0u32;
    while byte < 256 {
        let (mut crc, mut bit) = (byte << 24, 0);
        while bit < 8 {
            crc = if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
};

/// `qSearch:memory:ADDRESS;LENGTH;PATTERN`: where the pattern stands first. Memory that cannot be read ends the
/// search with an error, for what is behind it is not known.
pub(crate) fn search(context: &mut Context<'_, '_>, parameters: &Parameters<'_>) -> Outcome {
    let (mut address, mut left) = (parameters.number(0)?, parameters.number(1)?);
    let pattern = parameters.bytes(2);
    if pattern.is_empty() {
        return Err(Error::INVALID);
    }
    let pattern_len = pattern.len() as u64;
    let wanted = Rolling::of(pattern);
    let block = context.reply.scratch();
    // The last bytes of a block, too few for a pattern, are the first of the next one.
    let mut kept = 0;
    if block.len() < 2 * pattern.len() {
        return Err(Error::NO_ROOM);
    }
    while kept as u64 + left >= pattern_len {
        let room = &mut block[kept..];
        let len = usize::try_from(left).map_or(room.len(), |left| left.min(room.len()));
        let count = read_at(context.session, context.target, address, &mut room[..len])?;
        let filled = kept + count;
        if let Some(place) = wanted.find(pattern, &block[..filled]) {
            let found = address.wrapping_sub(kept as u64).wrapping_add(place as u64);
            context.reply.format(format_args!("1,{found:x}"));
            return Ok(Answer::Reply);
        }
        (address, left) = (address.wrapping_add(count as u64), left - count as u64);
        kept = filled.min(pattern.len() - 1);
        block.copy_within(filled - kept..filled, 0);
    }
    context.reply.text("0");
    Ok(Answer::Reply)
}

/// A sum over as many bytes as a pattern has, which rolls on by a byte in constant time: a pattern of any length
/// is searched in one pass.
struct Rolling {
    sum: u64,
    /// What the first byte of the window counts.
    first: u64,
}

impl Rolling {
    /// Any odd number does; this one spreads bits well.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    fn add(sum: u64, byte: u8) -> u64 {
        sum.wrapping_mul(Self::FACTOR).wrapping_add(u64::from(byte) + 1)
    }

    fn of(pattern: &[u8]) -> Self {
        let sum = pattern.iter().fold(0, |sum, byte| Self::add(sum, *byte));
        let first = pattern[1..].iter().fold(1u64, |first, _| first.wrapping_mul(Self::FACTOR));
        Self { sum, first }
    }

    fn find(&self, pattern: &[u8], bytes: &[u8]) -> Option<usize> {
        let window = bytes.get(..pattern.len())?;
        let mut sum = window.iter().fold(0, |sum, byte| Self::add(sum, *byte));
        let mut place = 0;
        loop {
            if sum == self.sum && bytes[place..].starts_with(pattern) {
                return Some(place);
            }
            let next = *bytes.get(place + pattern.len())?;
            let gone = (u64::from(bytes[place]) + 1).wrapping_mul(self.first);
            sum = Self::add(sum.wrapping_sub(gone), next);
            place += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_pattern_is_found_where_it_stands(
            bytes in proptest::collection::vec(0..3u8, 0..60),
            pattern in proptest::collection::vec(0..3u8, 1..5),
        ) {
            let expected = bytes.windows(pattern.len()).position(|window| window == pattern);
            prop_assert_eq!(Rolling::of(&pattern).find(&pattern, &bytes), expected);
        }
    }
}
