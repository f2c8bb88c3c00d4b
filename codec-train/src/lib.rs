//! The trainer of `codec`: differentiable networks from the same spec as the engine, and the same model file out of them.
//!
//! A [`TrainCodec`] is built from a [`codec_core::spec::CodecSpec`] and computes what the engine computes, with gradients. Its
//! tensors are in a [`Store`], under the engine's names. [`trainer::Trainer`] runs a [`recipe::Recipe`].

#![deny(unsafe_code)]

mod checkpoint;
pub mod coder;
mod cpu;
pub mod data;
pub mod device;
pub mod disc;
mod error;
pub mod group;
pub mod loss;
mod model;
pub mod net;
pub mod optim;
pub mod quantizer;
pub mod recipe;
mod store;
pub mod trainer;
mod validation;

pub use error::TrainError;
pub use model::TrainCodec;
pub(crate) use store::host;
pub use store::{Entry, Grads, Precision, Store, Tracking, Vars};
