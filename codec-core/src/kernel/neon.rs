//! 64-bit Arm.

use core::arch::aarch64::*;

use super::simd::{Op, Simd, operations, tiles};
use super::{Element, matmul::Tile};

#[derive(Clone, Copy)]
pub(super) struct Neon(());

impl Neon {
    /// # Safety
    /// The machine has NEON.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

/// Half precision to single. The intrinsic is of a type that stable Rust does not have.
#[inline(always)]
fn widen(halves: uint16x4_t) -> float32x4_t {
    let x: float32x4_t;
    // SAFETY: called from `Neon` only; a pure function of its operand, part of the architecture.
    unsafe {
        core::arch::asm!(
            "fcvtl {x:v}.4s, {halves:v}.4h",
            x = lateout(vreg) x, halves = in(vreg) halves, options(pure, nomem, nostack, preserves_flags),
        );
    }
    x
}

impl Simd for Neon {
    type V = float32x4_t;
    const W: usize = 4;
    const ROWS: usize = 6;
    const NARROW: usize = 8;

    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "neon")]
        #[inline(never)]
        fn inner<O: Op>(s: Neon, op: O) -> O::Output {
            op.run(s)
        }
        // SAFETY: a value of this type exists only where the machine has the instructions.
        unsafe { inner(self, op) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vdupq_n_f32(x) }
    }
    operations! {
        add(a, b) = vaddq_f32(a, b);
        sub(a, b) = vsubq_f32(a, b);
        mul(a, b) = vmulq_f32(a, b);
        div(a, b) = vdivq_f32(a, b);
        fma(a, b, c) = vfmaq_f32(c, a, b);
        // `vminq_f32` would give NaN where the trait says `b`.
        min(a, b) = vbslq_f32(vcltq_f32(a, b), a, b);
        max(a, b) = vbslq_f32(vcgtq_f32(a, b), a, b);
        round(a) = vrndnq_f32(a);
        select_gt(a, b, yes, no) = vbslq_f32(vcgtq_f32(a, b), yes, no);
        and(a, b) = vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
        xor(a, b) = vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
        add_bits(a, b) = vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, a: float32x4_t) -> float32x4_t {
        // SAFETY: as above.
        unsafe { vreinterpretq_f32_u32(vshlq_u32(vreinterpretq_u32_f32(a), vdupq_n_s32(N as i32))) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        // SAFETY: the caller's.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> float32x4_t {
        // SAFETY: the caller's.
        widen(unsafe { vld1_u16(p) })
    }
    #[inline(always)]
    fn splat_half(self, x: u16) -> float32x4_t {
        // SAFETY: a value of this type exists only where the machine has the instructions.
        widen(unsafe { vdup_n_u16(x) })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: float32x4_t) {
        // SAFETY: the caller's.
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn load_some(self, p: *const f32, lanes: usize) -> float32x4_t {
        let mut x = [0.0f32; 4];
        // SAFETY: the caller's, and `x` holds four.
        unsafe {
            core::ptr::copy_nonoverlapping(p, x.as_mut_ptr(), lanes.min(4));
            vld1q_f32(x.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_some(self, p: *mut f32, v: float32x4_t, lanes: usize) {
        let mut x = [0.0f32; 4];
        // SAFETY: the caller's, and `x` holds four.
        unsafe {
            vst1q_f32(x.as_mut_ptr(), v);
            core::ptr::copy_nonoverlapping(x.as_ptr(), p, lanes.min(4));
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: the caller's.
        unsafe {
            let r = [0, 1, 2, 3].map(|i| vld1q_f32(from.add(i * from_stride)));
            let low = vtrnq_f32(r[0], r[1]);
            let high = vtrnq_f32(r[2], r[3]);
            let pair = |a, b| vcombine_f32(vget_low_f32(a), vget_low_f32(b));
            let upper = |a, b| vcombine_f32(vget_high_f32(a), vget_high_f32(b));
            vst1q_f32(to, pair(low.0, high.0));
            vst1q_f32(to.add(to_stride), pair(low.1, high.1));
            vst1q_f32(to.add(2 * to_stride), upper(low.0, high.0));
            vst1q_f32(to.add(3 * to_stride), upper(low.1, high.1));
        }
    }
    #[inline(always)]
    fn vectors(rows: usize, wanted: usize) -> usize {
        if rows == 1 && wanted >= 16 { 16 } else { 4 }
    }
    #[inline(always)]
    unsafe fn tile<E: Element>(self, rows: usize, vectors: usize, tile: &Tile<E>) {
        tiles!(self, rows, vectors, tile, [1 2 3 4 5 6] x 4, [1] x 16)
    }
}
