//! `.nac` files over [`std::io`]: hours of codes in constant memory. The format is `docs/format.md`, the engine
//! [`codec_core::bitstream`].

use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};

use codec_core::bitstream::{self, Event, MAX_CHUNK_LEN, MAX_READER_BUFFER, MAX_SEEK_ENTRIES, Reader, Writer};
use codec_core::bitstream::{SeekEntry, TRAILER_LEN};

pub use codec_core::bitstream::{CodeGroup, GROUP_LEN, Header, Layout, Lost, Method};

/// Why a `.nac` file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system, or whatever is behind the reader or writer.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file's bytes, or a call with what cannot be written.
    #[error(transparent)]
    Format(#[from] bitstream::Error),
}

/// Writes a `.nac` file.
#[derive(Debug)]
pub struct NacWriter<W> {
    out: W,
    writer: Writer<Vec<u8>>,
}

impl<W: Write> NacWriter<W> {
    /// Begins a file: writes the header. Leave `header.samples` at `None` if the length is not known yet.
    ///
    /// # Errors
    /// [`Error::Format`] if a field of the header is out of range.
    pub fn new(mut out: W, header: &Header<'_>) -> Result<Self, Error> {
        // Beyond what the writer needs, room for the longest metadata.
        let len = Writer::<Vec<u8>>::buffer_len(header, MAX_SEEK_ENTRIES) + MAX_CHUNK_LEN;
        let writer = Writer::new(header, vec![0; len])?;
        out.write_all(writer.header_bytes())?;
        Ok(Self { out, writer })
    }

    /// Frames so far.
    pub fn frames(&self) -> u64 {
        self.writer.frames()
    }

    /// Takes codes `[frames, codes_per_frame]`.
    ///
    /// # Errors
    /// [`Error::Format`] if they are not whole frames, one is out of range (chunks before it may be written), or a
    /// segment should have begun.
    pub fn write(&mut self, codes: &[u16]) -> Result<(), Error> {
        let per_frame = self.writer.header()?.layout.codes_per_frame();
        let mut rest = codes;
        while !rest.is_empty() {
            let (frames, bytes) = self.writer.push(rest)?;
            self.out.write_all(bytes)?;
            rest = rest.get(frames * per_frame..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// Begins a segment: the codes that follow have this scale.
    ///
    /// # Errors
    /// Those of [`Writer::begin_segment`].
    pub fn begin_segment(&mut self, scale: f32) -> Result<(), Error> {
        Ok(self.out.write_all(self.writer.begin_segment(scale)?)?)
    }

    /// Says that frames were lost before they came here.
    ///
    /// # Errors
    /// Those of [`Writer::lost`].
    pub fn lost(&mut self, frames: u32) -> Result<(), Error> {
        Ok(self.out.write_all(self.writer.lost(frames)?)?)
    }

    /// Writes keys and values; closes the chunk before.
    ///
    /// # Errors
    /// Those of [`Writer::metadata`].
    pub fn metadata(&mut self, entries: &[(&str, &[u8])]) -> Result<(), Error> {
        self.out.write_all(self.writer.flush()?)?;
        Ok(self.out.write_all(self.writer.metadata(entries)?)?)
    }

    /// Closes the chunk, however short, and flushes the output: all codes so far are then readable by others.
    ///
    /// # Errors
    /// Those of the output.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.out.write_all(self.writer.flush()?)?;
        Ok(self.out.flush()?)
    }

    /// Ends the file. `samples` is the exact number a channel; it goes to the file's end (the header
    /// stays as it is). Returns the output and the file's length in bytes.
    ///
    /// # Errors
    /// [`Error::Format`] if the header says another number.
    pub fn finish(mut self, samples: Option<u64>) -> Result<(W, u64), Error> {
        self.out.write_all(self.writer.finish(samples)?)?;
        self.out.flush()?;
        Ok((self.out, self.writer.bytes()))
    }
}

impl<W: Write + Seek> NacWriter<W> {
    /// As [`NacWriter::finish`], and goes back to state the number of samples in the header, if that did not have it.
    ///
    /// # Errors
    /// Those of [`NacWriter::finish`].
    pub fn finish_in_place(mut self, samples: Option<u64>) -> Result<(W, u64), Error> {
        self.out.write_all(self.writer.finish(samples)?)?;
        let header = self.writer.header()?;
        if samples.is_some() && header.samples.is_none() {
            let mut bytes = vec![0; header.len()];
            Header { samples, ..header }.write(&mut bytes)?;
            let end = self.out.stream_position()?;
            let begin = end.checked_sub(self.writer.bytes());
            let begin =
                begin.ok_or_else(|| io::Error::other("the output moved while a .nac file was being written"))?;
            self.out.seek(SeekFrom::Start(begin))?;
            self.out.write_all(&bytes)?;
            self.out.seek(SeekFrom::Start(end))?;
        }
        self.out.flush()?;
        Ok((self.out, self.writer.bytes()))
    }
}

/// What comes out of a file.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Item<'a> {
    /// Frames.
    Frames(Frames<'a>),
    /// Keys and values.
    Metadata(Vec<(String, Vec<u8>)>),
    /// Frames that are not there. Do not fill a gap without a limit: a short hostile file can say 2^31 - 1.
    Lost(Lost),
    /// The end.
    End(End),
}

/// Neighbouring frames: a chunk's, or in a file with segments those of one segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frames<'a> {
    /// The first, from the start of the file.
    pub first_frame: u64,
    /// `[frames, codes_per_frame]`, each below its codebook's size.
    pub codes: &'a [u16],
    /// The segment's scale; `None` in a file without segments.
    pub scale: Option<f32>,
    /// Whether this goes on with the segment before.
    pub continues: bool,
}

/// What the end of a file tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Exact samples a channel, if known. Memory is not to be sized by it.
    pub samples: Option<u64>,
    /// Frames, lost ones included as far as they are known.
    pub frames: u64,
    /// Whether the file has its end; if not, it was cut off or is still being written.
    pub complete: bool,
}

