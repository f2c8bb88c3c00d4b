//! Group normalisation over the whole signal, and layer normalisation of each row.

use serde::{Deserialize, Serialize};

use super::{Memory, Slot, Step};
use crate::{RunError, kernel};

/// A planned group normalisation, in place.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct GroupNormLayer {
    pub src: usize,
    /// Room for a factor and an offset a channel.
    pub tmp: usize,
    pub channels: usize,
    pub groups: usize,
    pub epsilon: f32,
    pub weight: Slot,
    pub bias: Slot,
}

/// Rows whose sum is taken by itself, so that the order of summation does not depend on who sums.
const BLOCK: usize = 256;

impl GroupNormLayer {
    pub(crate) fn step(&self, s: Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let at = mem.view(self.src);
        if at.rows == 0 {
            return Ok(());
        }
        let (src, tmp) = (mem.room(self.src)?, mem.room(self.tmp)?);
        let (weight, bias) = (self.weight.of(s.arena)?, self.bias.of(s.arena)?);
        let c = self.channels;
        let [x, t] = mem
            .scratch
            .get_disjoint_mut([at.start..src.end(), tmp.data()..tmp.end()])
            .map_err(|_| RunError::Internal("buffers overlap"))?;
        let x = x.get_mut(..at.rows * c).ok_or(RunError::Internal("rows outside the scratch memory"))?;
        let (scale, shift) = t.split_at_mut_checked(c).ok_or(RunError::Internal("no room for statistics"))?;
        let shift = shift.get_mut(..c).ok_or(RunError::Internal("no room for statistics"))?;
        let size = c / self.groups;
        let count = (at.rows * size) as f64;
        for g in 0..self.groups {
            let (first, last) = (g * size, (g + 1) * size);
            let total = |f: &dyn Fn(f32) -> f64| -> f64 {
                x.chunks(BLOCK * c)
                    .map(|block| {
                        let rows = block.chunks_exact(c).filter_map(|row| row.get(first..last));
                        rows.map(|row| row.iter().map(|&v| f(v)).sum::<f64>()).sum::<f64>()
                    })
                    .sum()
            };
            let mean = total(&|v| f64::from(v)) / count;
            let variance = total(&|v| (f64::from(v) - mean) * (f64::from(v) - mean)) / count;
            let inverse = 1.0 / libm::sqrt(variance + f64::from(self.epsilon));
            for i in first..last {
                let w = f64::from(weight[i]) * inverse;
                scale[i] = w as f32;
                shift[i] = (f64::from(bias[i]) - mean * w) as f32;
            }
        }
        for row in x.chunks_exact_mut(c) {
            for ((v, a), b) in row.iter_mut().zip(&*scale).zip(&*shift) {
                *v = *v * a + b;
            }
        }
        Ok(())
    }
}

/// A planned layer normalisation, in place.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct LayerNormLayer {
    pub src: usize,
    pub epsilon: f32,
    pub weight: Slot,
    pub bias: Slot,
}

impl LayerNormLayer {
    pub(crate) fn step(&self, s: &Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let at = mem.view(self.src);
        let (weight, bias) = (self.weight.of(s.arena)?, self.bias.of(s.arena)?);
        let x = mem.slice(at.start, at.rows * weight.len())?;
        let short = RunError::Internal("a layer normalisation's slices are too short");
        if kernel::layer_norm(s.cx, weight, bias, self.epsilon, x) { Ok(()) } else { Err(short) }
    }
}
