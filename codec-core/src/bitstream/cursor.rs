use super::chunk::{self, End, Parsed, Place};
use super::{CHUNK_HEAD, Chunk, Error, FLAG_CONTINUES, FLAG_GAP, Header, MAX_GAP, Metadata, SYNC, SeekTable};
use super::{KIND_CODES, KIND_END, KIND_METADATA, TRAILER_LEN, TRAILER_MAGIC};
use super::{array, get_u32, get_u64};

/// What comes out of a stream.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Frames.
    Codes(Chunk<'a>),
    /// Keys and values.
    Metadata(Metadata<'a>),
    /// Frames that are not there.
    Lost(Lost),
    /// The end; nothing comes after it.
    End(Summary<'a>),
}

/// Frames that are not there: lost before they were written (`bytes` 0), or in damage passed over in salvage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The first of them.
    pub first_frame: u64,
    /// How many, which can be none (damage to metadata, say); `None` if the stream ends in damage and nobody knows.
    /// A short hostile file can say 2^31 - 1 here: do not fill a gap without a limit.
    pub frames: Option<u64>,
    /// Where the damage begins, from the first byte of the header.
    pub offset: u64,
    /// Damaged bytes.
    pub bytes: u64,
}

/// What the end of a stream tells.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    /// Exact samples a channel, if the header or the end chunk has them. As in [`Header`], memory is not to be
    /// sized by it.
    pub samples: Option<u64>,
    /// Frames, those that were lost included as far as they are known.
    pub frames: u64,
    /// Whether the end chunk was there; if not, the stream was cut off or is still being written.
    pub complete: bool,
    /// The seek table; empty in a short file or without an end chunk.
    pub seek: SeekTable<'a>,
}

impl<'a> Summary<'a> {
    /// Reads an end chunk with its trailer, `offset` bytes from the first byte of the header: what a reader that can
    /// seek does first. The last four bytes of a complete file are the trailer's magic, the four before them the
    /// length of `bytes`.
    ///
    /// # Errors
    /// What is wrong with the chunk, its trailer or its seek table.
    pub fn parse(header: &Header<'a>, header_len: usize, bytes: &'a [u8], offset: u64) -> Result<Self, Error> {
        let place = Place { index: 0, offset, frame: 0 };
        let truncated = |needed| Error::Truncated { offset, needed, got: bytes.len() };
        let parsed = chunk::parse(bytes, header, place)?.map_err(truncated)?;
        if parsed.kind != KIND_END {
            return Err(Error::ChunkField { index: 0, offset, name: "kind", value: parsed.kind.into() });
        }
        let cursor = Cursor { offset, ..Cursor::new(header_len, false) };
        let frames = get_u64(parsed.payload, 8).ok_or(truncated(parsed.len()))?;
        let end = cursor.end(header, bytes, parsed, frames)?;
        if bytes.len() != parsed.len() + TRAILER_LEN || frames as u32 != parsed.first_frame {
            return Err(truncated(parsed.len() + TRAILER_LEN));
        }
        Ok(Self { samples: end.samples.or(header.samples), frames, complete: true, seek: end.seek })
    }
}

/// What to do with the bytes at the front.
pub(super) enum Step<'a> {
    /// This many are needed to go on.
    Need(usize),
    /// Drop this many.
    Skip(usize),
    /// Drop this many after use.
    Event(usize, Event<'a>),
}

/// The state of reading chunks, whoever holds the bytes.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    salvage: bool,
    header_len: u64,
    index: u64,
    offset: u64,
    frame: u64,
    /// Where damage began that no chunk has followed yet.
    damage: Option<u64>,
    /// The gap before the chunk at the front was reported.
    gap_reported: bool,
    ended: bool,
    /// Bytes checked that turned out to be no chunk.
    in_vain: u64,
}

/// In salvage, bytes checked in vain for each byte of the file, and at all. Past that, a hostile file: what looks like a
/// chunk and is none is passed over whole, or nested beginnings of chunks would each cost a chunk's time.
const VAIN_PER_BYTE: u64 = 64;
const VAIN: u64 = 1 << 20;

impl Cursor {
    pub fn new(header_len: usize, salvage: bool) -> Self {
        let header_len = header_len as u64;
        Self {
            salvage,
            header_len,
            index: 0,
            offset: header_len,
            frame: 0,
            damage: None,
            gap_reported: false,
            ended: false,
            in_vain: 0,
        }
    }

