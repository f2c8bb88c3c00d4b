//! Seeded noise.

use serde::{Deserialize, Serialize};

use super::{Memory, Step, Weight};
use crate::{
    RunError,
    kernel::{self, Epilogue, Out, Panels, Pointwise, Rows, Start},
};

/// Weyl sequence and finaliser of splitmix64 (Steele et al. 2014).
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

fn splitmix64(x: u64) -> u64 {
    let mut z = x.wrapping_add(GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// FNV-1a, 64 bits, of a name.
pub(crate) fn fnv1a64(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// The noise of row `t`: uniform with unit variance.
fn noise(key: u64, t: u64) -> f32 {
    let h = splitmix64(key.wrapping_add(t.wrapping_mul(GAMMA)));
    // 24 bits: exact in f32.
    ((h >> 40) as f32 / 8_388_608.0 - 1.0) * 1.732_050_8
}

/// `x + noise(t) * (weight · x)`, in place; the identity where neither the signal nor the spec has a seed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct NoiseLayer {
    pub src: usize,
    /// Room for the projection of every row.
    pub tmp: usize,
    pub channels: usize,
    pub weight: Weight,
    /// Hash of the layer's name.
    pub key: u64,
    /// The spec's seed, for signals without their own.
    pub seed: Option<u64>,
}

impl NoiseLayer {
    pub(crate) fn step(&self, s: Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let (at, c) = (mem.view(self.src), self.channels);
        let Some(seed) = s.noise_seed.or(self.seed) else { return Ok(()) };
        let key = self.key.wrapping_add(seed);
        let tmp = mem.room(self.tmp)?;
        let [x, y] = mem
            .scratch
            .get_disjoint_mut([at.start..at.start + at.rows * c, tmp.data()..tmp.end()])
            .map_err(|_| RunError::Internal("buffers overlap"))?;
        let a = Rows { data: &*x, origin: 0, rows: at.rows, row_stride: c, taps: 1, tap_stride: 0, depth: c };
        let weight = Panels { columns: c, depth: c, data: self.weight.of(s.arena)? };
        let plain = Epilogue { residual: None, then: Pointwise::Identity };
        if !kernel::matmul(s.cx, a, weight, Start::Zero, plain, Out { data: &mut *y, origin: 0, row_stride: c }) {
            return Err(RunError::Internal("a noise layer's slices are too short"));
        }
        let first = s.cursor.position;
        s.cursor.position = first.wrapping_add(at.rows as u64);
        for (t, (x, y)) in x.chunks_exact_mut(c).zip(y.chunks_exact(c)).enumerate() {
            let noise = noise(key, first.wrapping_add(t as u64));
            x.iter_mut().zip(y).for_each(|(x, y)| *x += noise * y);
        }
        Ok(())
    }
}
