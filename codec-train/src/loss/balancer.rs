//! Weights of losses by what they do to the output.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::group::{Alone, Group};

/// EnCodec's balancer (Défossez et al. 2022, section 3.4, equation 5): each loss's gradient at the decoder's output is divided by a
/// moving average of its norm, so that a loss's weight is its share of the total gradient, whatever its own scale.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Balancer {
    /// Weight of each loss, by name.
    pub weights: BTreeMap<String, f32>,
    /// What a step keeps of the average.
    pub decay: f64,
    /// The norm of all gradients together.
    pub total: f32,
    /// For each loss, the discounted sum of norms, and of ones.
    averages: BTreeMap<String, (f64, f64)>,
}

/// The gradient at the output, and what each loss had.
#[derive(Debug)]
pub struct Balanced {
    /// To be sent through the decoder.
    pub gradient: Tensor<3>,
    /// Norms before balancing (the mean over items), by loss.
    pub norms: BTreeMap<String, f64>,
}

impl Balancer {
    /// A balancer with no past.
    pub fn new(weights: BTreeMap<String, f32>, decay: f64) -> Self {
        Self { weights, decay, total: 1.0, averages: BTreeMap::new() }
    }

    /// The averages, for a checkpoint.
    pub fn averages(&self) -> &BTreeMap<String, (f64, f64)> {
        &self.averages
    }

    /// Goes on from a checkpoint's averages.
    pub fn set_averages(&mut self, averages: BTreeMap<String, (f64, f64)>) {
        self.averages = averages;
    }

    /// Puts gradients `[batch, channels, samples]` of single losses together. Norms are means over the items of a batch. A
    /// loss without a weight, or whose average is zero, has no part. `None` if no loss has. Norms that are not finite do not come
    /// into the averages.
    pub fn combine(&mut self, gradients: Vec<(&str, Tensor<3>)>) -> Option<Balanced> {
        self.combine_in(&Alone, gradients)
    }

    /// As [`Balancer::combine`], each process of a group with its part of the batch; norms are means over all items.
    pub fn combine_in(&mut self, group: &dyn Group, gradients: Vec<(&str, Tensor<3>)>) -> Option<Balanced> {
        let mut norms = BTreeMap::new();
        let mut parts = Vec::new();
        let mut all: Vec<f64> = gradients
            .iter()
            .map(|(_, gradient)| {
                let squares = gradient.clone().square().sum_dim(2).sum_dim(1);
                f64::from(squares.sqrt().mean().into_scalar::<f32>())
            })
            .collect();
        group.sum_f64(&mut all);
        for ((name, gradient), norm) in gradients.into_iter().zip(all) {
            let Some(weight) = self.weights.get(name).copied().filter(|w| *w != 0.0) else { continue };
            let norm = norm / group.size() as f64;
            norms.insert(name.to_owned(), norm);
            let (sum, count) = self.averages.entry(name.to_owned()).or_default();
            if norm.is_finite() {
                *sum = *sum * self.decay + norm;
                *count = *count * self.decay + 1.0;
            }
            let average = *sum / *count;
            // What is not finite must not be lost, whatever was before: the step is left out for it.
            let divisor = if norm.is_finite() || average > 0.0 { average } else { 1.0 };
            parts.push((weight, divisor, gradient));
        }
        let all: f32 = parts.iter().map(|(weight, ..)| weight).sum();
        let scaled = parts
            .into_iter()
            .filter(|(_, average, _)| *average > 0.0)
            .map(|(weight, average, gradient)| gradient.mul_scalar(f64::from(self.total * weight / all) / average));
        let gradient = scaled.reduce(|a, b| a + b)?;
        Some(Balanced { gradient, norms })
    }
}
