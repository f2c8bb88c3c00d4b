//! Neural audio codecs: sound into tokens and back.
pub use codec_core as core;
pub mod nac;
