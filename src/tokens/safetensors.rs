//! Codes in a safetensors file.
//!
//! | tensor | type and shape | |
//! |---|---|---|
//! | `codes` | I32 `[codebooks, frames]`, or ids of another [`Shape`] | |
//! | `segment_frames` | I32 `[segments]` | of a segmented stream |
//! | `segment_scales` | F32 `[segments]` | of a segmented stream |
//!
//! Metadata, all text: `codec.tokens` = `1`, `codec.fingerprint` (32 hexadecimal digits), `codec.sample_rate`,
//! `codec.channels`, `codec.hop`, `codec.samples`; and as JSON `codec.levels` (of the codes of a frame, in their order, each
//! `{"first_book":0,"books":8,"steps":1,"size":1024}`) and, if it is not the plain grid, `codec.shape` (a [`Shape`], say
//! `{"pattern":{"delay":[0,1]},"pad":1024}` or `{"pattern":"tree","offsets":true}`). Reading needs `codes` only, of any integer type.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use ::safetensors::{Dtype, SafeTensors};
use memmap2::Mmap;

use super::{
    Arranger, BLOCK, Known, PartOfFile, Shape, Step, StreamInfo, TokenError, TokenReader, TokenWriter, frames_of,
    from_hex,
    grid::{Array, Grid, Int},
    stated::{StatedLevel, arranger, state},
    to_hex,
};
use crate::{Codes, Segment, mapped::map};

/// Writes codes to a file. Frames are spooled to a second one, because the matrix lies codebook by codebook and its
/// length is known at the end.
pub struct SafetensorsWriter<W> {
    out: W,
    spool: File,
    stream: StreamInfo,
    arranger: Arranger,
    ids: Vec<u32>,
    /// Columns of ids.
    columns: u64,
    segments: Vec<Segment>,
    bytes: Vec<u8>,
}

impl<W: Write + Seek> SafetensorsWriter<W> {
    /// Begins a file. `spool` is an empty scratch file, open for reading and writing.
    ///
    /// # Errors
    /// [`TokenError::Shape`].
    pub fn new(out: W, spool: File, stream: &StreamInfo) -> Result<Self, TokenError> {
        let arranger = arranger(stream)?;
        let (ids, segments, bytes) = Default::default();
        Ok(Self { out, spool, stream: stream.clone(), arranger, ids, columns: 0, segments, bytes })
    }

    fn spool(&mut self) -> Result<(), TokenError> {
        self.columns += (self.ids.len() / self.stream.codebooks) as u64;
        self.bytes.clear();
        self.bytes.extend(self.ids.drain(..).flat_map(u32::to_le_bytes));
        self.spool.write_all(&self.bytes)?;
        Ok(())
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
        let arrangement = self.arranger.arrangement();
        if !self.stream.levels.is_empty() {
            let levels = serde_json::to_string(&state(&self.stream.levels)).map_err(std::io::Error::other)?;
            put("levels", Some(levels));
        }
        if *arrangement.shape() != Shape::default() {
            put("shape", Some(serde_json::to_string(arrangement.shape()).map_err(std::io::Error::other)?));
        }
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), metadata.into());
        let mut offset = 0;
        let mut tensor = |name: &str, dtype: &str, shape: &[u64]| {
            let end = offset + 4 * shape.iter().product::<u64>();
            let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [offset, end] });
            header.insert(name.into(), entry);
            offset = end;
        };
        let rows = self.stream.codebooks as u64;
        match arrangement.is_sequence() {
            true => tensor("codes", "I32", &[rows * self.columns]),
            false => tensor("codes", "I32", &[rows, self.columns]),
        }
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
        frames_of(codes, self.stream.codebooks)?;
        self.arranger.push(&codes.data, &mut self.ids)?;
        self.segments.extend(codes.segments.iter().copied());
        self.spool()
    }

    fn finish(&mut self, samples: u64) -> Result<(), TokenError> {
        self.arranger.finish(&mut self.ids);
        self.spool()?;
        let header = self.header(samples)?;
        self.out.write_all(&(header.len() as u64).to_le_bytes())?;
        self.out.write_all(&header)?;
        let start = 8 + header.len() as u64;
        let rows = self.stream.codebooks;
        self.spool.seek(SeekFrom::Start(0))?;
        let mut done = 0;
        while done < self.columns {
            let columns = (self.columns - done).min(16 * BLOCK as u64);
            self.bytes.resize(columns as usize * rows * 4, 0);
            self.spool.read_exact(&mut self.bytes)?;
            done += columns;
            if self.arranger.arrangement().is_sequence() {
                self.out.write_all(&self.bytes)?;
                continue;
            }
            let mut line = Vec::with_capacity(columns as usize * 4);
            for row in 0..rows {
                line.clear();
                let ids = self.bytes.chunks_exact(4 * rows).filter_map(|column| column.get(4 * row..4 * row + 4));
                ids.for_each(|id| line.extend_from_slice(id));
                self.out.seek(SeekFrom::Start(start + 4 * (row as u64 * self.columns + done - columns)))?;
                self.out.write_all(&line)?;
            }
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
        Self::open_with(path, &Known::default())
    }

    /// Opens a file of a known shape.
    ///
    /// # Errors
    /// As [`Self::open`]; [`TokenError::Shape`].
    pub fn open_with(path: &Path, known: &Known) -> Result<Self, TokenError> {
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
        let stated = |key: &str| texts.get(&format!("codec.{key}"));
        let shape: Option<Shape> = stated("shape")
            .map(|text| serde_json::from_str(text).map_err(|e| malformed(format!("`codec.shape` is no shape: {e}"))))
            .transpose()?;
        let levels: Vec<StatedLevel> = stated("levels")
            .map(|text| serde_json::from_str(text).map_err(|e| malformed(format!("`codec.levels` are no levels: {e}"))))
            .transpose()?
            .unwrap_or_default();
        let file = PartOfFile::new(shape, &levels);
        let axes = codes.shape.clone();
        let array = Array { kind: "safetensors", map, offset, int, axes: &axes, column_major: false };
        let grid = Grid::new(array, known, &file)?;
        if info.segmented {
            let sum = segments.iter().try_fold(0usize, |sum, s| sum.checked_add(s.frames));
            if sum != Some(grid.frames()) {
                return Err(malformed(format!("its segments do not add up to its {} frames", grid.frames())));
            }
        }
        info.codebooks = grid.codebooks();
        info.frames = Some(grid.frames() as u64);
        info.shape = grid.shape().clone();
        info.levels = file.levels;
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
        let step = self.grid.next(segment.frames, codes)?;
        codes.segments.push(segment);
        Ok(step)
    }
}

fn malformed(reason: String) -> TokenError {
    TokenError::Malformed { kind: "safetensors", reason }
}
