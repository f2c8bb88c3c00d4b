//! Bit packing, checksums and the `.nac` container, as `docs/format.md` specifies it.
//!
//! Everything works on slices of the caller's and allocates nothing:
//!
//! * [`Writer`]: codes in, bytes out, chunk by chunk, in constant memory.
//! * [`Reader`]: bytes in, [`Event`]s out, in constant memory; stops at damage, or passes over it
//!   ([`Reader::salvage`]).
//! * [`Stream`]: the same events from a file that lies in memory.
//!
//! Codes are frame-major `[frames, codes_per_frame]` slices of `u16`.

mod bits;
mod chunk;
mod cursor;
mod error;
mod header;
mod layout;
mod reader;
mod writer;

pub use chunk::{Chunk, Metadata, SEEK_ENTRY_LEN, SeekEntry, SeekTable, Segment, Segments};
pub use cursor::{Event, Lost, Stream, Summary};
pub use error::Error;
pub use header::{Header, MAJOR, MAX_HEADER_LEN, MINOR, Method};
pub use layout::{CodeGroup, GROUP_LEN, Layout, MAX_CODES_PER_FRAME};
pub use reader::Reader;
pub use writer::{MAX_SEEK_ENTRIES, Writer};

/// The most bytes of a chunk: what is around the payload, and the longest payload.
pub const MAX_CHUNK_LEN: usize = CHUNK_OVERHEAD + MAX_PAYLOAD;
/// Bytes of a chunk that are not its payload.
pub const CHUNK_OVERHEAD: usize = CHUNK_HEAD + 4;
/// Bytes of the trailer.
pub const TRAILER_LEN: usize = 8;
/// A buffer of this many bytes lets [`Reader`] read any file.
pub const MAX_READER_BUFFER: usize = MAX_HEADER_LEN + MAX_CHUNK_LEN + TRAILER_LEN;

const MAX_PAYLOAD: usize = u16::MAX as usize;
const CHUNK_HEAD: usize = 11;
/// Frames and scale before a segment's codes.
const SEGMENT_HEAD: usize = 6;
/// Samples and frames before the seek table.
const END_HEAD: usize = 16;
const SYNC: [u8; 2] = [0xf3, 0x9d];
const TRAILER_MAGIC: [u8; 4] = *b"NACE";
/// A sample count that is not known.
const UNKNOWN: u64 = u64::MAX;
/// The longest run of frames between two chunks that their 32-bit positions tell apart.
const MAX_GAP: u32 = (1 << 31) - 1;

const KIND_CODES: u8 = 1;
const KIND_END: u8 = 2;
const KIND_METADATA: u8 = 8;
/// Kinds from here on may be skipped by those who do not know them.
const KIND_SKIPPABLE: u8 = 8;
const FLAG_GAP: u8 = 0x10;
const FLAG_CONTINUES: u8 = 0x20;

/// CRC-32C, by the processor's instruction where it has one: a large image is checked each time that it is opened.
#[cfg(feature = "std")]
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// CRC-32C by one table of 1 KiB.
#[cfg(not(feature = "std"))]
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    static CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
    CRC.checksum(bytes)
}

/// `N` bytes at `at`, if they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn get_u16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

pub(crate) fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn get_u64(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// Writes `value` at `at`; [`Error::Buffer`] if it does not fit.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Result<(), Error> {
    let got = bytes.len();
    let end = at.saturating_add(value.len());
    bytes.get_mut(at..end).ok_or(Error::Buffer { needed: end, got })?.copy_from_slice(value);
    Ok(())
}
