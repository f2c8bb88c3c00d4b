//! What can go wrong between a file and its tokens.

use std::{io, path::PathBuf};

use codec_core::{BuildError, RunError, kernel::Isa};
use thiserror::Error;

use crate::{
    image_file::ImageFileError,
    model_file::{Fingerprint, ModelFileError},
};

/// Why a model could not be loaded, or a signal not be coded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The model file cannot be read.
    #[error(transparent)]
    ModelFile(#[from] ModelFileError),
    /// The deploy image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageFileError),
    /// Two models that should be one of different precision.
    #[error("the models differ: fingerprints {expected} and {found}")]
    OtherModel {
        /// Fingerprint of the one.
        expected: Fingerprint,
        /// Fingerprint of the other.
        found: Fingerprint,
    },
    /// A file cannot be read.
    #[error("cannot access {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The model's spec and tensors do not make a codec.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The engine stopped.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A device that computes in place of the engine failed, or cannot do this.
    #[error("on {device}: {reason}")]
    Device {
        /// What it is.
        device: String,
        /// What it said.
        reason: String,
    },
    /// The instruction set is not there.
    #[error("this machine does not have the instruction set `{0}`; leave the choice to the program")]
    Isa(Isa),
    /// The system gave no threads.
    #[error("cannot start threads: {0}")]
    Threads(String),
    /// A model that needs the whole signal would need more memory than allowed.
    #[error(
        "{model} needs the whole signal at once ({reason}): {seconds:.1} s would take {needed} MiB of memory and {allowed} MiB are allowed; \
         allow more, or cut the audio"
    )]
    Memory {
        /// The model's name.
        model: String,
        /// Why it cannot stream.
        reason: String,
        /// How much audio there is so far.
        seconds: f64,
        /// Mebibytes.
        needed: u64,
        /// Mebibytes.
        allowed: u64,
    },
    /// One signal would take more memory than allowed, however short it is.
    #[error("{model} takes {needed} MiB of memory for a signal and {allowed} MiB are allowed; allow more")]
    SignalMemory {
        /// The model's name.
        model: String,
        /// Mebibytes.
        needed: u64,
        /// Mebibytes.
        allowed: u64,
    },
    /// The length asked for is not one that the frames can make.
    #[error("{samples} samples a channel are asked for, and {frames} frames make {made}")]
    Length {
        /// Asked for.
        samples: u64,
        /// Made of the frames.
        made: u64,
        /// Frames.
        frames: usize,
    },
    /// Codes that do not make frames of the decoder's size.
    #[error("{codes} codes of {got} a frame, but the decoder was made for {expected} a frame; make one for as many")]
    CodesPerFrame {
        /// Codes given.
        codes: usize,
        /// Codes a frame, as given.
        got: usize,
        /// Codes a frame of the decoder.
        expected: usize,
    },
    /// A segment that the model cannot have made.
    #[error(
        "a segment of {frames} frames and scale {scale}; the model has at most {most} frames a segment and {given} are given; \
         give whole segments as the encoder made them"
    )]
    Segment {
        /// Frames that the segment states.
        frames: usize,
        /// Its scale, which is finite in a good one.
        scale: f32,
        /// Frames of the model's longest segment.
        most: usize,
        /// Frames that are there.
        given: usize,
    },
    /// A model that codes in segments got frames outside of any.
    #[error("{frames} frames belong to no segment; this model codes in segments: give the frames with theirs")]
    NoSegment {
        /// Frames behind the last segment.
        frames: usize,
    },
    /// A model that does not code in segments got some.
    #[error("{segments} segments, but this model does not cut signals; give the model that made the codes")]
    Segments {
        /// Segments given.
        segments: usize,
    },
}
