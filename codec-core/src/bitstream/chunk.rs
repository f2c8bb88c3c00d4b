use super::{CHUNK_HEAD, END_HEAD, Error, FLAG_CONTINUES, FLAG_GAP, Header, Layout, MAX_PAYLOAD, SEGMENT_HEAD, SYNC};
use super::{KIND_CODES, KIND_END, KIND_METADATA, KIND_SKIPPABLE, UNKNOWN};
use super::{array, bits, crc32c, get_u16, get_u32, get_u64};

/// Bytes of an entry of the seek table.
pub const SEEK_ENTRY_LEN: usize = 16;

/// A chunk that holds: its sync, kind, lengths, CRC, the structure of its payload and its codes are right.
#[derive(Clone, Copy)]
pub(super) struct Parsed<'a> {
    pub kind: u8,
    pub flags: u8,
    /// Modulo 2^32.
    pub first_frame: u32,
    pub frames: u16,
    pub payload: &'a [u8],
}

impl Parsed<'_> {
    pub fn len(&self) -> usize {
        CHUNK_HEAD + self.payload.len() + 4
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Where a chunk lies, for errors.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub index: u64,
    pub offset: u64,
    /// The frame that comes next.
    pub frame: u64,
}

/// The fixed fields of a chunk, which can be right; its CRC has not been looked at.
struct Head {
    kind: u8,
    flags: u8,
    first_frame: u32,
    frames: u16,
    payload: usize,
}

/// The bytes of the chunk at the front of `bytes`, if they are all there and its fields can be right.
pub(super) fn plausible_len(bytes: &[u8], header: &Header<'_>, place: Place) -> Option<usize> {
    let head = head(bytes, header, place).ok()?.ok()?;
    Some(CHUNK_HEAD + head.payload + 4).filter(|&len| len <= bytes.len())
}

/// Reads the fixed fields at the front of `bytes`; `Err(n)` inside if it takes `n` bytes to say more.
fn head(bytes: &[u8], header: &Header<'_>, place: Place) -> Result<Result<Head, usize>, Error> {
    let Place { index, offset, .. } = place;
    let bad = |name, value: usize| Err(Error::ChunkField { index, offset, name, value: value as u64 });
    if bytes.iter().zip(&SYNC).any(|(a, b)| a != b) {
        return Err(Error::Sync { index, offset });
    }
    let Some(head) = array::<CHUNK_HEAD>(bytes, 0) else { return Ok(Err(CHUNK_HEAD)) };
    let (kind, flags) = (head[2] & 0x0f, head[2] & 0xf0);
    let first_frame = u32::from_le_bytes([head[3], head[4], head[5], head[6]]);
    let frames = u16::from_le_bytes([head[7], head[8]]);
    let len = usize::from(u16::from_le_bytes([head[9], head[10]]));
    // What a length can be is checked before its CRC, so that a damaged one costs neither memory nor waiting.
    let known_flags = match kind {
        KIND_CODES => FLAG_GAP | FLAG_CONTINUES,
        KIND_END => FLAG_GAP,
        KIND_METADATA => 0,
        kind if kind >= KIND_SKIPPABLE => 0xf0,
        _ => return bad("kind", kind.into()),
    };
    if flags & !known_flags != 0 || (kind == KIND_CODES && flags & FLAG_CONTINUES != 0 && !header.segments) {
        return bad("flags", flags.into());
    }
    let frames_fit = if kind == KIND_CODES { (1..=header.chunk_frames).contains(&frames) } else { frames == 0 };
    if !frames_fit {
        return bad("number of frames", frames.into());
    }
    let len_fits = match kind {
        KIND_CODES if header.segments => {
            (SEGMENT_HEAD + header.layout.packed_len(frames.into())..=header.max_codes_payload()).contains(&len)
        }
        KIND_CODES => len == header.layout.packed_len(frames.into()),
        KIND_END => len >= END_HEAD && (len - END_HEAD).is_multiple_of(SEEK_ENTRY_LEN),
        _ => true,
    };
    if !len_fits {
        return bad("length", len);
    }
    Ok(Ok(Head { kind, flags, first_frame, frames, payload: len }))
}

