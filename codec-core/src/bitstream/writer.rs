use core::ops::Range;

use super::{CHUNK_HEAD, CHUNK_OVERHEAD, END_HEAD, FLAG_CONTINUES, FLAG_GAP, MAX_GAP, MAX_PAYLOAD};
use super::{
    Error, Header, Metadata, SEEK_ENTRY_LEN, SEGMENT_HEAD, SYNC, SeekEntry, TRAILER_LEN, TRAILER_MAGIC, UNKNOWN,
};
use super::{KIND_CODES, KIND_END, KIND_METADATA};
use super::{array, bits, crc32c, put};

/// Entries after which the seek table is thinned out rather than grown.
pub const MAX_SEEK_ENTRIES: usize = 1024;
/// Codes chunks between two entries, at first.
const SEEK_INTERVAL: u64 = 16;

/// Writes a stream chunk by chunk, in a buffer of fixed size.
///
/// Every call returns the bytes that it completed, often none, which the caller writes out before the next call.
///
/// ```
/// use codec_core::bitstream::{CodeGroup, Error, GROUP_LEN, Header, Layout, Method, Writer};
///
/// fn write(codes: &[u16], samples: u64, out: &mut Vec<u8>) -> Result<(), Error> {
///     let mut storage = [0; GROUP_LEN];
///     let layout = Layout::new(&[CodeGroup::single_rate(8, 1024)], &mut storage)?;
///     let header = Header {
///         fingerprint: [7; 16],
///         sample_rate: 24000,
///         channels: 1,
///         hop: 320,
///         samples: Some(samples),
///         method: Method::Raw,
///         segments: false,
///         chunk_frames: Header::default_chunk_frames(24000, 320, false, &layout),
///         layout,
///     };
///     let mut writer = Writer::new(&header, vec![0; Writer::<Vec<u8>>::buffer_len(&header, 64)])?;
///     out.extend_from_slice(writer.header_bytes());
///     let mut rest = codes;
///     while !rest.is_empty() {
///         let (frames, bytes) = writer.push(rest)?;
///         out.extend_from_slice(bytes);
///         rest = &rest[frames * layout.codes_per_frame()..];
///     }
///     out.extend_from_slice(writer.finish(Some(samples))?);
///     Ok(())
/// }
/// # let mut out = Vec::new();
/// # write(&[5; 8 * 75 * 10], 240_000, &mut out).unwrap();
/// # assert_eq!(out.len(), 66 + 5 * 15 + 750 * 10 + 39);
/// ```
#[derive(Clone, Debug)]
pub struct Writer<B> {
    /// Header, then room for a chunk, then the end chunk in the making: the seek table lies where it will be written.
    buffer: B,
    header_len: usize,
    end_at: usize,
    max_entries: usize,
    max_payload: usize,
    max_frames: usize,
    segments: bool,
    per_frame: usize,
    bits_per_frame: usize,

    /// Bytes given out.
    offset: u64,
    /// Frames, those in the open chunk included.
    frame: u64,
    codes_chunks: u64,
    seek_entries: usize,
    seek_interval: u64,
    /// Frames lost since the last chunk.
    gap: u32,
    finished: bool,
    /// The open chunk.
    frames: usize,
    payload: usize,
    continues: bool,
    segment: Option<OpenSegment>,
}

