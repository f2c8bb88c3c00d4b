//! Audio to train on: which files, which parts of them, and batches made in the background.
//!
//! A batch is a function of the seed and its number alone, so that a run that goes on gets what it would have got.

mod corpus;
mod loader;
#[cfg(test)]
mod tests;

pub use corpus::{Clip, Corpus, Fit, Skipped};
pub use loader::{Batch, Cut, Loader, Noise};
