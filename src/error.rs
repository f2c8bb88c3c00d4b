//! What can go wrong between a file and its tokens.

use codec_core::{BuildError, RunError, kernel::Isa};
use thiserror::Error;

use crate::model_file::ModelFileError;

/// Why a model could not be loaded, or a signal not be coded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The model file cannot be read.
    #[error(transparent)]
    ModelFile(#[from] ModelFileError),
    /// The model's spec and tensors do not make a codec.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The engine stopped.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The instruction set is not there.
    #[error("this machine does not have the instruction set `{0}`; leave the choice to the program")]
    Isa(Isa),
    /// The system gave no threads.
    #[error("cannot start threads: {0}")]
    Threads(String),
    /// A model that needs the whole signal would need more memory than allowed.
    #[error(
        "{model} needs the whole signal at once ({reason}): {seconds:.1} s would take {needed} MB of memory and {allowed} MB are allowed; \
         allow more, or cut the audio"
    )]
    Memory {
        /// The model's name.
        model: String,
        /// Why it cannot stream.
        reason: String,
        /// How much audio there is so far.
        seconds: f64,
        /// Megabytes.
        needed: u64,
        /// Megabytes.
        allowed: u64,
    },
    /// One signal would take more memory than allowed, however short it is.
    #[error("{model} takes {needed} MB of memory for a signal and {allowed} MB are allowed; allow more")]
    SignalMemory {
        /// The model's name.
        model: String,
        /// Megabytes.
        needed: u64,
        /// Megabytes.
        allowed: u64,
    },
    /// Codes that do not fit the model.
    #[error("{0}")]
    Codes(String),
}
