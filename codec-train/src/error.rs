//! What can go wrong between a recipe and a model file.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a model cannot be built for training, a recipe not be run, or a run not go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A layer or quantizer that has no differentiable form here.
    #[error("`{layer}` ({kind}) cannot be trained: {reason}")]
    Untrainable {
        /// Name of the layer, or where it is.
        layer: String,
        /// What it is.
        kind: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// A tensor that the model needs is not there.
    #[error("the model has no tensor `{0}`")]
    NoTensor(String),
    /// A tensor of another shape.
    #[error("tensor `{name}` has the shape {found:?}; {expected:?} is needed")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that is needed.
        expected: Vec<usize>,
    },
    /// A signal that gives a layer no output.
    #[error("{rows} rows are too few for `{layer}`, whose window spans {needed}: train on longer segments")]
    TooShort {
        /// The layer.
        layer: String,
        /// Rows with their padding.
        rows: usize,
        /// Rows of its window.
        needed: usize,
    },
    /// A signal with more rows at a layer than a tensor of the device can have.
    #[error(
        "the signal comes to {rows} rows where the network sees the whole of it, and the device holds {most}: cut the file"
    )]
    TooLong {
        /// Rows of the signal there.
        rows: usize,
        /// Rows at most.
        most: u64,
    },
    /// There is no such published system to take a spec from.
    #[error("there is no system `{name}` whose spec is known; there are {}", known.join(", "))]
    UnknownSystem {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// The recipe's precision is none of the device's.
    #[error("the device does not compute in {0:?}: leave `run.precision` out of the recipe, or take another --device")]
    Precision(burn::tensor::DType),
    /// A teacher whose latents are not row for row those of the model.
    #[error("the teacher {name} makes {theirs} rows of latents of an item, and the model {own}: take another teacher")]
    Teacher {
        /// Its name.
        name: String,
        /// Its rows.
        theirs: usize,
        /// The model's.
        own: usize,
    },
    /// Reading, planning or running a model failed.
    #[error(transparent)]
    Codec(#[from] codec::Error),
    /// A model file could not be read or written.
    #[error(transparent)]
    ModelFile(#[from] codec::model_file::ModelFileError),
    /// A recipe that cannot be understood.
    #[error("{path}: {reason}")]
    Recipe {
        /// The recipe.
        path: PathBuf,
        /// What is wrong with it, and in which line.
        reason: String,
    },
    /// Audio that cannot be trained on.
    #[error("{path}: {reason}")]
    Data {
        /// The folder, manifest or file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint that cannot be read, or that is not of this run.
    #[error("checkpoint {path}: {reason}")]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("cannot access {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A device that is not there or not built in.
    #[error("device `{name}`: {reason}")]
    Device {
        /// What was asked for.
        name: String,
        /// Why it cannot be had.
        reason: String,
    },
    /// Processes that cannot train together.
    #[error("{0}")]
    Group(String),
    /// Another process of the group has failed, and says why.
    #[error("process {rank} failed")]
    Elsewhere {
        /// Which.
        rank: usize,
    },
    /// A loss or gradient became NaN or infinite.
    #[error(
        "step {step}: `{what}` is {value}; the batch was cut from {}; {}",
        files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", "),
        checkpoint.as_ref().map_or_else(
            || "there is no checkpoint yet".to_owned(),
            |path| format!("the last good checkpoint is {}", path.display())
        )
    )]
    NotFinite {
        /// The step, from 0.
        step: u64,
        /// The loss or gradient.
        what: String,
        /// Its value.
        value: f64,
        /// The files of the batch.
        files: Vec<PathBuf>,
        /// The last checkpoint that was written.
        checkpoint: Option<PathBuf>,
    },
}

impl TrainError {
    /// For `map_err`: an [`TrainError::Io`] at `path`.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_path_buf(), source }
    }
}