#[derive(Clone, Copy, Debug)]
struct OpenSegment {
    scale: f32,
    /// Frames in all chunks, and in this one.
    frames: usize,
    here: usize,
    /// Where it begins in this chunk's payload.
    at: usize,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Writer<B> {
    /// Bytes of a buffer for this header, with room for `seek_entries` entries of the seek table: 0 on a device without
    /// need for one, at most [`MAX_SEEK_ENTRIES`]. Bytes beyond that make room for [`Writer::metadata`] that is
    /// longer than a codes chunk.
    pub fn buffer_len(header: &Header<'_>, seek_entries: usize) -> usize {
        let table = seek_entries.min(MAX_SEEK_ENTRIES) * SEEK_ENTRY_LEN;
        let chunk = header.max_codes_payload() + CHUNK_OVERHEAD;
        header.len() + chunk + END_HEAD + table + CHUNK_OVERHEAD + TRAILER_LEN
    }

    /// Begins a stream. Write [`Writer::header_bytes`] first.
    ///
    /// # Errors
    /// Those of [`Header::write`]; [`Error::Buffer`] if the buffer is shorter than [`Writer::buffer_len`] with no
    /// entries.
    pub fn new(header: &Header<'_>, mut buffer: B) -> Result<Self, Error> {
        let (needed, bytes) = (Self::buffer_len(header, 0), buffer.as_mut());
        let Some(extra) = bytes.len().checked_sub(needed) else {
            return Err(Error::Buffer { needed, got: bytes.len() });
        };
        let header_len = header.write(bytes)?;
        let max_entries = (extra / SEEK_ENTRY_LEN).min(MAX_SEEK_ENTRIES);
        let end_len = CHUNK_OVERHEAD + END_HEAD + max_entries * SEEK_ENTRY_LEN + TRAILER_LEN;
        let end_at = bytes.len() - end_len;
        let max_payload = header.max_codes_payload();
        let max_frames = usize::from(header.chunk_frames);
        Ok(Self {
            buffer,
            header_len,
            end_at,
            max_entries,
            max_payload,
            max_frames,
            segments: header.segments,
            per_frame: header.layout.codes_per_frame(),
            bits_per_frame: header.layout.bits_per_frame(),
            offset: header_len as u64,
            frame: 0,
            codes_chunks: 0,
            seek_entries: 0,
            seek_interval: SEEK_INTERVAL,
            gap: 0,
            finished: false,
            frames: 0,
            payload: 0,
            continues: false,
            segment: None,
        })
    }

    /// The header's bytes, which begin the stream.
    pub fn header_bytes(&self) -> &[u8] {
        self.buffer.as_ref().get(..self.header_len).unwrap_or(&[])
    }

    /// The header.
    ///
    /// # Errors
    /// None that [`Writer::new`] has not met.
    pub fn header(&self) -> Result<Header<'_>, Error> {
        Header::parse_fields(self.header_bytes())
    }

    /// Bytes so far, the header's included.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Frames so far.
    pub fn frames(&self) -> u64 {
        self.frame
    }

    /// Takes frames from the front of `codes` `[frames, codes_per_frame]`, until they are all taken or a chunk is full.
    /// Returns how many it took (at least one, unless there are none) and the chunk's bytes, if any.
    ///
    /// # Errors
    /// [`Error::Codes`] if `codes` are not whole frames, [`Error::Code`] if one is out of range (nothing is then
    /// taken), [`Error::State`] after the end or before the first segment of a stream with segments.
    pub fn push(&mut self, codes: &[u16]) -> Result<(usize, &[u8]), Error> {
        self.check_open()?;
        if !codes.len().is_multiple_of(self.per_frame) {
            return Err(Error::Codes { codes: codes.len(), per_frame: self.per_frame });
        }
        if self.segments && self.segment.is_none() {
            return Err(Error::State("a segment must begin before its codes are written"));
        }
        if codes.is_empty() {
            return Ok((0, &[]));
        }
        // The open segment, as it will be with its head in this chunk.
        let segment = self.segment.map(|segment| match segment.here {
            0 => OpenSegment { at: self.payload, ..segment },
            _ => segment,
        });
        let (begin, before) = segment.map_or((0, self.frames), |segment| (segment.at + SEGMENT_HEAD, segment.here));
        // A chunk is closed as soon as no frame fits, so one does.
        let by_bytes = (self.max_payload.saturating_sub(begin) * 8 / self.bits_per_frame).saturating_sub(before);
        let take = (codes.len() / self.per_frame).min(self.max_frames - self.frames).min(by_bytes);
        let (taken, _) = codes.split_at(take * self.per_frame);

        let (head, tail) = self.buffer.as_mut().split_at_mut(self.header_len);
        let layout = Header::parse_fields(head)?.layout;
        bits::check(&layout, taken, self.frame)?;
        let payload = tail.get_mut(CHUNK_HEAD..).unwrap_or(&mut []);
        bits::pack(&layout, taken, payload, begin * 8 + before * self.bits_per_frame);
        if let Some(mut segment) = segment {
            if segment.here == 0 {
                put(payload, segment.at + 2, &segment.scale.to_bits().to_le_bytes())?;
                self.continues |= segment.frames > 0;
            }
            segment.frames = segment.frames.saturating_add(take);
            segment.here += take;
            put(payload, segment.at, &(segment.here as u16).to_le_bytes())?;
            self.segment = Some(segment);
        }
        self.payload = begin + ((before + take) * self.bits_per_frame).div_ceil(8);
        self.frames += take;
        self.frame += take as u64;
        let more_bits = (before + take + 1) * self.bits_per_frame;
        if self.frames == self.max_frames || begin + more_bits.div_ceil(8) > self.max_payload {
            return Ok((take, self.flush()?));
        }
        Ok((take, &[]))
    }

