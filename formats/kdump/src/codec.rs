//! Compressing and expanding pages.

use crate::header::{DESCRIPTOR_LEN, Descriptor, Only, flag};
use crate::lzo;
use libdeflater::{CompressionLvl, Compressor, Decompressor};
use vmcore_core::{Compression, Endianness, Error, PageCodec, PagePacker, Record, StoredPage};

/// zlib's and zstd's fastest useful level: what makedumpfile and QEMU use too.
const FAST: i32 = 1;

/// The flag of a compression.
pub(crate) const fn flag_of(compression: Compression) -> u32 {
    match compression {
        Compression::None => 0,
        Compression::Zlib => flag::ZLIB,
        Compression::Lzo => flag::LZO,
        Compression::Snappy => flag::SNAPPY,
        Compression::Zstd => flag::ZSTD,
    }
}

/// How this dump stores its pages.
pub(crate) struct Codec {
    compression: Compression,
    level: i32,
    endianness: Endianness,
}

impl Codec {
    /// # Errors
    /// [`Error::Unsupported`] for a level that the compression does not have.
    pub(crate) fn new(
        compression: Compression,
        level: Option<i32>,
        endianness: Endianness,
    ) -> Result<Self, Error> {
        let levels = match compression {
            Compression::Zlib => 0..=12,
            Compression::Zstd => -7..=22,
            Compression::None | Compression::Lzo | Compression::Snappy => 1..=1,
        };
        let level = level.unwrap_or(FAST);
        if !levels.contains(&level) {
            return Err(Error::Unsupported {
                what: "this compression level",
                found: format!("{level}; {} has {} to {}", compression.name(), levels.start(), levels.end()),
            });
        }
        Ok(Self { compression, level, endianness })
    }
}

impl PageCodec for Codec {
    fn entry_len(&self) -> usize {
        DESCRIPTOR_LEN
    }

    fn entry(&self, page: Option<StoredPage>, table: &mut Vec<u8>) {
        let page = page.unwrap_or(StoredPage { offset: 0, len: 0, kind: 0 });
        let flags = u64::from(page.kind);
        let descriptor = Descriptor { offset: page.offset, size: page.len.into(), flags, page_flags: 0 };
        table.extend(descriptor.encode(Only::Form, self.endianness).unwrap_or_default());
    }

    fn packer(&self) -> Box<dyn PagePacker + '_> {
        match self.compression {
            Compression::None => Box::new(Store),
            Compression::Zlib => {
                let level = CompressionLvl::new(self.level).unwrap_or_default();
                Box::new(Packer { flag: flag::ZLIB, pack: Zlib(Compressor::new(level)) })
            }
            Compression::Lzo => Box::new(Packer { flag: flag::LZO, pack: lzo::Encoder::new() }),
            Compression::Snappy => Box::new(Packer {
                flag: flag::SNAPPY,
                pack: Snappy { encoder: snap::raw::Encoder::new(), buffer: Vec::new() },
            }),
            Compression::Zstd => match zstd::bulk::Compressor::new(self.level) {
                Ok(compressor) => Box::new(Packer { flag: flag::ZSTD, pack: Zstd(compressor) }),
                // It cannot be without memory; what is stored as it is can be read all the same.
                Err(_) => Box::new(Store),
            },
        }
    }
}

/// Stores pages as they are.
struct Store;

impl PagePacker for Store {
    fn pack(&mut self, page: &[u8], out: &mut Vec<u8>) -> Result<u32, Error> {
        out.extend_from_slice(page);
        Ok(0)
    }
}

/// A compressor of pages.
trait Pack {
    /// Compresses `page` into `out`, which is shorter than the page; `None` if it has no room.
    fn pack(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize>;
}

/// Stores pages compressed, and those that do not become smaller as they are.
struct Packer<P> {
    flag: u32,
    pack: P,
}

impl<P: Pack> PagePacker for Packer<P> {
    fn pack(&mut self, page: &[u8], out: &mut Vec<u8>) -> Result<u32, Error> {
        let start = out.len();
        out.resize(start + page.len() - 1, 0);
        if let Some(len) = self.pack.pack(page, &mut out[start..]) {
            out.truncate(start + len);
            return Ok(self.flag);
        }
        out.truncate(start);
        Store.pack(page, out)
    }
}

impl Pack for lzo::Encoder {
    fn pack(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        self.encode(page, out)
    }
}

struct Zlib(Compressor);

impl Pack for Zlib {
    fn pack(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        self.0.zlib_compress(page, out).ok()
    }
}

struct Zstd(zstd::bulk::Compressor<'static>);

impl Pack for Zstd {
    fn pack(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        self.0.compress_to_buffer(page, out).ok()
    }
}

struct Snappy {
    encoder: snap::raw::Encoder,
    /// The encoder wants room for the worst case.
    buffer: Vec<u8>,
}

impl Pack for Snappy {
    fn pack(&mut self, page: &[u8], out: &mut [u8]) -> Option<usize> {
        self.buffer.resize(snap::raw::max_compress_len(page.len()), 0);
        let len = self.encoder.compress(page, &mut self.buffer).ok()?;
        out.get_mut(..len)?.copy_from_slice(&self.buffer[..len]);
        Some(len)
    }
}

/// Expands pages, with buffers of its own.
pub(crate) struct Expander {
    zlib: Decompressor,
    snappy: snap::raw::Decoder,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Expander {
    pub(crate) fn new() -> Self {
        Self { zlib: Decompressor::new(), snappy: snap::raw::Decoder::new(), zstd: None }
    }

    /// Expands what is stored of a page so that it fills `page`. What it says of its own length counts for nothing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn expand(&mut self, flags: u64, stored: &[u8], page: &mut [u8]) -> Result<(), String> {
        let has = |flag: u32| flags & u64::from(flag) != 0;
        let len = if has(flag::ZLIB) {
            self.zlib.zlib_decompress(stored, page).map_err(|error| format!("zlib: {error}"))?
        } else if has(flag::LZO) {
            lzo::decode(stored, page).map_err(|error| format!("LZO: {error}"))?;
            page.len()
        } else if has(flag::SNAPPY) {
            self.snappy.decompress(stored, page).map_err(|error| format!("snappy: {error}"))?
        } else if has(flag::ZSTD) {
            let zstd = match &mut self.zstd {
                Some(zstd) => zstd,
                none => {
                    none.insert(zstd::bulk::Decompressor::new().map_err(|error| format!("zstd: {error}"))?)
                }
            };
            zstd.decompress_to_buffer(stored, page).map_err(|error| format!("zstd: {error}"))?
        } else if flags == 0 {
            let fits = stored.len() == page.len();
            if fits {
                page.copy_from_slice(stored);
            }
            stored.len()
        } else {
            return Err(format!("unknown compression {flags:#x}"));
        };
        if len == page.len() { Ok(()) } else { Err(format!("it has {len} bytes instead of {}", page.len())) }
    }
}
