//! Neural audio codecs: sound into tokens and back.
pub use codec_core as core;

#[cfg(feature = "audio")]
pub mod audio;