    /// Begins a segment: the frames that follow have this scale. Closes the chunk if a segment as long as the last
    /// one would not fit in it, and returns its bytes.
    ///
    /// # Errors
    /// [`Error::Scale`] if the scale is not finite, [`Error::State`] after the end or without segments in the header.
    pub fn begin_segment(&mut self, scale: f32) -> Result<&[u8], Error> {
        self.check_open()?;
        if !self.segments {
            return Err(Error::State("the header says that there are no segments"));
        }
        if !scale.is_finite() {
            return Err(Error::Scale);
        }
        let last = self.segment.map_or(0, |segment| segment.frames).max(1);
        self.segment = Some(OpenSegment { scale, frames: 0, here: 0, at: 0 });
        let bytes = self.payload + SEGMENT_HEAD + (last * self.bits_per_frame).div_ceil(8);
        if self.frames > 0 && (self.frames + last > self.max_frames || bytes > self.max_payload) {
            return self.flush();
        }
        Ok(&[])
    }

    /// Closes the chunk before it is full, and returns its bytes: what a live stream does to keep its delay low.
    ///
    /// # Errors
    /// [`Error::State`] after the end.
    pub fn flush(&mut self) -> Result<&[u8], Error> {
        let range = self.close()?;
        Ok(self.buffer.as_ref().get(range).unwrap_or(&[]))
    }

    /// Says that `frames` frames were lost before they came here. Closes the chunk and returns its bytes.
    ///
    /// # Errors
    /// [`Error::State`] after the end; [`Error::Field`] if the gap is longer than 2^31 - 1 frames.
    pub fn lost(&mut self, frames: u32) -> Result<&[u8], Error> {
        self.check_open()?;
        // Two gaps without a chunk between them are one.
        let before = if self.frames > 0 { 0 } else { self.gap };
        let gap = before.saturating_add(frames);
        if gap > MAX_GAP {
            return Err(Error::Field { name: "lost frames", value: gap.into() });
        }
        let range = self.close()?;
        self.gap = gap;
        self.frame += u64::from(frames);
        Ok(self.buffer.as_ref().get(range).unwrap_or(&[]))
    }

    /// A metadata chunk. Closes the codes chunk first.
    ///
    /// # Errors
    /// [`Error::Field`] if a key is empty or longer than 255 bytes, or the entries are longer than a chunk;
    /// [`Error::State`] after the end, with frames in an open chunk ([`Writer::flush`] first) or right after
    /// [`Writer::lost`]; [`Error::Buffer`] if the metadata is longer than the buffer's room for a chunk.
    pub fn metadata(&mut self, entries: &[(&str, &[u8])]) -> Result<&[u8], Error> {
        self.check_open()?;
        if self.frames > 0 || self.gap > 0 {
            return Err(Error::State("metadata stands between whole chunks: flush first, and not after a loss"));
        }
        let mut len = 0_usize;
        for (key, value) in entries {
            len = len.saturating_add(Metadata::entry_len(key, value)?);
        }
        if len > MAX_PAYLOAD {
            return Err(Error::Field { name: "length of metadata", value: len as u64 });
        }
        let room = self.buffer.as_mut().get_mut(self.header_len..self.end_at).unwrap_or(&mut []);
        if len + CHUNK_OVERHEAD > room.len() {
            return Err(Error::Buffer { needed: len + CHUNK_OVERHEAD, got: room.len() });
        }
        let mut at = CHUNK_HEAD;
        for (key, value) in entries {
            put(room, at, &[key.len() as u8])?;
            put(room, at + 1, &(value.len() as u16).to_le_bytes())?;
            put(room, at + 3, key.as_bytes())?;
            put(room, at + 3 + key.len(), value)?;
            at += 3 + key.len() + value.len();
        }
        let range = self.seal(self.header_len, KIND_METADATA, self.frame, 0, len)?;
        Ok(self.buffer.as_ref().get(range).unwrap_or(&[]))
    }