/// Reads the chunk at the front of `bytes`; `Err(n)` inside if it takes `n` bytes to say more.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    header: &Header<'_>,
    place: Place,
) -> Result<Result<Parsed<'a>, usize>, Error> {
    let Place { index, offset, frame } = place;
    let field = |name, value: usize| Error::ChunkField { index, offset, name, value: value as u64 };
    let Head { kind, flags, first_frame, frames, payload } = match head(bytes, header, place)? {
        Ok(head) => head,
        Err(needed) => return Ok(Err(needed)),
    };
    let body = CHUNK_HEAD + payload;
    let Some(stored) = get_u32(bytes, body) else { return Ok(Err(body + 4)) };
    let Some(covered) = bytes.get(..body) else { return Ok(Err(body + 4)) };
    if crc32c(covered) != stored {
        return Err(Error::ChunkCrc { index, offset, first_frame: frame, frames });
    }
    let payload = covered.get(CHUNK_HEAD..).unwrap_or(&[]);
    match kind {
        KIND_CODES => {
            let segments = Segments {
                layout: header.layout,
                payload,
                frames,
                frame: frame.saturating_add(first_frame.wrapping_sub(frame as u32).into()),
                segmented: header.segments,
                continues: flags & FLAG_CONTINUES != 0,
            };
            check_segments(segments, field)?;
        }
        KIND_METADATA => {
            let mut entries = Metadata { rest: payload };
            if !entries.by_ref().all(|_| true) || !entries.rest.is_empty() {
                return Err(field("metadata length", payload.len()));
            }
        }
        _ => {}
    }
    Ok(Ok(Parsed { kind, flags, first_frame, frames, payload }))
}

fn check_segments(mut segments: Segments<'_>, bad: impl Fn(&'static str, usize) -> Error) -> Result<(), Error> {
    let bits = segments.layout.bits_per_frame();
    for segment in segments.by_ref() {
        if segment.scale.is_some_and(|scale| !scale.is_finite()) {
            return Err(bad("scale", segment.scale.unwrap_or(0.0).to_bits() as usize));
        }
        let used = segment.frames() * bits;
        let last = segment.bytes.last().copied().unwrap_or(0);
        if !used.is_multiple_of(8) && last << (used % 8) != 0 {
            return Err(bad("padding", last.into()));
        }
        bits::check_packed(&segment.layout, segment.bytes, segment.frames(), segment.first_frame)?;
    }
    if segments.frames != 0 || !segments.payload.is_empty() {
        return Err(bad("length of segments", segments.payload.len()));
    }
    Ok(())
}

/// Frames of codes that decode without any other chunk.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The chunk's number among all chunks read, from 0.
    pub index: u64,
    /// Where it begins, from the first byte of the header.
    pub offset: u64,
    /// Its first frame.
    pub first_frame: u64,
    pub(super) frames: u16,
    pub(super) continues: bool,
    pub(super) segmented: bool,
    pub(super) layout: Layout<'a>,
    pub(super) payload: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// Frames in the chunk, at least 1.
    pub fn frames(&self) -> usize {
        self.frames.into()
    }

    /// The codes of a frame.
    pub fn layout(&self) -> Layout<'a> {
        self.layout
    }

    /// The chunk's segments; without segments in the file, one for the whole chunk.
    pub fn segments(&self) -> Segments<'a> {
        Segments {
            layout: self.layout,
            payload: self.payload,
            frames: self.frames,
            frame: self.first_frame,
            segmented: self.segmented,
            continues: self.continues,
        }
    }
}

/// Iterator over the segments of a [`Chunk`].
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    layout: Layout<'a>,
    payload: &'a [u8],
    /// Frames still to come.
    frames: u16,
    /// The next one.
    frame: u64,
    segmented: bool,
    continues: bool,
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        if self.frames == 0 {
            return None;
        }
        let (frames, scale, head) = if self.segmented {
            let frames = get_u16(self.payload, 0).filter(|&n| n > 0)?;
            (frames, Some(f32::from_bits(get_u32(self.payload, 2)?)), SEGMENT_HEAD)
        } else {
            (self.frames, None, 0)
        };
        let left = self.frames.checked_sub(frames)?;
        let (bytes, rest) = self.payload.get(head..)?.split_at_checked(self.layout.packed_len(frames.into()))?;
        let (first_frame, continues) = (self.frame, self.continues);
        (self.frames, self.payload, self.continues) = (left, rest, false);
        self.frame = self.frame.saturating_add(frames.into());
        Some(Segment { first_frame, scale, continues, frames, layout: self.layout, bytes })
    }
}

/// Neighbouring frames under one scale.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Its first frame, from the start of the stream.
    pub first_frame: u64,
    /// The segment's scale; `None` in a file without segments.
    pub scale: Option<f32>,
    /// Whether this goes on with the segment that the chunk before ended with.
    pub continues: bool,
    frames: u16,
    layout: Layout<'a>,
    bytes: &'a [u8],
}

