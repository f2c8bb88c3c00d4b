//! Tensors in memory.

use std::collections::BTreeMap;

use codec_core::{
    spec::TensorSpec,
    weights::{Dtype, TensorView, Tensors},
};

/// f32 tensors by name.
#[derive(Default)]
pub struct MapTensors(pub BTreeMap<String, (Vec<usize>, Vec<u8>)>);

impl Tensors for MapTensors {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (shape, bytes) = self.0.get(name)?;
        Some(TensorView { dtype: Dtype::F32, shape, bytes })
    }
}

impl MapTensors {
    pub fn insert(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.0.insert(name.to_string(), (shape.to_vec(), bytes));
    }

    /// Values in a range that keeps activations near 1, different for every seed.
    pub fn random(list: &[TensorSpec], seed: u64) -> Self {
        let mut tensors = Self::default();
        let mut state = seed | 1;
        for t in list {
            let n: usize = t.shape.iter().product();
            let fan: usize = t.shape.iter().skip(1).product();
            let scale = if t.shape.len() > 1 { 1.7 / (fan as f32).sqrt() } else { 0.3 };
            let offset =
                if t.name.ends_with("alpha") || (t.shape.len() == 1 && t.name.ends_with("weight")) { 1.0 } else { 0.0 };
            let values: Vec<f32> = (0..n)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    offset + scale * ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
                })
                .collect();
            tensors.insert(&t.name, &t.shape, &values);
        }
        tensors
    }
}
