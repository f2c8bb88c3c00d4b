//! The engine of `codec`: what a neural audio codec is (a [`spec`]), and how it runs.
//!
//! `no_std`; without the `alloc` feature it runs deploy images ([`image`]) where they lie, on memory that the caller owns. Nothing here knows of files, threads' owners or a published system.
//!
//! Activations are **channels last**: a signal of `T` rows (time) and `C` channels is one contiguous
//! `[T, C]` slice of `f32`.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod bitstream;
mod error;
pub mod image;
#[allow(unsafe_code)]
pub mod kernel;
#[cfg_attr(not(feature = "alloc"), allow(dead_code, unused_imports, reason = "what only planning needs"))]
mod layer;
pub mod pipeline;
pub mod quantizer;
pub mod spec;
mod table;
pub mod weights;

#[cfg(feature = "alloc")]
pub use error::BuildError;
pub use error::RunError;