impl Segment<'_> {
    /// Frames, at least 1.
    pub fn frames(&self) -> usize {
        self.frames.into()
    }

    /// Unpacks frames from the segment's frame `start` on into `codes` `[frames, codes_per_frame]`: as many as are
    /// there and fit. Returns the number of frames. Every code is below its codebook's size.
    pub fn unpack(&self, start: usize, codes: &mut [u16]) -> usize {
        let per_frame = self.layout.codes_per_frame();
        let frames = self.frames().saturating_sub(start).min(codes.len() / per_frame);
        let codes = codes.get_mut(..frames * per_frame).unwrap_or(&mut []);
        let at = start.saturating_mul(self.layout.bits_per_frame());
        bits::unpack(&self.layout, self.bytes, at, codes);
        frames
    }
}

/// The entries of a metadata chunk: keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Iterator for Metadata<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (key_len, value_len) = (usize::from(*self.rest.first()?), usize::from(get_u16(self.rest, 1)?));
        let (key, rest) = self.rest.get(3..)?.split_at_checked(key_len)?;
        let (value, rest) = rest.split_at_checked(value_len)?;
        let key = core::str::from_utf8(key).ok().filter(|key| !key.is_empty())?;
        self.rest = rest;
        Some((key, value))
    }
}

impl Metadata<'_> {
    /// Bytes of one entry.
    pub(super) fn entry_len(key: &str, value: &[u8]) -> Result<usize, Error> {
        let len = 3_usize.saturating_add(key.len()).saturating_add(value.len());
        if !(1..=255).contains(&key.len()) {
            return Err(Error::Field { name: "length of a metadata key", value: key.len() as u64 });
        }
        if len > MAX_PAYLOAD {
            return Err(Error::Field { name: "length of a metadata value", value: value.len() as u64 });
        }
        Ok(len)
    }
}

/// Where a frame's chunk begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeekEntry {
    /// A chunk's first frame.
    pub frame: u64,
    /// Where the chunk begins, from the first byte of the header.
    pub offset: u64,
}

/// The seek table of an end chunk, ascending.
#[derive(Clone, Copy, Debug, Default)]
pub struct SeekTable<'a> {
    bytes: &'a [u8],
}

impl<'a> SeekTable<'a> {
    /// Entries.
    pub fn len(&self) -> usize {
        self.bytes.len() / SEEK_ENTRY_LEN
    }

    /// Whether there are none, as in a short file.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entry `index`.
    pub fn get(&self, index: usize) -> Option<SeekEntry> {
        let at = index.checked_mul(SEEK_ENTRY_LEN)?;
        Some(SeekEntry { frame: get_u64(self.bytes, at)?, offset: get_u64(self.bytes, at.checked_add(8)?)? })
    }

    /// The entries in order.
    pub fn entries(&self) -> impl Iterator<Item = SeekEntry> + use<'a> {
        let table = *self;
        (0..table.len()).filter_map(move |i| table.get(i))
    }

    /// The last entry that is not past `frame`; `None` if that is the first chunk.
    pub fn find(&self, frame: u64) -> Option<SeekEntry> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle)?.frame <= frame { low = middle + 1 } else { high = middle }
        }
        self.get(low.checked_sub(1)?)
    }
}

/// An end chunk's payload.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    pub samples: Option<u64>,
    pub frames: u64,
    pub seek: SeekTable<'a>,
}

impl<'a> End<'a> {
    /// Reads it, and checks the seek table against itself, the header's length and the end chunk's offset.
    pub fn parse(payload: &'a [u8], header_len: u64, end_offset: u64) -> Result<Self, Error> {
        let truncated = Error::Truncated { offset: end_offset, needed: END_HEAD, got: payload.len() };
        let samples = get_u64(payload, 0).ok_or(truncated)?;
        let frames = get_u64(payload, 8).ok_or(truncated)?;
        let seek = SeekTable { bytes: payload.get(END_HEAD..).ok_or(truncated)? };
        let mut last = SeekEntry { frame: 0, offset: header_len };
        for entry in seek.entries() {
            let ascends = entry.frame > last.frame && entry.offset > last.offset;
            if !ascends || entry.frame >= frames || entry.offset >= end_offset {
                return Err(Error::Seek { frame: entry.frame, offset: entry.offset });
            }
            last = entry;
        }
        Ok(Self { samples: (samples != UNKNOWN).then_some(samples), frames, seek })
    }
}
