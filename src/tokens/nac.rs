//! The native container behind the same interface as the others.

use std::io::{Read, Seek, Write};

use super::{Shape, ShapeError, Step, StreamInfo, TokenError, TokenReader, TokenWriter, frames_of};
use crate::{
    Codes, Segment,
    nac::{Error, GROUP_LEN, Header, Item, Layout, Method, NacReader, NacWriter},
};

/// Codes of the largest segment that is read.
const MAX_SEGMENT: usize = 1 << 24;

impl From<Error> for TokenError {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => Self::Io(error),
            Error::Format(error) => Self::Nac(error),
        }
    }
}

/// Writes codes to a `.nac` file.
#[derive(Debug)]
pub struct NacTokensWriter<W> {
    /// `None` once finished.
    writer: Option<NacWriter<W>>,
    codebooks: usize,
}

impl<W: Write + Seek> NacTokensWriter<W> {
    /// Begins a file. `stream` must have everything but frames and samples.
    ///
    /// # Errors
    /// [`TokenError::Nac`] if a field is missing or out of range; [`TokenError::Io`].
    pub fn new(out: W, stream: &StreamInfo) -> Result<Self, TokenError> {
        if stream.shape != Shape::default() {
            return Err(ShapeError::Native.into());
        }
        let mut storage = vec![0; stream.levels.len() * GROUP_LEN];
        let layout = Layout::new(&stream.levels, &mut storage)?;
        let (sample_rate, hop) = (stream.sample_rate.unwrap_or(0), stream.hop.unwrap_or(0));
        let header = Header {
            fingerprint: stream.fingerprint.unwrap_or_default(),
            sample_rate,
            channels: stream.channels.and_then(|n| u16::try_from(n).ok()).unwrap_or(0),
            hop,
            samples: None,
            method: Method::default(),
            segments: stream.segmented,
            chunk_frames: Header::default_chunk_frames(sample_rate, hop, stream.segmented, &layout),
            layout,
        };
        Ok(Self { writer: Some(NacWriter::new(out, &header)?), codebooks: stream.codebooks })
    }
}

impl<W: Write + Seek> TokenWriter for NacTokensWriter<W> {
    fn write(&mut self, codes: &Codes) -> Result<(), TokenError> {
        frames_of(codes, self.codebooks)?;
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let mut rest = codes.data.as_slice();
        for segment in &codes.segments {
            let (own, others) = rest.split_at((segment.frames * self.codebooks).min(rest.len()));
            writer.begin_segment(segment.scale)?;
            writer.write(own)?;
            rest = others;
        }
        Ok(writer.write(rest)?)
    }

    fn finish(&mut self, samples: u64) -> Result<(), TokenError> {
        if let Some(writer) = self.writer.take() {
            writer.finish_in_place(Some(samples))?;
        }
        Ok(())
    }
}

/// Reads codes from a `.nac` file.
#[derive(Debug)]
pub struct NacTokens<R> {
    reader: NacReader<R>,
    info: StreamInfo,
    /// The segment being put together; a chunk may hold a part of one.
    open: Codes,
    /// What comes out once the open segment is out, and the frame where it begins.
    next: Option<(Step, u64)>,
    /// First frame of the open segment, and of what came out last.
    open_frame: u64,
    first_frame: u64,
    /// A segment whose beginning is lost goes too.
    headless: bool,
}

impl<R: Read> NacTokens<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`TokenError::Nac`] if it is damaged or of another version; [`TokenError::Io`].
    pub fn new(input: R, salvage: bool) -> Result<Self, TokenError> {
        let reader = if salvage { NacReader::salvage(input) } else { NacReader::new(input) }?;
        let header = reader.header()?;
        let info = StreamInfo {
            fingerprint: Some(header.fingerprint),
            sample_rate: Some(header.sample_rate),
            channels: Some(header.channels.into()),
            hop: Some(header.hop),
            codebooks: header.layout.codes_per_frame(),
            levels: header.layout.groups().collect(),
            shape: Shape::default(),
            segmented: header.segments,
            frames: None,
            samples: header.samples,
        };
        let open = Codes::new(info.codebooks);
        Ok(Self { reader, info, open, next: None, open_frame: 0, first_frame: 0, headless: false })
    }

    /// The first frame, from the start of the file, of the frames or the loss that came out last; after the end, the number
    /// of frames.
    pub fn first_frame(&self) -> u64 {
        self.first_frame
    }
}

impl<R: Read + Seek> NacTokens<R> {
    /// Goes to a frame: the next frames begin with it, or with the first after it that is there; where frames come in
    /// segments, with the first segment that begins at it or after it (the rest of the one before comes out as lost).
    ///
    /// # Errors
    /// Those of [`NacReader::seek`].
    pub fn seek(&mut self, frame: u64) -> Result<(), TokenError> {
        (self.open, self.next, self.headless) = (Codes::new(self.info.codebooks), None, self.info.segmented);
        Ok(self.reader.seek(frame)?)
    }
}

impl<R: Read> TokenReader for NacTokens<R> {
    fn info(&self) -> &StreamInfo {
        &self.info
    }

    fn next(&mut self, codes: &mut Codes) -> Result<Step, TokenError> {
        *codes = Codes { data: std::mem::take(&mut codes.data), ..Codes::new(self.info.codebooks) };
        codes.clear();
        if let Some((step, first)) = self.next.take() {
            if step == Step::End {
                self.next = Some((step, first));
            }
            self.first_frame = first;
            return Ok(step);
        }
        loop {
            let (step, first) = match self.reader.next()? {
                None => (Step::End, self.info.frames.unwrap_or(self.first_frame)),
                Some(Item::Frames(frames)) => {
                    let first = frames.first_frame;
                    let Some(scale) = frames.scale else {
                        self.first_frame = first;
                        codes.data.extend_from_slice(frames.codes);
                        return Ok(Step::Frames);
                    };
                    let count = frames.codes.len() / self.info.codebooks.max(1);
                    if frames.continues && (self.headless || self.open.segments.is_empty()) {
                        self.headless = true;
                        self.first_frame = first;
                        return Ok(Step::Lost(Some(count as u64)));
                    }
                    self.headless = false;
                    if !frames.continues && !self.open.segments.is_empty() {
                        std::mem::swap(codes, &mut self.open);
                        self.open = Codes::new(self.info.codebooks);
                        self.first_frame = self.open_frame;
                    }
                    match self.open.segments.last_mut() {
                        Some(segment) => segment.frames += count,
                        None => {
                            self.open_frame = first;
                            self.open.segments.push(Segment { frames: count, scale });
                        }
                    }
                    if self.open.data.len() + frames.codes.len() > MAX_SEGMENT {
                        let reason = format!("a segment has more than {MAX_SEGMENT} codes");
                        return Err(TokenError::Malformed { kind: "nac", reason });
                    }
                    self.open.data.extend_from_slice(frames.codes);
                    if codes.segments.is_empty() {
                        continue;
                    }
                    return Ok(Step::Frames);
                }
                Some(Item::Lost(lost)) => (Step::Lost(lost.frames), lost.first_frame),
                Some(Item::End(end)) => {
                    self.info.frames = Some(end.frames);
                    self.info.samples = end.samples;
                    continue;
                }
                Some(_) => continue,
            };
            // The open segment comes out first.
            if self.open.segments.is_empty() {
                self.first_frame = first;
                return Ok(step);
            }
            std::mem::swap(codes, &mut self.open);
            self.open = Codes::new(self.info.codebooks);
            self.first_frame = self.open_frame;
            self.next = Some((step, first));
            return Ok(Step::Frames);
        }
    }
}
