//! Codes in a safetensors file.
//!
//! | tensor | type and shape | |
//! |---|---|---|
//! | `codes` | I32 `[codebooks, frames]` | |
//! | `segment_frames` | I32 `[segments]` | of a segmented stream |
//! | `segment_scales` | F32 `[segments]` | of a segmented stream |
//!
//! Metadata, all text: `codec.tokens` = `1`, `codec.fingerprint` (32 hexadecimal digits), `codec.sample_rate`,
//! `codec.channels`, `codec.hop`, `codec.samples`. Reading needs `codes` only, of any integer type.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use ::safetensors::{Dtype, SafeTensors};
use memmap2::Mmap;

use super::{
    BLOCK, Step, StreamInfo, TokenError, TokenReader, TokenWriter, frames_of, from_hex,
    grid::{Grid, Int},
    to_hex,
};
use crate::{Codes, Segment, mapped::map};

/// Writes codes to a file. Frames are spooled to a second one, because the matrix lies codebook by codebook and its
/// length is known at the end.
pub struct SafetensorsWriter<W> {
    out: W,
    spool: File,
    stream: StreamInfo,
    frames: u64,
    segments: Vec<Segment>,
    bytes: Vec<u8>,
}

impl<W: Write + Seek> SafetensorsWriter<W> {
    /// Begins a file. `spool` is an empty scratch file, open for reading and writing.
    pub fn new(out: W, spool: File, stream: &StreamInfo) -> Self {
        Self { out, spool, stream: stream.clone(), frames: 0, segments: Vec::new(), bytes: Vec::new() }
    }

    fn header(&self, samples: u64) -> Result<Vec<u8>, TokenError> {
        let mut metadata = serde_json::Map::new();
        let mut put = |key: &str, value: Option<String>| {
            metadata.extend(value.map(|v| (format!("codec.{key}"), v.into())));
        };
        put("tokens", Some("1".into()));
        put("fingerprint", self.stream.fingerprint.as_ref().map(to_hex));
        put("sample_rate", self.stream.sample_rate.map(|v| v.to_string()));
        put("channels", self.stream.channels.map(|v| v.to_string()));
        put("hop", self.stream.hop.map(|v| v.to_string()));
        put("samples", Some(samples.to_string()));
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), metadata.into());
        let mut offset = 0;
        let mut tensor = |name: &str, dtype: &str, shape: &[u64]| {
            let end = offset + 4 * shape.iter().product::<u64>();
            let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [offset, end] });
            header.insert(name.into(), entry);
            offset = end;
        };
        tensor("codes", "I32", &[self.stream.codebooks as u64, self.frames]);
        if self.stream.segmented {
            tensor("segment_frames", "I32", &[self.segments.len() as u64]);
            tensor("segment_scales", "F32", &[self.segments.len() as u64]);
        }
        let mut text = serde_json::to_vec(&header).map_err(std::io::Error::other)?;
        text.resize(text.len().next_multiple_of(8), b' ');
        Ok(text)
    }
}

impl<W: Write + Seek> TokenWriter for SafetensorsWriter<W> {
    fn write(&mut self, codes: &Codes) -> Result<(), TokenError> {
        self.frames += frames_of(codes, self.stream.codebooks)? as u64;
        self.bytes.clear();
        self.bytes.extend(codes.data.iter().flat_map(|c| c.to_le_bytes()));
        self.spool.write_all(&self.bytes)?;
        self.segments.extend(codes.segments.iter().copied());
        Ok(())
    }

    fn finish(&mut self, samples: u64) -> Result<(), TokenError> {
        let header = self.header(samples)?;
        self.out.write_all(&(header.len() as u64).to_le_bytes())?;
        self.out.write_all(&header)?;
        let start = 8 + header.len() as u64;
        let codebooks = self.stream.codebooks;
        self.spool.seek(SeekFrom::Start(0))?;
        let mut done = 0;
        while done < self.frames {
            let frames = (self.frames - done).min(16 * BLOCK as u64);
            self.bytes.resize(frames as usize * codebooks * 2, 0);
            self.spool.read_exact(&mut self.bytes)?;
            let mut row = Vec::with_capacity(frames as usize * 4);
            for codebook in 0..codebooks {
                row.clear();
                for frame in self.bytes.chunks_exact(2 * codebooks) {
                    if let Some(&[a, b]) = frame.get(2 * codebook..2 * codebook + 2) {
                        row.extend([a, b, 0, 0]);
                    }
                }
                self.out.seek(SeekFrom::Start(start + 4 * (codebook as u64 * self.frames + done)))?;
                self.out.write_all(&row)?;
            }
            done += frames;
        }
        if self.stream.segmented {
            for segment in &self.segments {
                self.out.write_all(&(segment.frames as u32).to_le_bytes())?;
            }
            for segment in &self.segments {
                self.out.write_all(&segment.scale.to_le_bytes())?;
            }
        }
        self.out.flush()?;
        Ok(())
    }
}

/// Reads codes from a file.
#[derive(Debug)]
pub struct SafetensorsReader {
    grid: Grid,
    info: StreamInfo,
    segments: std::vec::IntoIter<Segment>,
}

