//! What stands behind a piece of guest memory, and which of its bytes are known to be zero.
//!
//! The mapping in `/proc/PID/maps` decides, never QEMU's word on its backends (`spec/live-capture.md` section 5.1):
//!
//! | mapping | read from | zero without reading |
//! |---|---|---|
//! | private, no file | the process | pages that are not there |
//! | shared, tmpfs or memfd | the process where permitted (it is faster), else the file | holes of the file |
//! | shared, hugetlbfs | the file: a hole reads as zeros and takes no page from the pool | nothing is known |
//! | shared, file on a disk | the file | holes of the file |
//! | private, of a file | pages of its own: the process; others: the file | holes of the file |
//! | other, or its file cannot be opened | the process | nothing is known |
//!
//! Where the process may not be read but shared files may (Yama), the rest (ROM, video memory) is unreadable and said so.
//!
//! Reading a page that the guest never touched would make it exist, in the guest's page tables or even in memory. So
//! such pages are never read: neither to dump them nor to look at them.

use crate::maps::Vma;
use crate::pagemap::{Pagemap, Pages, page_size};
use crate::process::Process;
use rustix::fs::{Stat, fstat, fstatfs};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use vmcore_core::RunState;
use vmcore_core::read_at::file_run_at;

/// `f_type` of tmpfs, which memfds are on as well.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// `f_type` of hugetlbfs.
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

/// What stands behind a piece of guest memory.
#[derive(Clone, Debug)]
pub(crate) enum Backing {
    /// Memory of the process that nobody else has.
    Anonymous,
    /// A shared mapping of a file.
    Shared {
        /// The file.
        file: Arc<File>,
        /// Whether its holes are to be believed.
        has_holes: bool,
        /// Whether its data is read through the process.
        through_process: bool,
    },
    /// A private mapping of a file: the file's pages, but for those that the process has written to.
    CopyOnWrite {
        /// The file.
        file: Arc<File>,
    },
    /// Whatever it is, the process can read it.
    Other,
    /// We may not read it.
    Denied,
}

/// Where bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the process.
    Process,
    /// In the file.
    File,
    /// Nowhere: we may not.
    Nowhere,
}

/// Bytes that must be read: a range of addresses in the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) range: Range<u64>,
    pub(crate) place: Place,
}

/// Consecutive guest memory in one mapping of the process.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// Its first guest physical address.
    pub(crate) gpa: u64,
    /// Where it lies in the process.
    pub(crate) hva: Range<u64>,
    /// Where `hva.start` lies in the file, if there is one.
    pub(crate) offset: u64,
    /// What stands behind it.
    pub(crate) backing: Backing,
}

impl Piece {
    pub(crate) fn len(&self) -> u64 {
        self.hva.end - self.hva.start
    }

    fn file_offset(&self, hva: u64) -> u64 {
        self.offset.saturating_add(hva.saturating_sub(self.hva.start))
    }

