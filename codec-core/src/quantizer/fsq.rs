//! Finite scalar quantisation (Mentzer et al. 2023), and its residual form.

use serde::{Deserialize, Serialize};

use super::program::{CodesMut, CodesRef};
use super::rows::Run;
use crate::kernel::{Pointwise, pointwise};
use crate::spec::FsqBound;

/// Values that the tables hold for a channel: levels, half width, offset, shift.
pub(super) const PARAMETERS: usize = 4;

/// `stages` codes a row over `channels` channels.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Fsq {
    pub channels: usize,
    pub stages: usize,
    pub bound: FsqBound,
    pub soft_clamp: bool,
    /// Where the channels' [`PARAMETERS`] start.
    pub parameters: usize,
}

/// What the tables hold for a channel of `levels` levels.
#[cfg(feature = "alloc")]
pub(super) fn parameters(levels: u32, margin: f32) -> [f32; PARAMETERS] {
    let half = (levels - 1) as f32 * (1.0 + margin) / 2.0;
    let offset = if levels.is_multiple_of(2) { 0.5 } else { 0.0 };
    [levels as f32, half, offset, libm::atanhf(offset / half)]
}

impl Fsq {
    fn table<'a>(&self, data: &'a [f32]) -> &'a [[f32; PARAMETERS]] {
        data[self.parameters..].as_chunks().0.get(..self.channels).unwrap_or(&[])
    }

    /// Codes of `x`, `[rows, channels]`, which is used up.
    pub fn encode(&self, run: Run<'_>, x: &mut [f32], codes: &mut CodesMut<'_>) {
        let table = self.table(run.data);
        match self.bound {
            FsqBound::Tanh => {
                for row in x.chunks_exact_mut(self.channels) {
                    row.iter_mut().zip(table).for_each(|(x, p)| *x += p[3]);
                }
                pointwise(run.cx, Pointwise::Tanh, self.channels, x);
                for (t, row) in x.chunks_exact(self.channels).enumerate() {
                    let levels = row.iter().zip(table).map(|(&x, &[levels, half, offset, _])| {
                        (libm::rintf(x * half - offset) + half_width(levels), levels)
                    });
                    codes.set(t, 0, join(levels));
                }
            }
            FsqBound::Symmetric => {
                if self.soft_clamp {
                    let limit = |p: &[f32; PARAMETERS]| 1.0 + 1.0 / (p[0] - 1.0);
                    for row in x.chunks_exact_mut(self.channels) {
                        row.iter_mut().zip(table).for_each(|(x, p)| *x /= limit(p));
                    }
                    pointwise(run.cx, Pointwise::Tanh, self.channels, x);
                    for row in x.chunks_exact_mut(self.channels) {
                        row.iter_mut().zip(table).for_each(|(x, p)| *x *= limit(p));
                    }
                }
                for (t, row) in x.chunks_exact_mut(self.channels).enumerate() {
                    for stage in 0..self.stages {
                        let levels = row.iter_mut().zip(table).map(|(x, p)| {
                            let scale = scale(p[0], stage);
                            let steps = p[0] - 1.0;
                            #[expect(
                                clippy::manual_clamp,
                                reason = "its panic brings the formatting of floats into firmware"
                            )]
                            let z = (*x / scale).max(-1.0).min(1.0);
                            let level = libm::floorf(steps * (z + 1.0) / 2.0 + 0.5);
                            *x -= symmetric(level, p[0]) * scale;
                            (level, p[0])
                        });
                        codes.set(t, stage, join(levels));
                    }
                }
            }
        }
    }

    /// The sum of the stages whose codes are there.
    pub fn decode(&self, run: Run<'_>, codes: CodesRef<'_>, out: &mut [f32]) {
        let table = self.table(run.data);
        for (t, row) in out.chunks_exact_mut(self.channels).enumerate() {
            row.fill(0.0);
            for stage in 0..self.stages {
                let Some(mut code) = codes.get(t, stage) else { continue };
                for (o, p) in row.iter_mut().zip(table) {
                    let levels = (p[0] as usize).max(1);
                    let level = (code % levels) as f32;
                    code /= levels;
                    *o += match self.bound {
                        FsqBound::Tanh => (level - half_width(p[0])) / half_width(p[0]),
                        FsqBound::Symmetric => symmetric(level, p[0]) * scale(p[0], stage),
                    };
                }
            }
        }
    }
}

/// Levels below zero: `L / 2`, rounded down.
fn half_width(levels: f32) -> f32 {
    libm::floorf(levels / 2.0)
}

/// The value of a level on `[-1, 1]`.
fn symmetric(level: f32, levels: f32) -> f32 {
    2.0 / (levels - 1.0) * level - 1.0
}

/// `levels^-stage`.
fn scale(levels: f32, stage: usize) -> f32 {
    let mut power = 1.0;
    for _ in 0..stage {
        power *= levels;
    }
    1.0 / power
}

/// The code of a row of `(level, levels)`, first fastest. A level that is no number counts as 0.
fn join(row: impl Iterator<Item = (f32, f32)>) -> usize {
    let (mut code, mut basis) = (0, 1);
    for (level, levels) in row {
        code += (level.max(0.0).min(levels - 1.0) as usize) * basis;
        basis *= levels as usize;
    }
    code
}
