//! Token files that other programs read: NumPy, safetensors and JSON lines.
//!
//! The codes in them are integers `[codebooks, frames]`, or ids in one of the shapes that language models want ([`Shape`]). Readers and writers work in blocks of frames; a file is
//! mapped or streamed, never loaded.

mod grid;
mod jsonl;
mod nac;
mod npy;
mod safetensors;
mod shape;
mod stated;

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

pub use self::safetensors::{SafetensorsReader, SafetensorsWriter};
pub use jsonl::{JsonlReader, JsonlWriter};
pub use nac::{NacTokens, NacTokensWriter};
pub use npy::{NpyReader, NpyWriter};
pub use shape::{Arrangement, Arranger, Levels, MAX_DELAY, Pattern, Restorer, Shape, ShapeError};

use codec_core::bitstream::CodeGroup;
use stated::PartOfFile;

use crate::Codes;

/// Frames that a reader hands out at once.
const BLOCK: usize = 1024;
/// The most codes of a frame that are read: more than any quantizer makes.
const MAX_CODEBOOKS: usize = 4096;

/// Why a token file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There is not one byte.
    #[error("the file is empty")]
    Empty,
    /// The content is not what this kind of file holds; the text says where.
    #[error("not a readable {kind} token file: {reason}")]
    Malformed {
        /// `npy`, say.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Codes that cannot have the shape asked for, or ids that are not in it.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The file's kind has no place for the scales of segments.
    #[error("an npy file has no place for the scales of this model's segments")]
    NoPlaceForScales,
    /// A `.nac` file is damaged or cannot be written so.
    #[error(transparent)]
    Nac(#[from] codec_core::bitstream::Error),
    /// Codes of another number of codebooks than announced.
    #[error("codes of {got} codebooks in a stream of {expected}")]
    Codebooks {
        /// Announced.
        expected: usize,
        /// Given.
        got: usize,
    },
}

/// What is known of a stream of codes beside the codes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamInfo {
    /// The model's fingerprint.
    pub fingerprint: Option<[u8; 16]>,
    /// Samples a second and channel.
    pub sample_rate: Option<u32>,
    /// Audio channels.
    pub channels: Option<usize>,
    /// Samples a channel that a frame stands for.
    pub hop: Option<u32>,
    /// Codebooks, at least 1.
    pub codebooks: usize,
    /// The levels of a frame's codes, in their order; none where not known.
    pub levels: Vec<CodeGroup>,
    /// How the codes are laid out in a file.
    pub shape: Shape,
    /// Whether the frames come in segments, each with its scale.
    pub segmented: bool,
    /// Frames, if known before the end.
    pub frames: Option<u64>,
    /// Exact samples a channel, if known (at the latest after the end).
    pub samples: Option<u64>,
}

impl StreamInfo {
    /// Whether the codes can be laid out so.
    ///
    /// # Errors
    /// [`ShapeError`].
    pub fn check_shape(&self) -> Result<(), ShapeError> {
        stated::arranger(self).map(drop)
    }
}

/// The kinds of token files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The native container.
    Nac,
    /// NumPy array.
    Npy,
    /// Safetensors file.
    Safetensors,
    /// JSON lines.
    Jsonl,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nac, Self::Npy, Self::Safetensors, Self::Jsonl];

    /// The extension of its files.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Nac => "nac",
            Self::Npy => "npy",
            Self::Safetensors => "safetensors",
            Self::Jsonl => "jsonl",
        }
    }

    /// By the extension of a path, in any case.
    pub fn of_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?;
        Self::ALL.into_iter().find(|kind| extension.eq_ignore_ascii_case(kind.extension()))
    }

    /// By the first bytes of a file. A safetensors file may also be a model.
    ///
    /// # Errors
    /// Those of opening and reading it; a folder is one.
    pub fn of_content(path: &Path) -> io::Result<Option<Self>> {
        let mut first = Vec::with_capacity(16);
        File::open(path)?.take(16).read_to_end(&mut first)?;
        Ok(match first.as_slice() {
            [0x89, b'N', b'A', b'C', ..] => Some(Self::Nac),
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(Self::Npy),
            [_, _, _, _, _, _, 0, 0, b'{', ..] => Some(Self::Safetensors),
            [b'{', ..] => Some(Self::Jsonl),
            _ => None,
        })
    }
}

