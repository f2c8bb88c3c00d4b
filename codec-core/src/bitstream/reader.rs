use super::cursor::{Cursor, Step};
use super::{Error, Event, Header};

/// Reads a stream that arrives piece by piece, in a buffer of fixed size.
///
/// The buffer holds the header and one chunk, and [`Event`]s borrow from it. [`MAX_READER_BUFFER`] bytes are enough
/// for any file; a device that knows its streams gives less, and gets [`Error::Buffer`] for a file that
/// needs more.
///
/// ```
/// # use codec_core::bitstream::{Error, Event, Reader};
/// # fn read(pieces: &[&[u8]]) -> Result<u64, Error> {
/// let mut reader = Reader::new([0; 4096]);
/// let mut frames = 0;
/// for mut piece in pieces.iter().copied() {
///     while !piece.is_empty() {
///         let taken = reader.feed(piece);
///         piece = &piece[taken..];
///         while let Some(event) = reader.next()? {
///             if let Event::Codes(chunk) = event {
///                 frames += chunk.frames() as u64;
///             }
///         }
///     }
/// }
/// reader.end_of_input();
/// while let Some(event) = reader.next()? {
///     if let Event::End(summary) = event {
///         assert_eq!(summary.frames, frames);
///     }
/// }
/// # Ok(frames)
/// # }
/// # assert_eq!(read(&[b"RIFF"]), Err(Error::NotNac));
/// ```
///
/// [`MAX_READER_BUFFER`]: super::MAX_READER_BUFFER
#[derive(Clone, Debug)]
pub struct Reader<B> {
    buffer: B,
    salvage: bool,
    /// Set with the header, whose bytes stay at the buffer's front.
    opened: Option<(usize, Cursor)>,
    /// Unread bytes.
    start: usize,
    end: usize,
    eof: bool,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Reader<B> {
    /// A reader that stops at damage with an error.
    pub fn new(buffer: B) -> Self {
        Self { buffer, salvage: false, opened: None, start: 0, end: 0, eof: false }
    }

    /// A reader that passes over damage and reports it as [`Event::Lost`]. Every chunk that holds comes out, and
    /// only those. The header must hold.
    pub fn salvage(buffer: B) -> Self {
        Self { salvage: true, ..Self::new(buffer) }
    }

    /// The free part of the buffer, to read into; then call [`Reader::filled`]. Never empty after
    /// [`Reader::next`] returned `Ok(None)`.
    pub fn spare(&mut self) -> &mut [u8] {
        let keep = self.opened.as_ref().map_or(0, |(header, _)| *header);
        let buffer = self.buffer.as_mut();
        if self.start > keep && self.end <= buffer.len() {
            buffer.copy_within(self.start..self.end, keep);
            (self.start, self.end) = (keep, keep + (self.end - self.start));
        }
        buffer.get_mut(self.end..).unwrap_or(&mut [])
    }

    /// `bytes` bytes were read into [`Reader::spare`].
    pub fn filled(&mut self, bytes: usize) {
        self.end = self.end.saturating_add(bytes).min(self.buffer.as_ref().len());
    }

    /// Copies as much of `bytes` as there is room for and returns how much. All of it is taken in the end if
    /// [`Reader::next`] is called until it returns `Ok(None)` in between.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let spare = self.spare();
        let n = spare.len().min(bytes.len());
        if let (Some(to), Some(from)) = (spare.get_mut(..n), bytes.get(..n)) {
            to.copy_from_slice(from);
        }
        self.filled(n);
        n
    }

    /// No more bytes follow.
    pub fn end_of_input(&mut self) {
        self.eof = true;
    }

    /// The header, once enough bytes were there for it.
    pub fn header(&self) -> Option<Header<'_>> {
        let (len, _) = self.opened.as_ref()?;
        Header::parse_fields(self.buffer.as_ref().get(..*len)?).ok()
    }

    /// Bytes of the header, 0 before it was read.
    pub fn header_len(&self) -> usize {
        self.opened.as_ref().map_or(0, |(len, _)| *len)
    }

    /// Whether the stream is at its end and so is the input: [`Reader::next`] returns `None` from then on.
    pub fn is_done(&self) -> bool {
        self.eof && self.start == self.end && self.opened.as_ref().is_some_and(|(_, cursor)| cursor.ended())
    }

    /// Reads the header if there are enough bytes for it, and says whether it is there.
    ///
    /// # Errors
    /// Those of [`Header::parse`], and [`Error::Buffer`] if it does not fit in the buffer.
    pub fn open(&mut self) -> Result<bool, Error> {
        if self.opened.is_some() {
            return Ok(true);
        }
        let buffer = self.buffer.as_ref();
        let bytes = buffer.get(..self.end).unwrap_or(&[]);
        let needed = Header::stated_len(bytes)?.unwrap_or(12);
        if bytes.len() < needed {
            need(needed, buffer.len(), bytes.len(), 0, self.eof)?;
            return Ok(false);
        }
        let (_, len) = Header::parse(bytes)?;
        self.opened = Some((len, Cursor::new(len, self.salvage)));
        self.start = len;
        Ok(true)
    }

    /// The next event; `None` if it takes more bytes, or after the end.
    ///
    /// # Errors
    /// Those of [`Reader::open`], and whatever is wrong with a chunk. An error stays: the next call returns it
    /// again.
    // Not an iterator: events borrow from the reader.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Event<'_>>, Error> {
        self.open()?;
        let buffer = self.buffer.as_ref();
        let Some((header_len, cursor)) = &mut self.opened else { return Ok(None) };
        let header = Header::parse_fields(buffer.get(..*header_len).unwrap_or(&[]))?;
        loop {
            let bytes = buffer.get(self.start..self.end).unwrap_or(&[]);
            let (drop, event) = match cursor.step(&header, bytes, self.eof)? {
                Step::Need(_) if self.eof => return Ok(None),
                Step::Need(needed) => {
                    return need(needed, buffer.len().saturating_sub(*header_len), bytes.len(), cursor.offset(), false);
                }
                Step::Skip(drop) => (drop, None),
                Step::Event(drop, event) => (drop, Some(event)),
            };
            self.start += drop.min(bytes.len());
            cursor.advance(drop);
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Forgets what is buffered and goes on at a chunk that begins with `frame`, `offset` bytes from the first byte
    /// of the header: an entry of the seek table. The next byte fed is the one at that offset.
    ///
    /// # Errors
    /// [`Error::State`] before the header was read.
    pub fn resume(&mut self, frame: u64, offset: u64) -> Result<(), Error> {
        let Some((header_len, cursor)) = &mut self.opened else {
            return Err(Error::State("the header must be read before a seek"));
        };
        cursor.resume(frame, offset);
        (self.start, self.end, self.eof) = (*header_len, *header_len, false);
        Ok(())
    }
}

/// `None` for more bytes, if they can come and fit.
fn need<'a>(needed: usize, capacity: usize, got: usize, offset: u64, eof: bool) -> Result<Option<Event<'a>>, Error> {
    if eof {
        return Err(Error::Truncated { offset, needed, got });
    }
    if needed > capacity {
        return Err(Error::Buffer { needed, got: capacity });
    }
    Ok(None)
}
