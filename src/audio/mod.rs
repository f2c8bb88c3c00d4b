//! Audio files: reading (wav, flac, mp3, ogg vorbis, m4a), writing (wav), and making a signal fit a model.
//!
//! Samples are `f32`, interleaved, with full scale at ±1. A *frame* here is one sample of every channel.
//! Everything works in blocks, so memory does not depend on a file's length.

mod conform;
mod read;
mod wav;

pub use conform::{Allow, Conform};
pub use read::{AudioInfo, AudioReader, in_guarded_reader};
pub use wav::{SampleFormat, WavReport, WavWriter};

/// Why audio could not be read, fitted or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AudioError {
    /// The file system or a pipe failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// There is not one byte.
    #[error("the file is empty")]
    Empty,
    /// The file is well formed and holds no sample.
    #[error("the file holds no samples")]
    NoSamples,
    /// No known format, or a form of it that is not supported; the text says which.
    #[error("not audio that can be read: {0}")]
    Unsupported(String),
    /// The header promises what a file of this size cannot hold.
    #[error("its header declares {declared} samples a channel, but a file of this size holds at most {room}")]
    LyingHeader {
        /// Frames that the header declares.
        declared: u64,
        /// Frames that would fit.
        room: u64,
    },
    /// The file ends before its header says.
    #[error("its header declares {declared} samples a channel, but it ends after {found}")]
    Truncated {
        /// Frames that the header declares.
        declared: u64,
        /// Frames that are there.
        found: u64,
    },
    /// A packet does not decode.
    #[error("it is damaged at sample {frame}: {detail}")]
    Damaged {
        /// Frames decoded before the damage.
        frame: u64,
        /// What the decoder says.
        detail: String,
    },
    /// The rate or channel count changes on the way.
    #[error("its format changes at sample {frame} from {before} to {after}")]
    FormatChanges {
        /// Frames before the change.
        frame: u64,
        /// Rate and channels before.
        before: String,
        /// Rate and channels after.
        after: String,
    },
    /// A sample is NaN or infinite.
    #[error("sample {frame} of channel {channel} is {value}")]
    NotFinite {
        /// Frame, from 0.
        frame: u64,
        /// Channel, from 0.
        channel: usize,
        /// The value.
        value: f32,
    },
    /// A sample rate outside of what can be resampled.
    #[error("a sample rate of {rate} Hz is out of range ({min} to {max} Hz)")]
    RateOutOfRange {
        /// The rate.
        rate: u32,
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// The rates differ and resampling was not asked for.
    #[error("it has {found} Hz and the model works at {wanted} Hz")]
    RateMismatch {
        /// Rate of the file.
        found: u32,
        /// Rate of the model.
        wanted: u32,
    },
    /// The channel counts differ and mixing was not asked for, or there is no rule for this pair.
    #[error("it has {found} channel(s) and the model works on {wanted}")]
    ChannelMismatch {
        /// Channels of the file.
        found: usize,
        /// Channels of the model.
        wanted: usize,
    },
}
