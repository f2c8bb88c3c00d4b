//! A whole codec.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

use super::{Layer, Quantizer};

/// The version of this schema that the engine writes, and the newest that it reads.
pub const SPEC_VERSION: u32 = 1;

/// A whole codec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodecSpec {
    /// Schema version, [`SPEC_VERSION`].
    pub version: u32,
    /// A name for people and for messages; the engine never looks at it.
    pub name: String,
    /// Samples a second and channel.
    pub sample_rate: u32,
    /// Audio channels, interleaved at the API.
    pub channels: u32,
    /// Samples (a channel) that one frame of codes stands for: of a multi-rate quantizer
    /// ([`Quantizer::Rated`]) the coarsest period.
    pub hop: u32,
    /// Channels of the latent between encoder, quantizer and decoder.
    pub latent: u32,
    /// How a long signal is cut for the network.
    pub framing: Framing,
    /// Codebook counts that the publisher offers, ascending; any count up to the last still works.
    pub codebook_choices: Vec<u32>,
    /// Samples to latent; `None` in a model that only decodes.
    pub encoder: Option<Vec<Layer>>,
    /// Latent to codes and back.
    pub quantizer: Quantizer,
    /// Latent to samples; `None` in a model that only encodes.
    pub decoder: Option<Vec<Layer>>,
}

/// How a long signal is cut before it meets the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Framing {
    /// One signal from its first sample to its last.
    Stream,
    /// Overlapping segments, each coded by itself and cross-faded by a triangle
    /// (EnCodec 48 kHz; Défossez et al. 2022, section 3.1).
    Segments {
        /// Samples in a segment.
        length: u32,
        /// Samples between the starts of two segments.
        stride: u32,
        /// Divide a segment by its loudness (root mean square of the channels' mean, plus 1e-8) and
        /// carry that scale beside its codes.
        normalize: bool,
    },
    /// Overlapping windows for the encoder, each encoded by itself. Of what two windows share, the first half is coded by
    /// the earlier and the second by the later one, so the frames are those of one signal, and the decoder takes them as
    /// such (the PyPI package `s3tokenizer`, signals of more than 30 s). The last window is the first that reaches the end.
    Windows {
        /// Samples in a window: a whole number of hops.
        length: u32,
        /// Samples between the starts of two windows: a whole number of hops, and so is half of `length - stride`.
        stride: u32,
    },
}
