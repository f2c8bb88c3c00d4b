//! Codebook searches and scalar quantizers: latents to codes and back.
//!
//! A [`Quantizer`] is built once from its [`spec`](crate::spec::Quantizer) and tensors, and then runs without
//! allocating, on memory that the caller lends. Whatever the spec nests, the built form is flat: *spaces* (the
//! latent's columns, perhaps projected) of *chains* (columns that share a residual) of *steps* (one elementary
//! quantizer each), with all tables in one array.

mod beam;
#[cfg(feature = "alloc")]
mod build;
mod checks;
mod fsq;
mod lfq;
mod mvq;
#[cfg(feature = "alloc")]
mod owned;
mod program;
mod random;
mod rows;
mod vq;

pub(crate) use checks::check_kind;
#[cfg(feature = "alloc")]
pub use owned::{Level, Quantizer};
#[cfg(feature = "alloc")]
pub(crate) use program::{Chain, Space};
pub(crate) use program::{Program, Step};
pub(crate) use rows::Dense;

/// The widest beam; a wider one asked for is taken as this.
pub const MAX_BEAM: usize = 64;

/// Frames whose codes are one in a merged codebook (`Quantizer::encode_merged`).
pub const MERGED_FRAMES: usize = program::MERGED_FRAMES;