/// Reads a `.nac` file.
#[derive(Debug)]
pub struct NacReader<R> {
    input: R,
    reader: Reader<Vec<u8>>,
    /// Bytes of the header.
    header_len: u64,
    /// Where the input stands, from the first byte of the header.
    position: u64,
    salvage: bool,
    /// Set by a seek: the frames before are passed over.
    from_frame: u64,
    /// The entry that a seek went to, until a chunk has come.
    sought: Option<SeekEntry>,
    /// The chunk's codes, and its segments still to come out.
    codes: Vec<u16>,
    pending: std::vec::IntoIter<Pending>,
}

#[derive(Debug)]
struct Pending {
    first_frame: u64,
    scale: Option<f32>,
    continues: bool,
    codes: std::ops::Range<usize>,
}

impl<R: Read> NacReader<R> {
    /// Reads the header; damage later is an error.
    ///
    /// # Errors
    /// [`Error::Format`] if the header is damaged, cut off, of a newer version or not there.
    pub fn new(input: R) -> Result<Self, Error> {
        Self::open(input, false)
    }

    /// Reads the header; damage later is passed over, and reported as [`Item::Lost`].
    ///
    /// # Errors
    /// As [`NacReader::new`].
    pub fn salvage(input: R) -> Result<Self, Error> {
        Self::open(input, true)
    }

    fn open(input: R, salvage: bool) -> Result<Self, Error> {
        let buffer = vec![0; MAX_READER_BUFFER];
        let reader = if salvage { Reader::salvage(buffer) } else { Reader::new(buffer) };
        let (codes, pending) = (Vec::new(), Vec::new().into_iter());
        let mut this =
            Self { input, reader, header_len: 0, position: 0, salvage, from_frame: 0, sought: None, codes, pending };
        while !this.reader.open()? {
            this.fill()?;
        }
        this.header_len = this.reader.header_len() as u64;
        Ok(this)
    }

