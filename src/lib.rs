//! Neural audio codecs: sound into tokens and back.
#![deny(unsafe_code)]

pub use codec_core as core;

#[cfg(feature = "audio")]
pub mod audio;
mod facade_stub;
mod mapped;
pub mod nac;
pub mod tokens;

pub use facade_stub::*;
