//! Codes as JSON lines, for pipelines of text tools.
//!
//! ```text
//! {"format":"codec-tokens","version":1,"fingerprint":"…","sample_rate":24000,"channels":1,"hop":320,"codebooks":2,
//!  "levels":[{"first_book":0,"books":2,"steps":1,"size":1024}]}
//! [17,903]
//! [4,61]
//! {"end":{"frames":2,"samples":600}}
//! ```
//!
//! The first line is the header; `format`, `version` and `codebooks` are needed, the rest may be absent. Then a line
//! a frame, its codes in the order of the codebooks. In a stream of segments the header has `"segmented":true` and a
//! line `{"segment":{"frames":150,"scale":0.25}}` precedes the frames of each. The last line is `end`: without it the
//! file was cut off. Its `frames`, if there, is checked; `samples` is the exact number of samples a channel.
//!
//! In another [`Shape`] than the plain grid the header has it as `shape`, say `{"pattern":"tree","offsets":true}`; it then needs
//! `levels`. A line is a column of ids, and a sequence is the ids of all lines one after another.

use std::io::{BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};

use super::{
    Arranger, BLOCK, Known, MAX_CODEBOOKS, PartOfFile, Restorer, Shape, Step, StreamInfo, TokenError, TokenReader,
    TokenWriter, frames_of, from_hex,
    stated::{StatedLevel, arranger, state},
    to_hex,
};
use crate::{Codes, Segment};

const FORMAT: &str = "codec-tokens";
const VERSION: u32 = 1;
/// Bytes of the longest line that is read.
const MAX_LINE: u64 = 1 << 20;
/// Codes of the largest segment that is read.
const MAX_SEGMENT: usize = 1 << 24;

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sample_rate: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    channels: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hop: Option<u32>,
    codebooks: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    levels: Vec<StatedLevel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shape: Option<Shape>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    segmented: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Mark {
    Segment {
        frames: usize,
        scale: f32,
    },
    End {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        frames: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        samples: Option<u64>,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Frame(Vec<serde_json::Number>),
    Mark(Mark),
}

/// Writes codes as JSON lines.
pub struct JsonlWriter<W> {
    out: W,
    arranger: Arranger,
    ids: Vec<u32>,
    frames: u64,
}

impl<W: Write> JsonlWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// [`TokenError::Io`], [`TokenError::Shape`].
    pub fn new(mut out: W, stream: &StreamInfo) -> Result<Self, TokenError> {
        let arranger = arranger(stream)?;
        let shape = Some(arranger.arrangement().shape()).filter(|s| **s != Shape::default()).cloned();
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            fingerprint: stream.fingerprint.as_ref().map(to_hex),
            sample_rate: stream.sample_rate,
            channels: stream.channels,
            hop: stream.hop,
            codebooks: stream.codebooks,
            levels: state(&stream.levels),
            shape,
            segmented: stream.segmented,
        };
        line(&mut out, &header)?;
        Ok(Self { out, arranger, ids: Vec::new(), frames: 0 })
    }

    fn columns(&mut self) -> Result<(), TokenError> {
        for column in self.ids.chunks_exact(self.arranger.arrangement().codes()) {
            line(&mut self.out, &column)?;
        }
        self.ids.clear();
        Ok(())
    }
}

fn line(out: &mut impl Write, value: &impl Serialize) -> Result<(), TokenError> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

impl<W: Write> TokenWriter for JsonlWriter<W> {
    fn write(&mut self, codes: &Codes) -> Result<(), TokenError> {
        let codebooks = self.arranger.arrangement().codes();
        self.frames += frames_of(codes, codebooks)? as u64;
        let mut rest = codes.data.as_slice();
        for segment in &codes.segments {
            line(&mut self.out, &Mark::Segment { frames: segment.frames, scale: segment.scale })?;
            let (own, others) = rest.split_at(segment.frames.saturating_mul(codebooks).min(rest.len()));
            self.arranger.push(own, &mut self.ids)?;
            self.columns()?;
            rest = others;
        }
        self.arranger.push(rest, &mut self.ids)?;
        self.columns()
    }

    fn finish(&mut self, samples: u64) -> Result<(), TokenError> {
        self.arranger.finish(&mut self.ids);
        self.columns()?;
        line(&mut self.out, &Mark::End { frames: Some(self.frames), samples: Some(samples) })?;
        self.out.flush()?;
        Ok(())
    }
}

/// Reads codes from JSON lines.
#[derive(Debug)]
pub struct JsonlReader<R> {
    input: R,
    info: StreamInfo,
    line: Vec<u8>,
    /// Lines read.
    number: u64,
    restorer: Restorer,
    ended: bool,
}

