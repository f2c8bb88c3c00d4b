//! First values of a spec's tensors.

use codec_core::spec::{CodecSpec, Layer, TensorSpec};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use crate::Store;

/// Numbers from a seed and a purpose, the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// The stream `purpose` of `seed`; `index` is a step or another number that runs.
    pub fn new(seed: u64, purpose: &str, index: u64) -> Self {
        let hash =
            purpose.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&hash.to_le_bytes());
        key[16..24].copy_from_slice(&index.to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform on `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform on `[-bound, bound)`.
    pub fn within(&mut self, bound: f64) -> f64 {
        (2.0 * self.unit() - 1.0) * bound
    }

    /// Uniform on `0..n`; 0 for `n = 0`.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f64) as usize).min(n.saturating_sub(1))
    }

    /// Standard normal (Box & Muller 1958).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// `count` different numbers below `n`, or all of them.
    pub fn distinct(&mut self, count: usize, n: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        let count = count.min(n);
        for i in 0..count {
            let j = i + self.below(n - i);
            all.swap(i, j);
        }
        all.truncate(count);
        all
    }
}

/// Bound of the uniform first values of a weight and its bias with `fan_in` inputs a sum (PyTorch's default for convolutions).
pub(crate) fn conv_bound(fan_in: usize) -> f64 {
    1.0 / (fan_in.max(1) as f64).sqrt()
}

/// First values of all tensors of `spec`: convolutions, linear layers and LSTMs uniform on `±1 / sqrt(fan in)`; norms and
/// Snake 1; layer scales one over their number; codebooks standard normal times `1 / sqrt(dim)` (a k-means start replaces them).
pub fn initialise(spec: &CodecSpec, store: &mut Store, seed: u64) {
    let mut norms = Vec::new();
    let mut scales = Vec::new();
    for layers in [&spec.encoder, &spec.decoder].into_iter().flatten() {
        special(layers, &mut norms, &mut scales);
    }
    let all = spec.tensors();
    for (index, tensor) in all.iter().enumerate() {
        let (layer, part) = tensor.name.rsplit_once('.').unwrap_or(("", &tensor.name));
        let mut random = Random::new(seed, &tensor.name, index as u64);
        let count: usize = tensor.shape.iter().product();
        let mut uniform = |bound: f64| -> Vec<f32> { (0..count).map(|_| random.within(bound) as f32).collect() };
        let values = match part {
            "alpha" => vec![1.0; count],
            "scale" => vec![1.0 / scales.len().max(1) as f32; count],
            "weight" if norms.iter().any(|n| n == layer) => vec![1.0; count],
            "bias" if norms.iter().any(|n| n == layer) => vec![0.0; count],
            "codebook" => {
                let dim = tensor.shape.last().copied().unwrap_or(1);
                let mut random = Random::new(seed, &tensor.name, index as u64);
                (0..count).map(|_| (random.normal() * conv_bound(dim)) as f32).collect()
            }
            "bias" => {
                let weight = all.iter().find(|t| t.name.strip_suffix(".weight") == Some(layer));
                uniform(conv_bound(weight.map_or(1, fan_in)))
            }
            // Of an LSTM: all by the hidden size.
            _ if part.starts_with("weight_hh") || part.starts_with("weight_ih") || part.starts_with("bias_") => {
                uniform(conv_bound(tensor.shape.first().map_or(1, |n| n / 4)))
            }
            _ => uniform(conv_bound(fan_in(tensor))),
        };
        // An EMA codebook is not trained; who trains it says so.
        store.insert(&tensor.name, &tensor.shape, values, true);
    }
}

/// Products in a sum: all axes but the first.
fn fan_in(tensor: &TensorSpec) -> usize {
    tensor.shape.iter().skip(1).product()
}

/// Names of normalisations and layer scales.
fn special(layers: &[Layer], norms: &mut Vec<String>, scales: &mut Vec<String>) {
    for layer in layers {
        match layer {
            Layer::GroupNorm(l) => norms.push(l.name.clone()),
            Layer::LayerNorm(l) => norms.push(l.name.clone()),
            Layer::Scale { name, .. } => scales.push(name.clone()),
            Layer::Residual(l) => {
                special(&l.body, norms, scales);
                special(&l.shortcut, norms, scales);
            }
            Layer::Parallel(l) => l.branches.iter().for_each(|branch| {
                special(&branch.body, norms, scales);
                special(&branch.then, norms, scales);
            }),
            _ => {}
        }
    }
}