/// What the reader of a file knows beside what the file says: an npy file says nothing but the size of its array.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// The shape; `None` for what the file says.
    pub shape: Option<Shape>,
    /// The levels of a frame's codes, for a file that has another shape than the plain grid and does not state them. A file
    /// with rows takes as many codes of them as it has rows.
    pub levels: Vec<CodeGroup>,
    /// The levels of some neighbouring codes. A file with rows that states no levels and has just as many rows holds these.
    pub part: Vec<CodeGroup>,
}

/// Takes the codes of one signal.
pub trait TokenWriter {
    /// Appends frames. Of a segmented stream, whole segments.
    ///
    /// # Errors
    /// [`TokenError::Io`], [`TokenError::Codebooks`], [`TokenError::NoPlaceForScales`], [`TokenError::Shape`].
    fn write(&mut self, codes: &Codes) -> Result<(), TokenError>;

    /// Completes the file; `samples` is the exact number of samples a channel.
    ///
    /// # Errors
    /// [`TokenError::Io`].
    fn finish(&mut self, samples: u64) -> Result<(), TokenError>;
}

/// Gives the codes of one signal.
pub trait TokenReader {
    /// What the file says of the stream. `samples` and `frames` may come to be known only at the end.
    fn info(&self) -> &StreamInfo;

    /// Goes on in the stream. Replaces the content of `codes` by the next frames if there are some.
    ///
    /// # Errors
    /// [`TokenError::Io`], [`TokenError::Malformed`], [`TokenError::Shape`].
    fn next(&mut self, codes: &mut Codes) -> Result<Step, TokenError>;
}

/// What [`TokenReader::next`] came upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Frames, now in `codes`; of a segmented stream, whole segments.
    Frames,
    /// Frames that are not there any more; `None`: all from here to the end, however many.
    Lost(Option<u64>),
    /// The end.
    End,
}

/// Opens a token file of any kind, by its content. With `salvage`, damage to a `.nac` file is passed over and reported
/// as [`Step::Lost`].
///
/// # Errors
/// Those of [`TokenReader::next`]; [`TokenError::Empty`].
pub fn open(path: &Path, salvage: bool) -> Result<Box<dyn TokenReader>, TokenError> {
    open_with(path, salvage, &Known::default())
}

/// As [`open`], with what is known beside what the file says.
///
/// # Errors
/// As [`open`]; [`TokenError::Shape`] where the two contradict each other.
pub fn open_with(path: &Path, salvage: bool, known: &Known) -> Result<Box<dyn TokenReader>, TokenError> {
    match Kind::of_content(path)? {
        Some(Kind::Npy) => Ok(Box::new(NpyReader::open_with(path, known)?)),
        Some(Kind::Safetensors) => Ok(Box::new(SafetensorsReader::open_with(path, known)?)),
        Some(Kind::Jsonl) => Ok(Box::new(JsonlReader::with(BufReader::new(File::open(path)?), known)?)),
        Some(Kind::Nac) if known.shape.is_some() => Err(ShapeError::Native.into()),
        Some(Kind::Nac) => Ok(Box::new(NacTokens::new(File::open(path)?, salvage)?)),
        None if std::fs::metadata(path)?.len() == 0 => Err(TokenError::Empty),
        None => {
            let reason = "it does not begin like one".to_owned();
            Err(TokenError::Malformed { kind: "nac, npy, safetensors or jsonl", reason })
        }
    }
}

/// Frames in `codes`, after checking that they are whole and of the right width.
fn frames_of(codes: &Codes, codebooks: usize) -> Result<usize, TokenError> {
    if codes.codebooks != codebooks || !codes.data.len().is_multiple_of(codebooks.max(1)) {
        return Err(TokenError::Codebooks { expected: codebooks, got: codes.codebooks });
    }
    Ok(codes.data.len() / codebooks.max(1))
}

/// Lower-case hexadecimal digits.
pub fn to_hex(bytes: &[u8; 16]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 16]> {
    let mut out = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod shape_tests;
#[cfg(test)]
mod tests;