impl SafetensorsReader {
    /// Whether a mapped safetensors file holds codes, as far as its header says.
    ///
    /// # Errors
    /// [`TokenError::Io`], [`TokenError::Malformed`] if it is no safetensors file.
    pub fn has_codes(path: &Path) -> Result<bool, TokenError> {
        let map = map(path)?;
        let (_, metadata) = SafeTensors::read_metadata(&map).map_err(|e| malformed(e.to_string()))?;
        Ok(metadata.info("codes").is_some())
    }

    /// Opens a file.
    ///
    /// # Errors
    /// [`TokenError::Io`], [`TokenError::Malformed`].
    pub fn open(path: &Path) -> Result<Self, TokenError> {
        let map = map(path)?;
        let (length, metadata) = SafeTensors::read_metadata(&map).map_err(|e| malformed(e.to_string()))?;
        let start = 8 + length;
        let texts = metadata.metadata().clone().unwrap_or_default();
        let codes = metadata.info("codes").ok_or_else(|| {
            let model = texts.contains_key("codec.spec");
            malformed(if model { "it is a model" } else { "it has no tensor `codes`" }.to_owned())
        })?;
        let (bytes, signed) = match codes.dtype {
            Dtype::U8 => (1, false),
            Dtype::I8 => (1, true),
            Dtype::U16 => (2, false),
            Dtype::I16 => (2, true),
            Dtype::U32 => (4, false),
            Dtype::I32 => (4, true),
            Dtype::U64 => (8, false),
            Dtype::I64 => (8, true),
            other => return Err(malformed(format!("`codes` are of type {other:?}, and codes are integers"))),
        };
        let int = Int { bytes, signed, big_endian: false };
        let number = |key: &str| -> Result<Option<u64>, TokenError> {
            let text = texts.get(&format!("codec.{key}"));
            text.map(|t| t.parse().map_err(|_| malformed(format!("`codec.{key}` is `{t}`, no number")))).transpose()
        };
        let number32 = |key: &str| -> Result<Option<u32>, TokenError> {
            let narrow = |n| u32::try_from(n).map_err(|_| malformed(format!("`codec.{key}` is too large")));
            number(key)?.map(narrow).transpose()
        };
        let fingerprint = match texts.get("codec.fingerprint") {
            None => None,
            Some(text) => {
                Some(from_hex(text).ok_or_else(|| malformed("`codec.fingerprint` is no fingerprint".into()))?)
            }
        };
        let mut info = StreamInfo {
            fingerprint,
            sample_rate: number32("sample_rate")?,
            channels: number32("channels")?.map(|n| n as usize),
            hop: number32("hop")?,
            samples: number("samples")?,
            ..StreamInfo::default()
        };
        let tensor = |name| metadata.info(name).map(|t| (t.dtype, &t.shape, start + t.data_offsets.0));
        let segments = match (tensor("segment_frames"), tensor("segment_scales")) {
            (None, None) => Vec::new(),
            (Some((Dtype::I32, frames, f)), Some((Dtype::F32, scales, s))) if frames == scales && frames.len() == 1 => {
                info.segmented = true;
                let count = frames.first().copied().unwrap_or(0);
                read_segments(&map, f, s, count)?
            }
            _ => return Err(malformed("`segment_frames` (I32) and `segment_scales` (F32) do not match".into())),
        };
        let offset = start + codes.data_offsets.0;
        let shape = codes.shape.clone();
        let grid = Grid::new(map, offset, int, &shape, false).map_err(malformed)?;
        if info.segmented {
            let sum = segments.iter().try_fold(0usize, |sum, s| sum.checked_add(s.frames));
            if sum != Some(grid.frames) {
                return Err(malformed(format!("its segments do not add up to its {} frames", grid.frames)));
            }
        }
        info.codebooks = grid.codebooks;
        info.frames = Some(grid.frames as u64);
        Ok(Self { grid, info, segments: segments.into_iter() })
    }
}

fn read_segments(map: &Mmap, frames: usize, scales: usize, count: usize) -> Result<Vec<Segment>, TokenError> {
    let word = |at: usize| map.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or([0; 4]);
    let segment = |i: usize| {
        let length = i32::from_le_bytes(word(frames + 4 * i));
        let scale = f32::from_le_bytes(word(scales + 4 * i));
        let valid = length > 0 && scale.is_finite();
        valid
            .then_some(Segment { frames: length as usize, scale })
            .ok_or_else(|| malformed(format!("segment {i} has {length} frames and a scale of {scale}")))
    };
    (0..count).map(segment).collect()
}

impl TokenReader for SafetensorsReader {
    fn info(&self) -> &StreamInfo {
        &self.info
    }

    fn next(&mut self, codes: &mut Codes) -> Result<Step, TokenError> {
        if !self.info.segmented {
            return self.grid.next_block(codes);
        }
        let Some(segment) = self.segments.next() else {
            codes.data.clear();
            codes.segments.clear();
            return Ok(Step::End);
        };
        debug_assert!(segment.frames <= self.grid.left());
        let step = self.grid.next(segment.frames, codes)?;
        codes.segments.push(segment);
        Ok(step)
    }
}

fn malformed(reason: String) -> TokenError {
    TokenError::Malformed { kind: "safetensors", reason }
}