    /// The header.
    ///
    /// # Errors
    /// None that [`NacReader::new`] has not met.
    pub fn header(&self) -> Result<Header<'_>, Error> {
        Ok(self.reader.header().ok_or(bitstream::Error::NotNac)?)
    }

    /// The input, wherever it stands.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next item; `None` after [`Item::End`], once the input has nothing more either.
    ///
    /// # Errors
    /// [`Error::Format`] where the file is damaged, cut off or goes on after its end; it stays.
    // Not an iterator: items borrow from the reader.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, Error> {
        while self.pending.len() == 0 {
            if self.reader.is_done() {
                return Ok(None);
            }
            let event = match self.reader.next() {
                Ok(Some(event)) => event,
                Ok(None) => {
                    self.fill()?;
                    continue;
                }
                // The table sent us where no such chunk is.
                Err(error) => {
                    let sought =
                        self.sought.map(|entry| bitstream::Error::Seek { frame: entry.frame, offset: entry.offset });
                    return Err(sought.unwrap_or(error).into());
                }
            };
            self.sought = None;
            match event {
                Event::Codes(chunk) => {
                    let per_frame = chunk.layout().codes_per_frame();
                    self.codes.clear();
                    let mut pending = Vec::new();
                    for segment in chunk.segments() {
                        let passed = self.from_frame.saturating_sub(segment.first_frame).min(segment.frames() as u64);
                        let start = self.codes.len();
                        self.codes.resize(start + (segment.frames() - passed as usize) * per_frame, 0);
                        segment.unpack(passed as usize, self.codes.get_mut(start..).unwrap_or(&mut []));
                        if self.codes.len() > start {
                            pending.push(Pending {
                                first_frame: segment.first_frame + passed,
                                scale: segment.scale,
                                continues: segment.continues || passed > 0,
                                codes: start..self.codes.len(),
                            });
                        }
                    }
                    self.pending = pending.into_iter();
                }
                Event::Metadata(entries) => {
                    let owned = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
                    return Ok(Some(Item::Metadata(owned.collect())));
                }
                Event::Lost(lost) => match lost.frames {
                    Some(frames) if frames > 0 && lost.first_frame.saturating_add(frames) <= self.from_frame => {}
                    _ => return Ok(Some(Item::Lost(lost))),
                },
                Event::End(end) => {
                    let (samples, frames, complete) = (end.samples, end.frames, end.complete);
                    return Ok(Some(Item::End(End { samples, frames, complete })));
                }
                _ => {}
            }
        }
        Ok(self.pending.next().map(|segment| {
            Item::Frames(Frames {
                first_frame: segment.first_frame,
                codes: self.codes.get(segment.codes).unwrap_or(&[]),
                scale: segment.scale,
                continues: segment.continues,
            })
        }))
    }

    /// Reads more bytes, or notes that there are none.
    fn fill(&mut self) -> Result<(), Error> {
        let spare = self.reader.spare();
        match self.input.read(spare) {
            Ok(0) => self.reader.end_of_input(),
            Ok(n) => {
                self.reader.filled(n);
                self.position += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl<R: Read + Seek> NacReader<R> {
    /// Goes to a frame: the next frames that come out begin with it, or with the first one after it that is there. Uses
    /// the seek table; without one, and in salvage, which does not trust it, reads from the header on.
    ///
    /// # Errors
    /// [`Error::Format`] if the end chunk is damaged or the table contradicts the file (the latter when the next
    /// item is read).
    pub fn seek(&mut self, frame: u64) -> Result<(), Error> {
        let here = self.input.stream_position()?;
        let begin = here.checked_sub(self.position);
        let begin = begin.ok_or_else(|| io::Error::other("the input moved while a .nac file was being read"))?;
        self.sought = if self.salvage { None } else { self.find(begin, frame)? };
        let entry = self.sought.unwrap_or(SeekEntry { frame: 0, offset: self.header_len });
        let target = begin.checked_add(entry.offset).ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
        self.input.seek(SeekFrom::Start(target))?;
        self.position = entry.offset;
        self.reader.resume(entry.frame, entry.offset)?;
        self.from_frame = frame;
        self.pending = Vec::new().into_iter();
        Ok(())
    }

    /// Reads the end chunk, if there is one, and looks the frame up in its table.
    fn find(&mut self, begin: u64, frame: u64) -> Result<Option<SeekEntry>, Error> {
        let len = self.input.seek(SeekFrom::End(0))?.saturating_sub(begin);
        if len < self.header_len + TRAILER_LEN as u64 {
            return Ok(None);
        }
        self.input.seek(SeekFrom::End(-(TRAILER_LEN as i64)))?;
        let mut trailer = [0; TRAILER_LEN];
        self.input.read_exact(&mut trailer)?;
        let [a, b, c, d, magic @ ..] = trailer;
        let end_len = u32::from_le_bytes([a, b, c, d]);
        let plausible =
            (end_len as usize) <= MAX_CHUNK_LEN + TRAILER_LEN && u64::from(end_len) <= len - self.header_len;
        if magic != *b"NACE" || !plausible {
            return Ok(None);
        }
        self.input.seek(SeekFrom::End(-i64::from(end_len)))?;
        let mut end = vec![0; end_len as usize];
        self.input.read_exact(&mut end)?;
        let header = self.header()?;
        let summary = bitstream::Summary::parse(&header, self.header_len as usize, &end, len - u64::from(end_len))?;
        Ok(summary.seek.find(frame))
    }
}
