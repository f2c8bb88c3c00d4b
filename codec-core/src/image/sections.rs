//! The container: a header, a table of sections, and the sections, each on a 64-byte boundary.

use super::{IMAGE_ALIGN, IMAGE_VERSION, ImageError};
use crate::bitstream::{crc32c, get_u32 as u32_at, get_u64 as u64_at};

pub(super) const MAGIC: [u8; 8] = *b"CODECIMG";
/// Magic, version, checksum of all that follows it, length, number of sections.
pub(super) const HEADER: usize = 32;
/// Kind, stride of its records, offset, length.
pub(super) const ENTRY: usize = 24;
/// Where the checksum lies, and where what it covers starts.
pub(super) const CHECKSUM: usize = 12;
pub(super) const COVERED: usize = 16;
/// More sections than there are kinds of is nonsense.
const MOST_SECTIONS: usize = 64;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Meta = 1,
    Spec = 2,
    #[cfg(feature = "alloc")]
    Plans = 3,
    Quantizer = 16,
    Spaces = 17,
    Chains = 18,
    Steps = 19,
    Sizes = 20,
    Tables = 21,
    EncoderHead = 32,
    EncoderOps = 33,
    EncoderPhases = 34,
    EncoderBuffers = 35,
    EncoderRooms = 36,
    EncoderWeights = 37,
    DecoderHead = 48,
    DecoderOps = 49,
    DecoderPhases = 50,
    DecoderBuffers = 51,
    DecoderRooms = 52,
    DecoderWeights = 53,
}

/// The sections of a network.
pub(super) struct Part {
    pub head: Kind,
    pub ops: Kind,
    pub phases: Kind,
    pub buffers: Kind,
    pub rooms: Kind,
    pub weights: Kind,
}

pub(super) const ENCODER: Part = Part {
    head: Kind::EncoderHead,
    ops: Kind::EncoderOps,
    phases: Kind::EncoderPhases,
    buffers: Kind::EncoderBuffers,
    rooms: Kind::EncoderRooms,
    weights: Kind::EncoderWeights,
};

pub(super) const DECODER: Part = Part {
    head: Kind::DecoderHead,
    ops: Kind::DecoderOps,
    phases: Kind::DecoderPhases,
    buffers: Kind::DecoderBuffers,
    rooms: Kind::DecoderRooms,
    weights: Kind::DecoderWeights,
};

/// A section's contents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    pub bytes: &'a [u8],
    /// Where they start in the image.
    #[cfg_attr(not(feature = "alloc"), allow(dead_code, reason = "for owners of images"))]
    pub offset: usize,
    /// Bytes of a record, in a table.
    pub stride: usize,
}

/// The checked bytes of an image.
#[derive(Clone, Copy)]
pub(super) struct Sections<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl core::fmt::Debug for Sections<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} sections, {} bytes", self.count, self.bytes.len())
    }
}

impl<'a> Sections<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        if cfg!(target_endian = "big") {
            return Err(ImageError::BigEndian);
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(ImageError::NotAnImage);
        }
        let got = bytes.len() as u64;
        let short = ImageError::Truncated { needed: HEADER as u64, got };
        let found = u32_at(bytes, 8).ok_or(short)?;
        if found != IMAGE_VERSION {
            return Err(ImageError::Version { found });
        }
        let needed = u64_at(bytes, 16).ok_or(short)?;
        let count = u32_at(bytes, 24).ok_or(short)? as usize;
        let truncated = ImageError::Truncated { needed, got };
        let bytes = usize::try_from(needed).ok().and_then(|len| bytes.get(..len)).ok_or(truncated)?;
        if bytes.as_ptr().align_offset(IMAGE_ALIGN) != 0 {
            return Err(ImageError::Misaligned { align: IMAGE_ALIGN });
        }
        let covered = bytes.get(COVERED..).ok_or(short)?;
        if u32_at(bytes, CHECKSUM) != Some(crc32c(covered)) {
            return Err(ImageError::Damaged);
        }
        if count > MOST_SECTIONS || bytes.len() < HEADER + count * ENTRY {
            return Err(ImageError::Inconsistent("sections"));
        }
        let sections = Self { bytes, count };
        if sections.entries().any(|(_, section)| section.is_none()) {
            return Err(ImageError::Inconsistent("sections"));
        }
        Ok(sections)
    }

    fn entries(&self) -> impl Iterator<Item = (u32, Option<Section<'a>>)> + '_ {
        (0..self.count).map(|i| {
            let at = HEADER + i * ENTRY;
            let read = || {
                let stride = usize::try_from(u32_at(self.bytes, at + 4)?).ok()?;
                let offset = usize::try_from(u64_at(self.bytes, at + 8)?).ok()?;
                let len = usize::try_from(u64_at(self.bytes, at + 16)?).ok()?;
                let bytes = self.bytes.get(offset..)?.get(..len)?;
                Some(Section { bytes, offset, stride })
            };
            (u32_at(self.bytes, at).unwrap_or(0), read())
        })
    }

    pub(super) fn find(&self, kind: Kind) -> Option<Section<'a>> {
        self.entries().find(|(k, _)| *k == kind as u32)?.1
    }

    pub(super) fn get(&self, kind: Kind) -> Result<Section<'a>, ImageError> {
        self.find(kind).ok_or(ImageError::Inconsistent("sections"))
    }

    /// A section that holds one value.
    pub(super) fn value<T: serde::Deserialize<'a>>(&self, kind: Kind) -> Result<T, ImageError> {
        postcard::from_bytes(self.get(kind)?.bytes).map_err(|_| ImageError::Inconsistent("values"))
    }

    /// A section of 32-bit values, where they lie.
    pub(super) fn values<T: bytemuck::Pod>(&self, kind: Kind) -> Result<&'a [T], ImageError> {
        bytemuck::try_cast_slice(self.get(kind)?.bytes).map_err(|_| ImageError::Inconsistent("alignment"))
    }
}