    /// Goes on at a chunk that begins with `frame` at `offset`.
    pub fn resume(&mut self, frame: u64, offset: u64) {
        // A gap before that chunk is behind us.
        let gap_reported = frame > 0;
        self.in_vain = 0;
        (self.frame, self.offset, self.damage, self.gap_reported, self.ended) =
            (frame, offset, None, gap_reported, false);
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Bytes at the front were dropped.
    pub fn advance(&mut self, bytes: usize) {
        self.offset = self.offset.saturating_add(bytes as u64);
    }

    /// Looks at the unread bytes. `eof`: no more follow. The caller drops the bytes and calls
    /// [`Cursor::advance`].
    pub fn step<'a>(&mut self, header: &Header<'a>, bytes: &'a [u8], eof: bool) -> Result<Step<'a>, Error> {
        if self.ended {
            return match bytes.len() {
                0 => Ok(Step::Need(1)),
                n if self.salvage => Ok(Step::Skip(n)),
                _ => Err(Error::Trailing { offset: self.offset }),
            };
        }
        if bytes.is_empty() {
            return if eof { self.cut(header) } else { Ok(Step::Need(1)) };
        }
        let place = Place { index: self.index, offset: self.offset, frame: self.frame };
        let outcome = match chunk::parse(bytes, header, place) {
            Ok(Ok(parsed)) => match self.event(header, bytes, eof, parsed) {
                Ok(Step::Need(needed)) => Ok(Err(needed)),
                other => other.map(Ok),
            },
            Ok(Err(needed)) => Ok(Err(needed)),
            Err(error) => Err(error),
        };
        let error = match outcome {
            Ok(Ok(step)) => return Ok(step),
            Ok(Err(needed)) if !eof => return Ok(Step::Need(needed)),
            Ok(Err(needed)) => Error::Truncated { offset: self.offset, needed, got: bytes.len() },
            Err(error) => error,
        };
        if !self.salvage {
            return Err(error);
        }
        self.damage.get_or_insert(self.offset);
        if let Some(len) = chunk::plausible_len(bytes, header, place) {
            self.in_vain = self.in_vain.saturating_add(len as u64);
            if self.in_vain > self.offset.saturating_mul(VAIN_PER_BYTE).saturating_add(VAIN) {
                return Ok(Step::Skip(len));
            }
        }
        let next = bytes.windows(2).skip(1).position(|pair| pair == SYNC).map(|at| at + 1);
        Ok(Step::Skip(next.unwrap_or(match bytes {
            // The last byte may be the first half of a sync.
            [_, .., last] if *last == SYNC[0] && !eof => bytes.len() - 1,
            _ => bytes.len(),
        })))
    }

    /// The bytes ended without an end chunk.
    fn cut<'a>(&mut self, header: &Header<'a>) -> Result<Step<'a>, Error> {
        if let Some(offset) = self.damage.take() {
            let bytes = self.offset - offset;
            let lost = Lost { first_frame: self.frame, frames: None, offset, bytes };
            return Ok(Step::Event(0, Event::Lost(lost)));
        }
        if header.samples.is_some() && !self.salvage {
            return Err(Error::Truncated { offset: self.offset, needed: CHUNK_HEAD, got: 0 });
        }
        self.ended = true;
        let seek = SeekTable::default();
        let summary = Summary { samples: header.samples, frames: self.frame, complete: false, seek };
        Ok(Step::Event(0, Event::End(summary)))
    }

    fn event<'a>(
        &mut self,
        header: &Header<'a>,
        bytes: &'a [u8],
        eof: bool,
        parsed: Parsed<'a>,
    ) -> Result<Step<'a>, Error> {
        let missing = parsed.first_frame.wrapping_sub(self.frame as u32);
        let gap = parsed.has(FLAG_GAP) && matches!(parsed.kind, KIND_CODES | KIND_END);
        // A chunk that goes back in time, and one whose gap flag has no gap, are both out of order.
        let in_order = match missing {
            0 => !gap || self.gap_reported || self.salvage,
            1..=MAX_GAP => (gap && !self.gap_reported) || self.salvage,
            _ => false,
        };
        let next = self.frame.checked_add(missing.into());
        let Some(next) = next.filter(|_| in_order) else {
            let (expected, found) = (self.frame as u32, parsed.first_frame);
            return Err(Error::Order { index: self.index, offset: self.offset, expected, found });
        };
        let end = if parsed.kind == KIND_END {
            let end = self.end(header, bytes, parsed, next)?;
            // The trailer belongs to the end chunk, unless it is lost anyway.
            if bytes.len() < parsed.len() + TRAILER_LEN && !(self.salvage && eof) {
                return Ok(Step::Need(parsed.len() + TRAILER_LEN));
            }
            Some(end)
        } else {
            None
        };
        if missing > 0 || self.damage.is_some() {
            let offset = self.damage.take().unwrap_or(self.offset);
            let bytes = self.offset - offset;
            let lost = Lost { first_frame: self.frame, frames: Some(missing.into()), offset, bytes };
            (self.frame, self.gap_reported) = (next, gap);
            return Ok(Step::Event(0, Event::Lost(lost)));
        }
        let (index, offset, first_frame, len) = (self.index, self.offset, self.frame, parsed.len());
        let after = self.frame.checked_add(parsed.frames.into());
        self.frame = after.ok_or(Error::ChunkField { index, offset, name: "first frame", value: first_frame })?;
        self.gap_reported = false;
        self.index = self.index.saturating_add(1);
        Ok(match (parsed.kind, end) {
            (KIND_CODES, _) => {
                let chunk = Chunk {
                    index,
                    offset,
                    first_frame,
                    frames: parsed.frames,
                    continues: parsed.has(FLAG_CONTINUES),
                    segmented: header.segments,
                    layout: header.layout,
                    payload: parsed.payload,
                };
                Step::Event(len, Event::Codes(chunk))
            }
            (KIND_METADATA, _) => Step::Event(len, Event::Metadata(Metadata { rest: parsed.payload })),
            (_, Some(end)) => {
                self.ended = true;
                let samples = end.samples.or(header.samples);
                let summary = Summary { samples, frames: end.frames, complete: true, seek: end.seek };
                Step::Event((len + TRAILER_LEN).min(bytes.len()), Event::End(summary))
            }
            _ => Step::Skip(len),
        })
    }

    /// Reads and checks an end chunk, and its trailer as far as it is there.
    fn end<'a>(&self, header: &Header<'a>, bytes: &[u8], parsed: Parsed<'a>, frames: u64) -> Result<End<'a>, Error> {
        let bad = |name, value| Error::ChunkField { index: self.index, offset: self.offset, name, value };
        let end = End::parse(parsed.payload, self.header_len, self.offset)?;
        if end.frames != frames {
            return Err(bad("number of all frames", end.frames));
        }
        if let (Some(ours), Some(theirs)) = (end.samples, header.samples)
            && ours != theirs
        {
            return Err(bad("number of samples", ours));
        }
        let len = parsed.len();
        if !self.salvage && bytes.len() >= len + TRAILER_LEN {
            let distance = get_u32(bytes, len).unwrap_or(0);
            if distance as usize != len + TRAILER_LEN {
                return Err(bad("distance in the trailer", distance.into()));
            }
            if array(bytes, len + 4) != Some(TRAILER_MAGIC) {
                return Err(bad("trailer's magic", get_u32(bytes, len + 4).unwrap_or(0).into()));
            }
        }
        Ok(end)
    }
}

