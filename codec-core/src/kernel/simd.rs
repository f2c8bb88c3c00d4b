//! What a kernel asks of an instruction set, and how code is compiled for one.
//!
//! A kernel is written once, over [`Simd`]; every operation rounds as IEEE 754 says, so it gives the same
//! value on every instruction set.

use super::{Element, int8, matmul::Tile};
use crate::weights::f16_to_f32;

/// An instruction set in use. A value of such a type exists only where the machine has the instructions, which
/// is why the operations are safe.
///
/// Bit operations act on the 32 bits of every lane. A NaN stays a NaN, but which one is not said.
pub(super) trait Simd: Copy {
    /// [`Simd::W`] values.
    type V: Copy;
    /// Lanes of a vector; divides [`PANEL`](super::PANEL).
    const W: usize;
    /// The most rows of a matrix tile.
    const ROWS: usize;
    /// Output columns up to which vectors over time pay; at most 8.
    const NARROW: usize;

    /// Runs `op` in a function compiled for this instruction set; everything it calls must be inlined.
    fn call<O: Op>(self, op: O) -> O::Output;

    fn splat(self, x: f32) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a < b ? a : b`: `b` if either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a > b ? a : b`: `b` if either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest integer, halves to the even one.
    fn round(self, a: Self::V) -> Self::V;
    /// `a > b ? yes : no`.
    fn select_gt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    /// Wrapping integer sum.
    fn add_bits(self, a: Self::V, b: Self::V) -> Self::V;
    fn shift_left<const N: u32>(self, a: Self::V) -> Self::V;

    /// Asks for the values at `p`, which may be anywhere, to be brought near.
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        let _ = p;
    }
    /// # Safety
    /// `W` values can be read at `p`.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// `W` values of half precision, exactly.
    /// # Safety
    /// They can be read at `p`.
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> Self::V {
        let mut x = [0.0; super::PANEL];
        // SAFETY: the caller's; `W <= PANEL`.
        unsafe {
            for (i, x) in x.iter_mut().enumerate().take(Self::W) {
                *x = f16_to_f32(*p.add(i));
            }
            self.load(x.as_ptr())
        }
    }
    /// A value of half precision, exactly, in all lanes.
    #[inline(always)]
    fn splat_half(self, x: u16) -> Self::V {
        self.splat(f16_to_f32(x))
    }
    /// # Safety
    /// `W` values can be written at `p`.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// The first `lanes` lanes; the others are zero.
    /// # Safety
    /// `lanes <= W` values can be read at `p`.
    unsafe fn load_some(self, p: *const f32, lanes: usize) -> Self::V;
    /// # Safety
    /// `lanes <= W` values can be written at `p`.
    unsafe fn store_some(self, p: *mut f32, v: Self::V, lanes: usize);
    /// `to[c * to_stride + r] = from[r * from_stride + c]` for `r, c < W`.
    /// # Safety
    /// The blocks can be read and written, and do not overlap.
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize);

    /// [`int8::dot`].
    #[inline(always)]
    fn dot(self, x: &[i16], stride: usize, w: &[i8], acc: &mut [[i32; super::PANEL]]) {
        int8::dot(x, stride, w, acc);
    }

    /// Vectors of a tile of `rows <= ROWS` rows where `wanted > 0` are left: the most that
    /// [`Simd::tile`] has code for, which may be more than `wanted` but ends with a panel then.
    fn vectors(rows: usize, wanted: usize) -> usize;
    /// Runs [`Tile`] with that many rows and vectors.
    /// # Safety
    /// What [`Tile`] says.
    unsafe fn tile<E: Element>(self, rows: usize, vectors: usize, tile: &Tile<E>);
}

/// Code to be compiled for an instruction set.
pub(super) trait Op {
    type Output;
    /// Must be `#[inline(always)]`, as must everything that it calls with `s`.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// Operations on vectors, each one expression.
macro_rules! operations {
    ($($name:ident($($a:ident),*) = $e:expr;)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($a: Self::V),*) -> Self::V {
                // SAFETY: a value of this type exists only where the machine has the instructions.
                #[allow(unused_unsafe)]
                unsafe { $e }
            }
        )*
    };
}

/// Runs a tile of a size known only now.
macro_rules! tiles {
    ($s:ident, $rows:ident, $vectors:ident, $tile:ident, $([$($m:literal)*] x $n:literal),*) => {
        match ($rows, $vectors) {
            $($(
                // SAFETY: the caller's.
                ($m, $n) => $s.call(unsafe { $crate::kernel::matmul::TileOf::<_, $m, $n>::new($tile) }),
            )*)*
            _ => debug_assert!(false, "no tile of {} x {}", $rows, $vectors),
        }
    };
}

pub(super) use {operations, tiles};
