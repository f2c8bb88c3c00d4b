//! WebAssembly with 128-bit vectors.
//!
//! There is no fused multiply-add in `simd128`: `fma` rounds twice here, and values differ in their last bits from
//! machines that have one.

use core::arch::wasm32::*;

use super::simd::{Op, Simd, operations, tiles};
use super::{Element, matmul::Tile};

/// Exists in this module only, which is compiled only where vectors are allowed: a WebAssembly module that uses
/// them is refused as a whole by an engine without.
#[derive(Clone, Copy)]
pub(super) struct Simd128;

impl Simd for Simd128 {
    type V = v128;
    const W: usize = 4;
    // Three rows of a panel are 12 sums, which leaves x86-64's sixteen registers room for the operands.
    const ROWS: usize = 3;
    const NARROW: usize = 8;

    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        #[inline(never)]
        fn inner<O: Op>(s: Simd128, op: O) -> O::Output {
            op.run(s)
        }
        inner(self, op)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> v128 {
        f32x4_splat(x)
    }
    operations! {
        add(a, b) = f32x4_add(a, b);
        sub(a, b) = f32x4_sub(a, b);
        mul(a, b) = f32x4_mul(a, b);
        div(a, b) = f32x4_div(a, b);
        fma(a, b, c) = f32x4_add(f32x4_mul(a, b), c);
        // `pmin(x, y)` is `y < x ? y : x`.
        min(a, b) = f32x4_pmin(b, a);
        max(a, b) = f32x4_pmax(b, a);
        round(a) = f32x4_nearest(a);
        select_gt(a, b, yes, no) = v128_bitselect(yes, no, f32x4_gt(a, b));
        and(a, b) = v128_and(a, b);
        xor(a, b) = v128_xor(a, b);
        add_bits(a, b) = i32x4_add(a, b);
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, a: v128) -> v128 {
        i32x4_shl(a, N)
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> v128 {
        // SAFETY: the caller's.
        unsafe { v128_load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: v128) {
        // SAFETY: the caller's.
        unsafe { v128_store(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn load_some(self, p: *const f32, lanes: usize) -> v128 {
        let mut x = [0.0f32; 4];
        // SAFETY: the caller's, and `x` holds four.
        unsafe {
            core::ptr::copy_nonoverlapping(p, x.as_mut_ptr(), lanes.min(4));
            v128_load(x.as_ptr().cast())
        }
    }
    #[inline(always)]
    unsafe fn store_some(self, p: *mut f32, v: v128, lanes: usize) {
        let mut x = [0.0f32; 4];
        // SAFETY: the caller's, and `x` holds four.
        unsafe {
            v128_store(x.as_mut_ptr().cast(), v);
            core::ptr::copy_nonoverlapping(x.as_ptr(), p, lanes.min(4));
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's.
        unsafe {
            let r = [0, 1, 2, 3].map(|i| v128_load(from.add(i * from_stride).cast()));
            let low = [i32x4_shuffle::<0, 4, 1, 5>(r[0], r[1]), i32x4_shuffle::<0, 4, 1, 5>(r[2], r[3])];
            let high = [i32x4_shuffle::<2, 6, 3, 7>(r[0], r[1]), i32x4_shuffle::<2, 6, 3, 7>(r[2], r[3])];
            v128_store(to.cast(), i64x2_shuffle::<0, 2>(low[0], low[1]));
            v128_store(to.add(to_stride).cast(), i64x2_shuffle::<1, 3>(low[0], low[1]));
            v128_store(to.add(2 * to_stride).cast(), i64x2_shuffle::<0, 2>(high[0], high[1]));
            v128_store(to.add(3 * to_stride).cast(), i64x2_shuffle::<1, 3>(high[0], high[1]));
        }
    }
    #[inline(always)]
    fn vectors(rows: usize, wanted: usize) -> usize {
        if rows == 1 && wanted >= 8 { 8 } else { 4 }
    }
    #[inline(always)]
    unsafe fn tile<E: Element>(self, rows: usize, vectors: usize, tile: &Tile<E>) {
        tiles!(self, rows, vectors, tile, [1 2 3] x 4, [1] x 8)
    }
}
