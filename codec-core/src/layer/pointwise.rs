//! Functions of one value, with their parameters in the arena.

use serde::{Deserialize, Serialize};

use super::{Memory, Slot, Step, View, align};
use crate::{
    RunError,
    kernel::{self, Pointwise},
};

/// A pointwise function as planned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Function {
    Identity,
    Elu(f32),
    LeakyRelu(f32),
    Snake {
        alpha: Slot,
        inverse: Slot,
    },
    Tanh,
    Gelu,
    Silu,
    /// `x` times a factor a channel.
    Multiply(Slot),
    /// `x / divisor`.
    Divide(f32),
    /// `x * scale`.
    Scale(f32),
    Quantize {
        inverse_scale: f32,
        low: f32,
        high: f32,
    },
    Requantize {
        multiplier: Slot,
        low: f32,
        high: f32,
    },
    LeakyReluInt8 {
        positive: f32,
        negative: f32,
        low: f32,
        high: f32,
    },
}

impl Function {
    /// The kernel's form for `len` channels from `first` on.
    pub(crate) fn resolve(self, arena: &[f32], first: usize, len: usize) -> Result<Pointwise<'_>, RunError> {
        let part = |slot: Slot| slot.of(arena)?.get(first..first + len).ok_or(RunError::Internal("too few channels"));
        Ok(match self {
            Self::Identity => Pointwise::Identity,
            Self::Elu(alpha) => Pointwise::Elu(alpha),
            Self::LeakyRelu(slope) => Pointwise::LeakyRelu(slope),
            Self::Snake { alpha, inverse } => Pointwise::Snake { alpha: part(alpha)?, inverse: part(inverse)? },
            Self::Tanh => Pointwise::Tanh,
            Self::Gelu => Pointwise::Gelu,
            Self::Silu => Pointwise::Silu,
            Self::Multiply(factors) => Pointwise::Multiply(part(factors)?),
            Self::Divide(divisor) => Pointwise::Divide(divisor),
            Self::Scale(scale) => Pointwise::Scale(scale),
            Self::Quantize { inverse_scale, low, high } => Pointwise::Quantize { inverse_scale, low, high },
            Self::Requantize { multiplier, low, high } => {
                Pointwise::Requantize { multiplier: part(multiplier)?, low, high }
            }
            Self::LeakyReluInt8 { positive, negative, low, high } => {
                Pointwise::LeakyReluInt8 { positive, negative, low, high }
            }
        })
    }
}

/// `dst = f(src)`, or in place where `src == dst`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct MapLayer {
    pub src: usize,
    pub dst: usize,
    pub channels: usize,
    pub function: Function,
}

impl MapLayer {
    pub(crate) fn step(&self, s: &Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let at = mem.view(self.src);
        let len = at.rows * self.channels;
        let mut to = at.start;
        if self.src != self.dst {
            to = mem.room(self.dst)?.data();
            let [x, y] = mem
                .scratch
                .get_disjoint_mut([at.start..at.start + len, to..to + len])
                .map_err(|_| RunError::Internal("buffers overlap"))?;
            y.copy_from_slice(x);
            mem.set(self.dst, View { start: to, rows: at.rows });
        }
        kernel::pointwise(s.cx, self.function.resolve(s.arena, 0, self.channels)?, self.channels, mem.slice(to, len)?);
        Ok(())
    }
}

/// `dst += src`, where `src` may be ahead in time and is repeated along channels if it is narrower.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct AddLayer {
    pub src: usize,
    pub dst: usize,
    /// Channels of `src`.
    pub channels: usize,
    /// Channels of `dst`.
    pub width: usize,
    /// Set when both are int8 grids.
    pub fixed: Option<Fixed>,
}

/// Sum of two int8 grids onto a third, in XNNPACK's fixed point with 20 fraction bits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Fixed {
    pub multiply_src: i32,
    pub multiply_dst: i32,
    pub shift: u32,
    pub low: i32,
    pub high: i32,
}

impl AddLayer {
    /// Either path may be ahead: the state is kept rows of `src`, [`Step::skip`] those of `dst`.
    pub(crate) fn step(&self, s: Step<'_>, mem: &mut Memory<'_>) -> Result<(), RunError> {
        let (at, to) = (mem.view(self.src), mem.view(self.dst));
        let rows = (s.cursor.rows + at.rows).min(s.cursor.skip_rows + to.rows);
        let at = align(mem, at, self.channels, s.state, &mut s.cursor.rows, rows)?;
        let to = align(mem, to, self.width, s.skip, &mut s.cursor.skip_rows, rows)?;
        mem.set(self.dst, to);
        let [x, y] = mem
            .scratch
            .get_disjoint_mut([at.start..at.start + rows * self.channels, to.start..to.start + rows * self.width])
            .map_err(|_| RunError::Internal("buffers overlap"))?;
        if let Some(f) = self.fixed {
            let half = 1i64 << (f.shift - 1);
            for (v, a) in y.iter_mut().zip(x) {
                // Grid values are integers below 2^8, so the casts are exact.
                let sum =
                    i64::from(*a as i32) * i64::from(f.multiply_src) + i64::from(*v as i32) * i64::from(f.multiply_dst);
                *v = (((sum + half) >> f.shift) as i32).max(f.low).min(f.high) as f32;
            }
            return Ok(());
        }
        for (row, from) in y.chunks_exact_mut(self.width).zip(x.chunks_exact(self.channels)) {
            for part in row.chunks_exact_mut(self.channels) {
                for (v, a) in part.iter_mut().zip(from) {
                    *v += a;
                }
            }
        }
        Ok(())
    }
}

/// Nearest integer, ties to even, for `|x| < 2^22`; larger values are returned as they are or nearly so.
pub(super) fn round_half_even(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    if x.abs() < 4_194_304.0 { (x + MAGIC) - MAGIC } else { x }
}
