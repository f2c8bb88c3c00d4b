//! Errors of building and of running a model.

use core::fmt;

/// Why a model could not be built from its spec and tensors.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum BuildError {
    /// The spec contradicts itself or asks for what does not exist; the text says where and what.
    Spec(alloc::string::String),
    /// A tensor that the spec names is not there.
    MissingTensor(alloc::string::String),
    /// A tensor has another shape or type than the spec says.
    TensorMismatch {
        /// The tensor.
        name: alloc::string::String,
        /// What the spec says.
        expected: alloc::string::String,
        /// What the file holds.
        found: alloc::string::String,
    },
    /// A tensor holds a value that the precision asked for cannot.
    WeightRange {
        /// The tensor.
        name: alloc::string::String,
        /// The value.
        value: f32,
        /// The greatest magnitude that can be held.
        most: f32,
    },
    /// The model of this name has no encoder.
    NoEncoder(alloc::string::String),
    /// The model of this name has no decoder.
    NoDecoder(alloc::string::String),
}

#[cfg(feature = "alloc")]
impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spec(text) => write!(f, "the model's spec is not valid: {text}"),
            Self::MissingTensor(name) => write!(f, "the model has no tensor `{name}`, which its spec names"),
            Self::TensorMismatch { name, expected, found } => {
                write!(f, "tensor `{name}` is {found}, but the spec asks for {expected}")
            }
            Self::WeightRange { name, value, most } => write!(
                f,
                "tensor `{name}` holds {value}, and the precision asked for reaches {most}: keep its weights in f32"
            ),
            Self::NoEncoder(name) => write!(f, "`{name}` has no encoder: it only decodes"),
            Self::NoDecoder(name) => write!(f, "`{name}` has no decoder: it only encodes"),
        }
    }
}

#[cfg(feature = "alloc")]
impl core::error::Error for BuildError {}

/// Why a run of a built model stopped. Nothing was written past what the call reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunError {
    /// A buffer of the caller's is too short.
    BufferTooShort {
        /// Elements that it must hold.
        needed: usize,
        /// Elements that it holds.
        got: usize,
    },
    /// A code is not below its codebook's size.
    CodeOutOfRange {
        /// Frame, counted from the start of the call.
        frame: usize,
        /// Codebook, from 0.
        codebook: usize,
        /// The code.
        code: u16,
        /// The codebook's size.
        size: u32,
    },
    /// Values that do not fill rows of all channels.
    PartialRow {
        /// Values given.
        values: usize,
        /// Channels of a row.
        channels: usize,
    },
    /// The number of codebooks asked for does not exist.
    Codebooks {
        /// Asked for.
        asked: usize,
        /// The model's number; 1 is the least.
        available: usize,
    },
    /// A level of a multi-rate quantizer is used as a whole or not at all.
    Level {
        /// Index of the code in a frame at which the codes asked for begin or end.
        asked: usize,
        /// Index of the level's first code.
        first: usize,
        /// Index of the code after its last.
        end: usize,
    },
    /// A sample is NaN or infinite.
    NotFinite {
        /// Index of the sample (all channels counted) from the start of the call.
        index: usize,
    },
    /// The model cannot do this; the text says what.
    Unsupported(&'static str),
    /// A block of memory for a signal's state does not start where it must.
    Misaligned {
        /// Bytes of which its address must be a multiple.
        align: usize,
    },
    /// A block of memory was not initialised for this model, or was overwritten.
    Uninitialized,
    /// The signal ended (`finish` was called) and the state was not reset.
    Finished,
    /// A step brought more than was planned for, or a chain that needs the whole signal got it in pieces.
    TooLong {
        /// Rows that were planned for.
        planned: usize,
    },
    /// The engine contradicts its own plan: a bug in it, not in the input.
    Internal(&'static str),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BufferTooShort { needed, got } => {
                write!(f, "a buffer holds {got} elements and needs {needed}")
            }
            Self::CodeOutOfRange { frame, codebook, code, size } => {
                write!(
                    f,
                    "code {code} of frame {frame}, codebook {codebook} is out of range: the codebook has {size} entries"
                )
            }
            Self::PartialRow { values, channels } => {
                write!(f, "{values} values do not fill rows of {channels} channels")
            }
            Self::Codebooks { asked, available } => {
                write!(f, "{asked} codebooks asked for; the model has 1 to {available}")
            }
            Self::Level { asked, first, end } => write!(
                f,
                "{asked} codes a frame would cut a level of the quantizer in two: ask for {first} or for {end}"
            ),
            Self::NotFinite { index } => write!(f, "sample {index} is NaN or infinite"),
            Self::Unsupported(what) => f.write_str(what),
            Self::Misaligned { align } => write!(f, "the memory for a signal's state must be aligned to {align} bytes"),
            Self::Uninitialized => {
                f.write_str("this memory does not hold a signal's state of this model: initialise it first")
            }
            Self::Finished => f.write_str("the signal was finished; reset before the next one"),
            Self::TooLong { planned } => {
                write!(
                    f,
                    "more than the {planned} rows or frames planned for one step, or a second step of a model that needs the whole signal"
                )
            }
            Self::Internal(what) => write!(f, "internal error, please report it: {what}"),
        }
    }
}

impl core::error::Error for RunError {}
