//! Packed weights, and how a kernel loads them.

use super::PANEL;
use super::simd::Simd;

/// Values in panel order.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// In single precision.
    F32(&'a [f32]),
    /// The bits of values in half precision. They are computed with as the f32 that they are, so results equal those
    /// of the same values in f32.
    F16(&'a [u16]),
    /// Integers from -127 to 127 with a scale for each column. Panels are `ceil(depth / 2)` rows of `PANEL / 2` groups of
    /// four: two neighbouring columns of one `k`, then of the next.
    I8 {
        /// The integers; where `depth` is odd, zeros for one more.
        values: &'a [i8],
        /// What 1 stands for, a column.
        scales: &'a [f32],
    },
}

impl<'a> Weights<'a> {
    /// Some of the panels of a matrix that is `depth` deep; `None` where there are not so many.
    pub fn panels(self, depth: usize, panels: core::ops::Range<usize>) -> Option<Self> {
        let of = |len: usize| Some(panels.start.checked_mul(len)?..panels.end.checked_mul(len)?);
        let range = of(PANEL.checked_mul(depth)?)?;
        Some(match self {
            Self::I8 { values, scales } => Self::I8 {
                values: values.get(of(PANEL.checked_mul(depth.checked_next_multiple_of(2)?)?)?)?,
                scales: scales.get(of(PANEL)?)?,
            },
            Self::F32(data) => Self::F32(data.get(range)?),
            Self::F16(data) => Self::F16(data.get(range)?),
        })
    }
}

/// The right operand in panel order: `ceil(columns / PANEL)` panels of `[taps * depth][PANEL]`, the last one
/// filled with zero columns.
#[derive(Clone, Copy)]
pub struct Panels<'a> {
    /// Output columns.
    pub columns: usize,
    /// Length of the sum, `taps * depth`.
    pub depth: usize,
    /// `panel_len(columns, depth)` values.
    pub data: Weights<'a>,
}

/// Values that [`Panels`] of this size hold.
pub const fn panel_len(columns: usize, depth: usize) -> usize {
    columns.div_ceil(PANEL) * PANEL * depth
}

/// Packs a matrix given by `weight(column, k)` into panel order.
pub fn pack(columns: usize, depth: usize, weight: impl Fn(usize, usize) -> f32, out: &mut [f32]) {
    for (p, panel) in out.chunks_exact_mut(PANEL * depth).enumerate() {
        for (k, row) in panel.chunks_exact_mut(PANEL).enumerate() {
            for (c, w) in row.iter_mut().enumerate() {
                let column = p * PANEL + c;
                *w = if column < columns { weight(column, k) } else { 0.0 };
            }
        }
    }
}

/// What panels are made of.
pub(super) trait Element: Copy + Sync {
    /// `W` neighbouring columns.
    /// # Safety
    /// They can be read at `p`.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V;
    /// One column, in all lanes.
    /// # Safety
    /// It can be read at `p`.
    unsafe fn splat<S: Simd>(s: S, p: *const Self) -> S::V;
    /// Rows of a panel as f32, at most `depth` of them and at least one, and how many: where they lie, or in `room`.
    /// # Safety
    /// They can be read at `p`.
    #[cfg(all(embedded_fma, target_arch = "arm"))]
    unsafe fn widen(p: *const Self, depth: usize, room: &mut [f32; super::embedded::WIDENED]) -> (*const f32, usize);
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f32) -> S::V {
        // SAFETY: the caller's.
        unsafe { s.load(p) }
    }
    #[inline(always)]
    unsafe fn splat<S: Simd>(s: S, p: *const f32) -> S::V {
        // SAFETY: the caller's.
        s.splat(unsafe { *p })
    }
    #[cfg(all(embedded_fma, target_arch = "arm"))]
    #[inline(always)]
    unsafe fn widen(p: *const f32, depth: usize, _: &mut [f32; super::embedded::WIDENED]) -> (*const f32, usize) {
        (p, depth)
    }
}

/// The bits of a value in half precision.
impl Element for u16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u16) -> S::V {
        // SAFETY: the caller's.
        unsafe { s.load_half(p) }
    }
    #[inline(always)]
    unsafe fn splat<S: Simd>(s: S, p: *const u16) -> S::V {
        // SAFETY: the caller's.
        s.splat_half(unsafe { *p })
    }
    #[cfg(all(embedded_fma, target_arch = "arm"))]
    #[inline(always)]
    unsafe fn widen(p: *const u16, depth: usize, room: &mut [f32; super::embedded::WIDENED]) -> (*const f32, usize) {
        let depth = depth.min(room.len() / PANEL);
        for (i, x) in room.iter_mut().enumerate().take(depth * PANEL) {
            // SAFETY: the caller's.
            *x = crate::weights::f16_to_f32(unsafe { *p.add(i) });
        }
        (room.as_ptr(), depth)
    }
}

/// [`Panels`] of one type of value.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, E> {
    pub(super) columns: usize,
    pub(super) depth: usize,
    pub(super) data: &'a [E],
}

impl<E> Matrix<'_, E> {
    /// Whether there are as many values as the sizes say.
    pub(super) fn fits(&self) -> bool {
        let len = self.columns.div_ceil(PANEL).checked_mul(PANEL).and_then(|n| n.checked_mul(self.depth));
        len.is_some_and(|len| len <= self.data.len())
    }
}
