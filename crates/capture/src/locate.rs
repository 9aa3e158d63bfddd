//! From guest physical memory to addresses in QEMU's process, and on to what stands behind them.

use crate::backing::{Classifier, Piece};
use crate::error::CaptureError;
use crate::maps::{self, Vma};
use crate::mtree::{self, MemoryMap};
use crate::qmp::Qmp;
use vmcore_core::{Gpa, Region, RegionKind};

/// The most regions that are looked up before the guest is stopped; each takes a command.
const MAX_PREDICTED: usize = 1024;

/// Guest memory that is consecutive in QEMU's process as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) region: Region,
    /// Where its first byte lies in the process.
    pub(crate) hva: u64,
}

/// What QEMU's monitor says of its memory.
pub(crate) fn memory_map(qmp: &mut Qmp) -> Result<MemoryMap, CaptureError> {
    Ok(mtree::parse(&qmp.human("info mtree -f")?))
}

/// Looks up predicted regions. What has gone in the meantime is left out.
pub(crate) fn predict(qmp: &mut Qmp, map: &MemoryMap) -> Result<Vec<Located>, CaptureError> {
    let mut located = Vec::new();
    for region in map.regions.iter().take(MAX_PREDICTED) {
        if let Ok(hva) = hva_of(qmp, region.gpa)? {
            located.push(Located { region: *region, hva });
        }
    }
    Ok(located)
}

/// Finds the regions that a dump really has. Those that were predicted are taken as they are: a block of RAM does not move
/// in the process.
///
/// Each segment of a dump is consecutive in the process (`spec/live-capture.md` section 4.1), so a region that was not
/// predicted is looked up by its first byte, and its last byte proves it.
pub(crate) fn locate(
    qmp: &mut Qmp,
    regions: &[Region],
    predicted: &[Located],
) -> Result<Vec<Located>, CaptureError> {
    let mut found = Vec::new();
    for region in regions.iter().filter(|region| region.kind == RegionKind::Ram) {
        if let Some(known) = predicted.iter().find(|known| known.region == *region) {
            found.push(*known);
            continue;
        }
        match look_up(qmp, region)? {
            Ok(located) => found.push(located),
            Err(reason) => {
                let Region { gpa, len, .. } = *region;
                return Err(CaptureError::Map { gpa: gpa.0, len, reason });
            }
        }
    }
    Ok(found)
}

/// The region in the process, or why it cannot be found there.
fn look_up(qmp: &mut Qmp, region: &Region) -> Result<Result<Located, String>, CaptureError> {
    let first = match hva_of(qmp, region.gpa)? {
        Ok(hva) => hva,
        Err(said) => return Ok(Err(format!("cannot be found in QEMU's process: {said}"))),
    };
    let last = hva_of(qmp, Gpa(region.end().0 - 1))?;
    Ok(if last == Ok(first.wrapping_add(region.len - 1)) {
        Ok(Located { region: *region, hva: first })
    } else {
        Err("is not consecutive in QEMU's process".to_owned())
    })
}

fn hva_of(qmp: &mut Qmp, gpa: Gpa) -> Result<Result<u64, String>, CaptureError> {
    let text = qmp.human(&format!("gpa2hva {:#x}", gpa.0))?;
    Ok(mtree::parse_hva(&text).map_err(crate::error::clip))
}

/// What stands behind each region, cut at the borders of mappings.
pub(crate) fn pieces(
    located: &[Located],
    vmas: &[Vma],
    classifier: &mut Classifier<'_>,
) -> Result<Vec<Piece>, CaptureError> {
    let mut pieces = Vec::new();
    for Located { region, hva } in located {
        let parts = maps::cover(vmas, *hva, region.len).ok_or_else(|| CaptureError::NoProcess {
            reason: format!(
                "the process that was found has no memory at {hva:#x}, where QEMU keeps {}",
                region.gpa
            ),
        })?;
        for (vma, part) in parts {
            pieces.push(Piece {
                gpa: region.gpa.0 + (part.start - hva),
                offset: vma.offset.saturating_add(part.start - vma.range.start),
                hva: part,
                backing: classifier.classify(vma),
            });
        }
    }
    Ok(pieces)
}
