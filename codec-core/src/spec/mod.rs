//! What a codec is, as data: rates, layers, quantizer. No weights and no maths.
//!
//! A spec is a value. It is written as JSON in the metadata of a model file, it is what the planner
//! sizes, what the engine runs and what a trainer builds from. Tensors are named by the layers: a
//! layer called `x` owns `x.weight`, `x.bias`, and whatever else its documentation lists.

#[cfg(feature = "alloc")]
mod attention;
#[cfg(feature = "alloc")]
mod codec;
#[cfg(feature = "alloc")]
mod inventory;
#[cfg(feature = "alloc")]
mod layer;
#[cfg(feature = "alloc")]
mod quantizer;
mod rule;

#[cfg(feature = "alloc")]
pub use attention::*;
#[cfg(feature = "alloc")]
pub use codec::*;
#[cfg(feature = "alloc")]
pub(crate) use inventory::MAX_LSTM_LAYERS;
#[cfg(feature = "alloc")]
pub use inventory::{TensorSpec, layer_tensors};
#[cfg(feature = "alloc")]
pub use layer::*;
#[cfg(feature = "alloc")]
pub use quantizer::*;
pub use rule::*;
