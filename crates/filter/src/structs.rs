//! The `struct page`s of one block, in bulk: in place or copied, with what could not be read marked.

use crate::fields::{Fields, Page, Second};
use crate::walk::{Span, Walker, push_merged_or_new};
use std::ops::Range;
use vmcore_core::pages::push_merged;
use vmcore_core::{Error, Gva, PhysMemory};

/// The structs of consecutive page frames.
#[derive(Debug)]
pub(crate) struct Structs<'a> {
    fields: &'a Fields,
    /// The page frames.
    frames: Range<u64>,
    /// Where the struct of the first lies.
    gva: Gva,
    bytes: &'a [u8],
    /// Page frames whose structs could not be read: ascending, merged.
    holes: Vec<Range<u64>>,
}

impl<'a> Structs<'a> {
    /// Reads the structs of `frames`, which begin at `gva`, from `memory`; into `buffer` if they are not there in one piece.
    /// The guest physical addresses that they lie at are added to `seen`.
    ///
    /// # Errors
    /// Those of a source that is gone.
    pub(crate) fn read(
        walker: &Walker<'_>,
        memory: &'a dyn PhysMemory,
        fields: &'a Fields,
        (frames, gva): (Range<u64>, Gva),
        buffer: &'a mut Vec<u8>,
        seen: &mut Vec<Range<u64>>,
    ) -> Result<Self, Error> {
        let struct_len = fields.len as u64;
        let len = (frames.end - frames.start).saturating_mul(struct_len);
        let spans = walker.spans(gva, len)?;
        for span in &spans {
            if let Some(gpa) = span.gpa {
                push_merged_or_new(seen, gpa.0..gpa.0.saturating_add(span.len));
            }
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if let [Span { gpa: Some(gpa), .. }] = spans[..]
            && let Some(bytes) = memory.slice(gpa, len)
        {
            return Ok(Self { fields, frames, gva, bytes, holes: Vec::new() });
        }
        if buffer.len() < len {
            // Fresh memory is zero already: it need not be written to be read into.
            *buffer = vec![0; len];
        }
        buffer.truncate(len);
        // In bytes from the first struct.
        let mut missing: Vec<Range<u64>> = Vec::new();
        let mut rest = &mut buffer[..];
        for span in spans {
            let (part, after) = rest.split_at_mut(usize::try_from(span.len).unwrap_or(rest.len()));
            rest = after;
            let Some(gpa) = span.gpa else {
                push_merged(&mut missing, span.offset..span.offset + span.len);
                continue;
            };
            for range in memory.read_at(gpa, part)?.ranges() {
                let start = span.offset + (range.start - gpa.0);
                push_merged(&mut missing, start..start + (range.end - range.start));
            }
        }
        let mut holes = Vec::new();
        for range in missing {
            let (start, end) = (range.start / struct_len, range.end.div_ceil(struct_len));
            push_merged(&mut holes, frames.start + start..frames.start + end);
        }
        Ok(Self { fields, frames, gva, bytes: buffer, holes })
    }

    /// Where the fields of each lie.
    pub(crate) fn fields(&self) -> &Fields {
        self.fields
    }

    /// The page frames.
    pub(crate) fn frames(&self) -> &Range<u64> {
        &self.frames
    }

    /// The bytes of the struct of page `pfn`, if they could be read.
    #[inline]
    pub(crate) fn bytes(&self, pfn: u64) -> Option<&[u8]> {
        if !self.frames.contains(&pfn) || (!self.holes.is_empty() && self.is_hole(pfn)) {
            return None;
        }
        let start = usize::try_from(pfn - self.frames.start).ok()? * self.fields.len;
        self.bytes.get(start..)?.get(..self.fields.len)
    }

    /// What page `pfn` is.
    #[inline]
    pub(crate) fn page(&self, pfn: u64) -> Option<Page> {
        Some(self.fields.page(self.bytes(pfn)?))
    }

    /// What page `pfn` says of the compound page that it is the second of.
    pub(crate) fn second(&self, pfn: u64) -> Option<Second> {
        Some(self.fields.second(self.bytes(pfn)?))
    }

    /// Where the struct of page `pfn` lies.
    pub(crate) fn gva_of(&self, pfn: u64) -> u64 {
        self.gva.0.wrapping_add(pfn.wrapping_sub(self.frames.start).wrapping_mul(self.fields.len as u64))
    }

    fn is_hole(&self, pfn: u64) -> bool {
        let next = self.holes.partition_point(|hole| hole.end <= pfn);
        self.holes.get(next).is_some_and(|hole| hole.contains(&pfn))
    }
}
