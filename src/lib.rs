#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub use codec_core as core;

// The command line names the library as its users do.
#[cfg(feature = "cli")]
extern crate self as codec;

#[cfg(feature = "audio")]
pub mod audio;
#[cfg(feature = "default-model")]
mod built_in;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
mod codes;
mod compare;
mod error;
#[cfg(feature = "eval")]
pub mod eval;
mod image_file;
pub mod import;
mod mapped;
mod model;
pub mod model_file;
pub mod nac;
pub mod nano;
#[cfg(feature = "cli")]
mod report;
mod stream;
mod threads;
pub mod tokens;

pub use codes::{Codes, Segment};
pub use compare::{COMPARED_SECONDS, Comparison, LayerSnr};
pub use error::Error;
pub use image_file::{ImageFileError, PackOptions, PackParts};
pub use model::{Bitrate, Model, ModelInfo, NetworkInfo, Options};
pub use stream::{Decoder, Encoder};
pub use threads::MOST_THREADS;
