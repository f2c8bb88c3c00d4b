//! A codec's networks as planned chains of layers, and what runs them.

#[cfg(feature = "alloc")]
mod build;
#[cfg(feature = "alloc")]
mod chain;
pub(crate) mod coder;
mod memory;
pub(crate) mod network;
#[cfg(feature = "alloc")]
mod owned;
#[cfg(feature = "alloc")]
mod plan;
#[cfg(feature = "alloc")]
mod segments;
#[cfg(test)]
mod tests;

#[cfg(feature = "alloc")]
pub use build::mel_filters;
#[cfg(feature = "alloc")]
pub use chain::{Chain, ChainState};
pub use coder::{Coding, Decoding};
pub use memory::STATE_ALIGN;
#[cfg(feature = "alloc")]
pub use owned::{Decoder, DecoderState, Encoder, EncoderState};
#[cfg(feature = "alloc")]
pub use plan::{ChainPlan, LayerPlan};
#[cfg(feature = "alloc")]
pub use segments::{Crossfade, Segmented, Window, Windowed, normalize};