impl<R: BufRead> JsonlReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`TokenError::Io`], [`TokenError::Malformed`], [`TokenError::Empty`].
    pub fn new(input: R) -> Result<Self, TokenError> {
        Self::with(input, &Known::default())
    }

    /// Reads the header of a file of a known shape.
    ///
    /// # Errors
    /// As [`Self::new`]; [`TokenError::Shape`].
    pub fn with(input: R, known: &Known) -> Result<Self, TokenError> {
        let info = StreamInfo::default();
        let restorer = Restorer::new(super::Arrangement::plain(1));
        let mut reader = Self { input, info, line: Vec::new(), number: 0, restorer, ended: false };
        if !reader.read_line()? {
            return Err(TokenError::Empty);
        }
        let header: Header = serde_json::from_slice(&reader.line).map_err(|e| reader.malformed(&e.to_string()))?;
        if header.format != FORMAT || header.version != VERSION {
            let found = format!("it is `{}` of version {}", header.format, header.version);
            return Err(reader.malformed(&format!("{found}, and this reads `{FORMAT}` of version {VERSION}")));
        }
        if header.codebooks == 0 || header.codebooks > MAX_CODEBOOKS {
            return Err(reader.malformed(&format!("it has {} codebooks", header.codebooks)));
        }
        let fingerprint = match &header.fingerprint {
            None => None,
            Some(text) => Some(from_hex(text).ok_or_else(|| reader.malformed("`fingerprint` is no fingerprint"))?),
        };
        let file = PartOfFile::new(header.shape, &header.levels);
        let arrangement = known.resolve(&file, header.codebooks, Some(header.codebooks))?;
        reader.info = StreamInfo {
            fingerprint,
            sample_rate: header.sample_rate,
            channels: header.channels,
            hop: header.hop,
            codebooks: header.codebooks,
            levels: file.levels,
            shape: arrangement.shape().clone(),
            segmented: header.segmented,
            ..StreamInfo::default()
        };
        reader.restorer = Restorer::new(arrangement);
        Ok(reader)
    }

    /// Reads the next line that is not blank; `false` at the end of the file.
    fn read_line(&mut self) -> Result<bool, TokenError> {
        loop {
            self.line.clear();
            if self.input.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.line)? == 0 {
                return Ok(false);
            }
            self.number += 1;
            if self.line.len() as u64 == MAX_LINE {
                return Err(self.malformed("the line is too long"));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    fn malformed(&self, reason: &str) -> TokenError {
        TokenError::Malformed { kind: "jsonl", reason: format!("line {}: {reason}", self.number) }
    }

    fn frame(&mut self, numbers: &[serde_json::Number], codes: &mut Codes) -> Result<(), TokenError> {
        if numbers.len() != self.info.codebooks {
            let counts = format!("{} codes, and the header says {} codebooks", numbers.len(), self.info.codebooks);
            return Err(self.malformed(&counts));
        }
        for number in numbers {
            let value = number.as_i128().ok_or_else(|| self.malformed(&format!("{number} is not a whole number")))?;
            self.restorer.push([value], &mut codes.data)?;
        }
        Ok(())
    }
}

impl<R: BufRead> TokenReader for JsonlReader<R> {
    fn info(&self) -> &StreamInfo {
        &self.info
    }

    fn next(&mut self, codes: &mut Codes) -> Result<Step, TokenError> {
        codes.codebooks = self.info.codebooks;
        codes.data.clear();
        codes.segments.clear();
        // Frames of the open segment that are still to come.
        let mut missing = 0usize;
        while !self.ended {
            if !self.read_line()? {
                return Err(self.malformed("the file ends without its `end` line: it was cut off"));
            }
            let line = serde_json::from_slice(&self.line)
                .map_err(|_| self.malformed("it is neither a frame `[…]`, nor `{\"segment\":…}`, nor `{\"end\":…}`"))?;
            match line {
                Line::Frame(numbers) => {
                    if self.info.segmented && missing == 0 {
                        return Err(self.malformed("a frame outside of a segment"));
                    }
                    self.frame(&numbers, codes)?;
                    missing = missing.saturating_sub(1);
                    if missing == 0 && (self.info.segmented || codes.data.len() >= BLOCK * codes.codebooks) {
                        return Ok(Step::Frames);
                    }
                }
                Line::Mark(Mark::Segment { frames, scale }) => {
                    if !self.info.segmented || missing > 0 {
                        return Err(self.malformed("a segment where none can begin"));
                    }
                    if frames == 0 || frames > MAX_SEGMENT / codes.codebooks || !scale.is_finite() {
                        return Err(self.malformed(&format!("a segment of {frames} frames and scale {scale}")));
                    }
                    missing = frames;
                    codes.segments.push(Segment { frames, scale });
                }
                Line::Mark(Mark::End { frames, samples }) => {
                    if missing > 0 {
                        return Err(self.malformed(&format!("the last segment lacks {missing} frames")));
                    }
                    let found = self.restorer.frames();
                    self.restorer.finish()?;
                    if let Some(stated) = frames.filter(|&n| n != found) {
                        return Err(self.malformed(&format!("{stated} frames stated, {found} found")));
                    }
                    self.info.samples = samples;
                    self.info.frames = Some(found);
                    self.ended = true;
                    if self.read_line()? {
                        return Err(self.malformed("text after the `end` line"));
                    }
                }
            }
        }
        Ok(if codes.data.is_empty() { Step::End } else { Step::Frames })
    }
}
