//! Neural audio codecs: sound into tokens and back.
#![deny(unsafe_code)]

pub use codec_core as core;

pub mod checkpoint;
pub mod import;
mod mapped;
pub mod model_file;