/// A stream that lies in memory: an iterator of [`Event`]s that ends after [`Event::End`] or an error.
#[derive(Clone, Debug)]
pub struct Stream<'a> {
    header: Header<'a>,
    cursor: Cursor,
    rest: &'a [u8],
    done: bool,
}

impl<'a> Stream<'a> {
    /// Reads the header; damage later is an error.
    ///
    /// # Errors
    /// Those of [`Header::parse`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        Self::open(bytes, false)
    }

    /// Reads the header; damage later is passed over and reported as [`Event::Lost`].
    ///
    /// # Errors
    /// Those of [`Header::parse`].
    pub fn salvage(bytes: &'a [u8]) -> Result<Self, Error> {
        Self::open(bytes, true)
    }

    fn open(bytes: &'a [u8], salvage: bool) -> Result<Self, Error> {
        let (header, len) = Header::parse(bytes)?;
        let rest = bytes.get(len..).unwrap_or(&[]);
        Ok(Self { header, cursor: Cursor::new(len, salvage), rest, done: false })
    }

    /// The header.
    pub fn header(&self) -> &Header<'a> {
        &self.header
    }
}

impl<'a> Iterator for Stream<'a> {
    type Item = Result<Event<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let (drop, event) = match self.cursor.step(&self.header, self.rest, true) {
                Ok(Step::Skip(drop)) => (drop, None),
                Ok(Step::Event(drop, event)) => (drop, Some(Ok(event))),
                Ok(Step::Need(needed)) => {
                    let (offset, got) = (self.cursor.offset(), self.rest.len());
                    (0, Some(Err(Error::Truncated { offset, needed, got })))
                }
                Err(error) => (0, Some(Err(error))),
            };
            self.rest = self.rest.get(drop..).unwrap_or(&[]);
            self.cursor.advance(drop);
            if let Some(event) = event {
                // What lies behind the end is an error, not the end.
                let trailing = matches!(event, Ok(Event::End(_))) && !self.cursor.salvage && !self.rest.is_empty();
                let event = if trailing { Err(Error::Trailing { offset: self.cursor.offset() }) } else { event };
                self.done = matches!(event, Ok(Event::End(_)) | Err(_));
                return Some(event);
            }
        }
        None
    }
}
