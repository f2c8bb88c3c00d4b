//! A codec's networks as planned chains of layers, and what runs them.

mod build;
mod chain;
mod coder;
mod plan;
mod segments;
#[cfg(test)]
mod tests;

pub use chain::{Chain, ChainState};
pub use coder::{Decoder, DecoderState, Encoder, EncoderState};
pub use plan::{ChainPlan, LayerPlan};
pub use segments::{Crossfade, Segmented, Window, Windowed, normalize};
