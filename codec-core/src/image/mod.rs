//! The deploy image: a planned model with its packed weights in one piece of bytes, which runs where it lies, in flash
//! or in a mapped file, without a heap (`docs/image.md`).
//!
//! ```
//! # fn run(bytes: &[u8], memory: &mut [u8], codes: &[u16]) -> Result<(), Box<dyn std::error::Error>> {
//! use codec_core::{image::Image, kernel::{Compute, Isa}};
//!
//! let image = Image::open(bytes)?;
//! let decoder = image.decoder()?;
//! let cx = Compute { isa: Isa::detect(), pool: None };
//! decoder.init(memory, image.codebooks())?; // at least `decoder.state_bytes()` bytes
//! let pcm: &[f32] = decoder.step(cx, memory, codes, true)?;
//! # Ok(())
//! # }
//! ```

mod check;
mod coder;
mod error;
#[cfg(feature = "alloc")]
mod load;
mod sections;
#[cfg(feature = "alloc")]
mod write;

use serde::{Deserialize, Serialize};

pub use coder::{Decoder, Encoder};
pub use error::ImageError;
use sections::{Kind, Sections};
#[cfg(feature = "alloc")]
pub use {
    load::{SharedBytes, load},
    write::pack,
};

use crate::{
    pipeline::network::{Layout, Network},
    quantizer::Program,
    table::{Stored, Table},
    weights::Precision,
};

/// The version of the format that is written, and the only one that is read.
pub const IMAGE_VERSION: u32 = 1;

/// Bytes to which an image must be aligned in memory. It is written for 64, which is faster.
pub const IMAGE_ALIGN: usize = 8;

/// How a signal is cut, as a spec's framing says: a step of the networks takes one such piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Cut {
    /// Not at all.
    Stream,
    /// Into overlapping segments that are coded and cross-faded by themselves.
    Segments {
        /// Samples of a segment.
        length: u32,
        /// Samples between two starts.
        stride: u32,
        /// Whether each is divided by its loudness.
        normalize: bool,
    },
    /// Into overlapping windows of the encoder.
    Windows {
        /// Samples of a window.
        length: u32,
        /// Samples between two starts.
        stride: u32,
    },
}

/// What is known of a model without its networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Samples a second and channel.
    pub sample_rate: u32,
    /// Audio channels, interleaved.
    pub channels: u32,
    /// Samples (a channel) of a frame.
    pub hop: u32,
    /// Frames of a step, at most.
    pub frames: u32,
    /// Samples by which decoded sound is behind when it is coded frame by frame, rounded up; `None` for a model that needs
    /// whole signals, segments or windows.
    pub delay: Option<u32>,
    /// How the library cuts signals for the networks.
    pub cut: Cut,
    /// How the weights of the networks are held.
    pub precision: Precision,
    /// The model's fingerprint, as streams name it.
    pub fingerprint: [u8; 16],
}

/// A planned chain but for its tables.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Head {
    state_len: usize,
    input: usize,
    output: usize,
    last: usize,
    whole: bool,
    scratch: usize,
    max_rows: usize,
    output_rows: usize,
}

/// A quantizer but for its tables.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct QuantizerHead {
    dim: usize,
    rows: usize,
    can_decode: bool,
}

/// A chain with the places of its buffers.
#[derive(Clone, Copy, Debug)]
struct Planned<'a> {
    network: Network<'a>,
    layout: Layout<'a>,
}

/// A model's image.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    sections: Sections<'a>,
    meta: Meta,
    quantizer: Program<'a>,
    encoder: Option<Planned<'a>>,
    decoder: Option<Planned<'a>>,
}

impl<'a> Image<'a> {
    /// Reads an image where it lies. Every byte is read once, for its checksum.
    ///
    /// # Errors
    /// The bytes are no image, of another version, truncated, damaged, or not aligned to [`IMAGE_ALIGN`].
    pub fn open(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let sections = Sections::open(bytes)?;
        let meta: Meta = sections.value(Kind::Meta)?;
        let head: QuantizerHead = sections.value(Kind::Quantizer)?;
        let quantizer = Program {
            dim: head.dim,
            rows: head.rows,
            can_decode: head.can_decode,
            spaces: table(&sections, Kind::Spaces)?,
            chains: table(&sections, Kind::Chains)?,
            steps: table(&sections, Kind::Steps)?,
            sizes: sections.values(Kind::Sizes)?,
            data: sections.values(Kind::Tables)?,
        };
        check::quantizer(&quantizer).ok_or(ImageError::Inconsistent("quantizer"))?;
        let encoder = planned(&sections, &sections::ENCODER)?;
        let decoder = planned(&sections, &sections::DECODER)?;
        for (part, ends) in [(&encoder, false), (&decoder, true)] {
            let Some(part) = part else { continue };
            let network = &part.network;
            let (samples, latent) =
                if ends { (network.output, network.input) } else { (network.input, network.output) };
            if samples != meta.channels as usize || latent != quantizer.dim {
                return Err(ImageError::Inconsistent("channels"));
            }
        }
        if meta.sample_rate == 0 || meta.hop == 0 || meta.frames == 0 {
            return Err(ImageError::Inconsistent("rates"));
        }
        Ok(Self { sections, meta, quantizer, encoder, decoder })
    }

    /// Rates and sizes.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Codes of a frame when all codebooks are used.
    pub fn codebooks(&self) -> usize {
        self.quantizer.sizes.len()
    }

    /// Entries of each codebook, in the order of a frame's codes.
    pub fn sizes(&self) -> &'a [u32] {
        self.quantizer.sizes
    }

    /// The spec as JSON, if it was packed.
    pub fn spec_json(&self) -> Option<&'a [u8]> {
        self.sections.find(Kind::Spec).map(|s| s.bytes)
    }

    /// The encoder.
    ///
    /// # Errors
    /// The image has none.
    pub fn encoder(&self) -> Result<Encoder<'a>, ImageError> {
        let part = self.encoder.ok_or(ImageError::Missing("encoder"))?;
        Ok(Encoder::new(self.quantizer, part))
    }

    /// The decoder.
    ///
    /// # Errors
    /// The image has none.
    pub fn decoder(&self) -> Result<Decoder<'a>, ImageError> {
        let part = self.decoder.ok_or(ImageError::Missing("decoder"))?;
        Ok(Decoder::new(self.quantizer, part))
    }
}

fn table<'a, T>(sections: &Sections<'a>, kind: Kind) -> Result<Table<'a, T>, ImageError> {
    let section = sections.get(kind)?;
    Stored::new(section.bytes, section.stride).map(Table::Stored).ok_or(ImageError::Inconsistent("tables"))
}

fn planned<'a>(sections: &Sections<'a>, kinds: &sections::Part) -> Result<Option<Planned<'a>>, ImageError> {
    if sections.find(kinds.head).is_none() {
        return Ok(None);
    }
    let head: Head = sections.value(kinds.head)?;
    let network = Network {
        ops: table(sections, kinds.ops)?,
        phases: table(sections, kinds.phases)?,
        buffers: table(sections, kinds.buffers)?,
        arena: sections.values(kinds.weights)?,
        state_len: head.state_len,
        input: head.input,
        output: head.output,
        last: head.last,
        whole: head.whole,
    };
    let layout = Layout {
        rooms: table(sections, kinds.rooms)?,
        scratch: head.scratch,
        max_rows: head.max_rows,
        output_rows: head.output_rows,
    };
    check::network(&network, &layout).ok_or(ImageError::Inconsistent("network"))?;
    Ok(Some(Planned { network, layout }))
}
