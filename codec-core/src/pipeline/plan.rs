//! What is known of a chain before the first sample.

use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Sizes, delays and costs of a chain.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ChainPlan {
    /// In the order in which they run.
    pub layers: Vec<LayerPlan>,
    /// Weights and biases.
    pub parameters: u64,
    /// Multiply-accumulates an input row, on average.
    pub macs_per_row: f64,
    /// Output rows an input row, as numerator and denominator.
    pub rate: (u64, u64),
    /// Input rows that an output row looks ahead of its own place.
    pub lookahead: f64,
    /// Input rows that an output row depends on; `None` where memory is endless (recurrent layers, or layers
    /// that need the whole signal).
    pub receptive_field: Option<f64>,
    /// Why the chain needs the whole signal in one step, if it does.
    pub whole: Option<String>,
}

/// One layer of a [`ChainPlan`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerPlan {
    /// What it is, with its sizes.
    pub kind: String,
    /// Prefix of its tensors' names; empty if it has none.
    pub name: String,
    /// Weights and biases.
    pub parameters: u64,
    /// Multiply-accumulates an input row of the chain, on average.
    pub macs_per_row: f64,
    /// Values that it keeps between steps.
    pub state: usize,
    /// Number of the first planned step from this layer on, in [`Chain::step_watched`](super::Chain::step_watched). Steps
    /// before the next layer's are this layer's, or sum a residual that ends with it. 0 in a plan read from an image.
    #[serde(skip)]
    pub first_step: usize,
}

/// How rows of a buffer lie in the chain's input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// Input rows a row.
    pub rows: (u64, u64),
    /// Input rows that row `n` needs beyond `(n + 1) * rows`.
    pub ahead: f64,
    /// Input rows that a row depends on.
    pub field: f64,
    /// Rows by which it may be behind the input of the path, at most.
    pub lag: usize,
}

impl Timing {
    pub(super) fn step(&self) -> f64 {
        self.rows.0 as f64 / self.rows.1 as f64
    }
}

pub(super) fn reduce((a, b): (u64, u64)) -> (u64, u64) {
    let (mut x, mut y) = (a.max(1), b.max(1));
    while y > 0 {
        (x, y) = (y, x % y);
    }
    (a / x, b / x)
}