    /// What must be read of the addresses `range`, which lie in the piece: in ascending order. The rest is zero.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn spans(&self, range: Range<u64>, pagemap: Option<&Pagemap>) -> io::Result<Vec<Span>> {
        let all = |place| vec![Span { range: range.clone(), place }];
        Ok(match (&self.backing, pagemap) {
            (Backing::Anonymous, Some(pagemap)) => {
                let used = pages_in(pagemap, &range, Pages::Used)?;
                used.into_iter().map(|range| Span { range, place: Place::Process }).collect()
            }
            (Backing::Shared { file, has_holes, through_process }, _) => {
                let place = if *through_process { Place::Process } else { Place::File };
                if *has_holes { self.data_spans(file, range, place) } else { all(place) }
            }
            (Backing::CopyOnWrite { file }, Some(pagemap)) => {
                let own = pages_in(pagemap, &range, Pages::Own)?;
                let mut spans = Vec::new();
                let mut at = range.start;
                for own in own {
                    spans.extend(self.data_spans(file, at..own.start, Place::File));
                    at = own.end;
                    spans.push(Span { range: own, place: Place::Process });
                }
                spans.extend(self.data_spans(file, at..range.end, Place::File));
                spans
            }
            (Backing::Anonymous | Backing::CopyOnWrite { .. } | Backing::Other, _) => all(Place::Process),
            (Backing::Denied, _) => all(Place::Nowhere),
        })
    }

    /// Where the file has data.
    fn data_spans(&self, file: &File, range: Range<u64>, place: Place) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let run = file_run_at(file, self.file_offset(at), range.end - at);
            // A run is never empty; a step of nothing would not end.
            let end = at + run.len.clamp(1, range.end - at);
            if run.state == RunState::Data {
                spans.push(Span { range: at..end, place });
            }
            at = end;
        }
        spans
    }

    /// Reads from the file behind the address `hva`; tells how many bytes there were.
    pub(crate) fn read_file(&self, hva: u64, buf: &mut [u8]) -> io::Result<usize> {
        let (Backing::Shared { file, .. } | Backing::CopyOnWrite { file }) = &self.backing else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let offset = self.file_offset(hva);
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(len) => done += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// Pages of the process, cut to `range`.
fn pages_in(pagemap: &Pagemap, range: &Range<u64>, pages: Pages) -> io::Result<Vec<Range<u64>>> {
    let page = page_size();
    let aligned = range.start / page * page..range.end.next_multiple_of(page);
    let mut found = pagemap.ranges(aligned, pages)?;
    for one in &mut found {
        *one = one.start.max(range.start)..one.end.min(range.end);
    }
    found.retain(|one| one.start < one.end);
    Ok(found)
}

/// Device and inode.
type FileId = ((u32, u32), u64);

/// Finds out what stands behind mappings of one process; opens each file once.
pub(crate) struct Classifier<'a> {
    process: &'a Process,
    /// Whether memory of the process may be read.
    can_read_process: bool,
    open_files: Vec<(String, Stat)>,
    opened: HashMap<FileId, Option<Arc<File>>>,
}

impl<'a> Classifier<'a> {
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn new(process: &'a Process, can_read_process: bool) -> io::Result<Self> {
        Ok(Self { process, can_read_process, open_files: process.files()?, opened: HashMap::new() })
    }

    /// What stands behind `vma`.
    pub(crate) fn classify(&mut self, vma: &Vma) -> Backing {
        let through_process = self.can_read_process;
        let or_denied = |backing| if through_process { backing } else { Backing::Denied };
        if vma.inode == 0 && !vma.is_shared {
            return or_denied(Backing::Anonymous);
        }
        let Some(file) = self.file_of(vma) else { return or_denied(Backing::Other) };
        if !vma.is_shared {
            return or_denied(Backing::CopyOnWrite { file });
        }
        let (is_tmpfs, is_huge) = fstatfs(&*file).map_or((false, false), |stat| {
            let kind = stat.f_type;
            (kind == TMPFS_MAGIC, kind == HUGETLBFS_MAGIC)
        });
        Backing::Shared { file, has_holes: !is_huge, through_process: is_tmpfs && through_process }
    }

    /// Opens the file of a mapping: through a descriptor of the process, which also works for files without a name; else
    /// through `map_files`, which takes more rights.
    fn file_of(&mut self, vma: &Vma) -> Option<Arc<File>> {
        let key = (vma.device, vma.inode);
        if let Some(file) = self.opened.get(&key) {
            return file.clone();
        }
        let is_it = |name: &str, stat: &Stat| {
            let device = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
            // btrfs shows another device in mappings than to `stat`; then the path must be the same.
            stat.st_ino == vma.inode
                && (device == vma.device || self.process.link(name).is_ok_and(|path| path == vma.path))
        };
        let by_descriptor = self.open_files.iter().filter(|(name, stat)| is_it(name, stat));
        let map_file = format!("map_files/{:x}-{:x}", vma.range.start, vma.range.end);
        let names = by_descriptor.map(|(name, _)| name.as_str()).chain([map_file.as_str()]);
        let file = names.filter_map(|name| self.process.open_file(name).ok()).find(|file| {
            // The descriptor may have changed since it was listed; and what cannot be read is of no use.
            let is_same = fstat(file).is_ok_and(|stat| stat.st_ino == vma.inode);
            is_same && file.read_at(&mut [0], vma.offset).is_ok()
        });
        let file = file.map(Arc::new);
        self.opened.insert(key, file.clone());
        file
    }
}