    /// Ends the stream: the open chunk, the end chunk and the trailer. `samples` is the exact number of samples a
    /// channel, or `None` if nobody knows.
    ///
    /// # Errors
    /// [`Error::Field`] if the header says another number of samples; [`Error::State`] after the end.
    pub fn finish(&mut self, samples: Option<u64>) -> Result<&[u8], Error> {
        self.check_open()?;
        let stated = self.header()?.samples;
        if let Some(samples) = samples
            && (samples == UNKNOWN || stated.is_some_and(|stated| stated != samples))
        {
            return Err(Error::Field { name: "samples at the end", value: samples });
        }
        let chunk = self.close()?;
        let samples = samples.or(stated).unwrap_or(UNKNOWN);
        let (at, frames) = (self.end_at, self.frame);
        let bytes = self.buffer.as_mut();
        put(bytes, at + CHUNK_HEAD, &samples.to_le_bytes())?;
        put(bytes, at + CHUNK_HEAD + 8, &frames.to_le_bytes())?;
        let kind = KIND_END | if self.gap > 0 { FLAG_GAP } else { 0 };
        let end = self.seal(at, kind, frames, 0, END_HEAD + self.seek_entries * SEEK_ENTRY_LEN)?;
        let bytes = self.buffer.as_mut();
        put(bytes, end.end, &((end.len() + TRAILER_LEN) as u32).to_le_bytes())?;
        put(bytes, end.end + 4, &TRAILER_MAGIC)?;
        // The last codes chunk goes right before the end chunk; its room ends there.
        let begin = at - chunk.len();
        bytes.copy_within(chunk, begin);
        self.offset += TRAILER_LEN as u64;
        self.finished = true;
        Ok(self.buffer.as_ref().get(begin..end.end + TRAILER_LEN).unwrap_or(&[]))
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.finished { Err(Error::State("the stream has ended; begin another one")) } else { Ok(()) }
    }

    /// Seals the open chunk and returns where it lies; nothing if it has no frames.
    fn close(&mut self) -> Result<Range<usize>, Error> {
        self.check_open()?;
        if self.frames == 0 {
            return Ok(self.header_len..self.header_len);
        }
        let first = self.frame - self.frames as u64;
        if self.codes_chunks > 0 && self.codes_chunks.is_multiple_of(self.seek_interval) {
            self.add_seek_entry(SeekEntry { frame: first, offset: self.offset })?;
        }
        let flags = if self.gap > 0 { FLAG_GAP } else { 0 } | if self.continues { FLAG_CONTINUES } else { 0 };
        let range = self.seal(self.header_len, KIND_CODES | flags, first, self.frames as u16, self.payload)?;
        self.codes_chunks += 1;
        (self.frames, self.payload, self.continues, self.gap) = (0, 0, false, 0);
        if let Some(segment) = &mut self.segment {
            segment.here = 0;
        }
        Ok(range)
    }

    /// Puts the fields and the CRC around a payload that lies behind them.
    fn seal(&mut self, at: usize, kind: u8, first: u64, frames: u16, payload: usize) -> Result<Range<usize>, Error> {
        let len = payload + CHUNK_OVERHEAD;
        let buffer = self.buffer.as_mut();
        let got = buffer.len();
        let chunk = buffer.get_mut(at..at + len).ok_or(Error::Buffer { needed: at + len, got })?;
        put(chunk, 0, &SYNC)?;
        put(chunk, 2, &[kind])?;
        put(chunk, 3, &(first as u32).to_le_bytes())?;
        put(chunk, 7, &frames.to_le_bytes())?;
        put(chunk, 9, &(payload as u16).to_le_bytes())?;
        let crc = crc32c(chunk.get(..len - 4).unwrap_or(&[]));
        put(chunk, len - 4, &crc.to_le_bytes())?;
        self.offset += len as u64;
        Ok(at..at + len)
    }

    fn add_seek_entry(&mut self, entry: SeekEntry) -> Result<(), Error> {
        let at = self.end_at + CHUNK_HEAD + END_HEAD;
        let (bytes, room) = (self.buffer.as_mut(), self.max_entries);
        if room == 0 {
            return Ok(());
        }
        if self.seek_entries == room {
            // Entry i is chunk (i + 1) * interval: every second one stays.
            for kept in 0..room / 2 {
                if let Some(entry) = array::<SEEK_ENTRY_LEN>(bytes, at + (2 * kept + 1) * SEEK_ENTRY_LEN) {
                    put(bytes, at + kept * SEEK_ENTRY_LEN, &entry)?;
                }
            }
            self.seek_entries = room / 2;
            self.seek_interval *= 2;
            if !self.codes_chunks.is_multiple_of(self.seek_interval) {
                return Ok(());
            }
        }
        let at = at + self.seek_entries * SEEK_ENTRY_LEN;
        put(bytes, at, &entry.frame.to_le_bytes())?;
        put(bytes, at + 8, &entry.offset.to_le_bytes())?;
        self.seek_entries += 1;
        Ok(())
    }
}
