//! One value at a time; the reference that every other instruction set equals.

use super::matmul::Tile;
use super::simd::{Op, Simd, operations, tiles};
use super::{Element, PANEL, int8};
use crate::weights::f16_to_f32;

/// Where fused multiply-add comes from.
pub(super) trait Fma: Copy {
    /// The most rows of a matrix tile, which is a panel wide.
    const ROWS: usize = 1;

    /// Runs `op`, compiled to use it.
    fn call<O: Op>(self, op: O) -> O::Output;
    fn fma(self, a: f32, b: f32, c: f32) -> f32;
    /// [`int8::dot`].
    #[inline(always)]
    fn dot(self, x: &[i16], stride: usize, w: &[i8], acc: &mut [[i32; PANEL]]) {
        int8::dot(x, stride, w, acc);
    }
    /// Runs [`Tile`] with that many rows.
    /// # Safety
    /// What [`Tile`] says.
    #[inline(always)]
    unsafe fn tile<E: Element>(self, rows: usize, tile: &Tile<E>) {
        let (s, vectors) = (Scalar(self), PANEL);
        tiles!(s, rows, vectors, tile, [1] x 16)
    }
}

/// An exact software routine, and slow. In WebAssembly, where no module has the instruction, product and sum are
/// rounded each, as its vectors do.
#[cfg(not(any(target_arch = "aarch64", embedded_fma)))]
#[derive(Clone, Copy)]
pub(super) struct Software;

#[cfg(not(any(target_arch = "aarch64", embedded_fma)))]
impl Fma for Software {
    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        op.run(Scalar(self))
    }
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        if cfg!(target_arch = "wasm32") { a * b + c } else { libm::fmaf(a, b, c) }
    }
}

/// The processor's instruction.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", embedded_fma))]
#[derive(Clone, Copy)]
pub(super) struct Hardware(());

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", embedded_fma))]
impl Hardware {
    /// # Safety
    /// The machine has FMA.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

#[cfg(target_arch = "x86_64")]
impl Fma for Hardware {
    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "fma")]
        fn inner<O: Op>(s: Scalar<Hardware>, op: O) -> O::Output {
            op.run(s)
        }
        // SAFETY: a value of this type exists only where the machine has the instruction.
        unsafe { inner(Scalar(self), op) }
    }
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        // `f32::mul_add` is not in `core`.
        use core::arch::x86_64::{_mm_cvtss_f32, _mm_fmadd_ss, _mm_set_ss};
        // SAFETY: as above.
        unsafe { _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c))) }
    }
}

#[cfg(target_arch = "aarch64")]
impl Fma for Hardware {
    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        op.run(Scalar(self))
    }
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        use core::arch::aarch64::{vdup_n_f32, vfma_f32, vget_lane_f32};
        // SAFETY: a value of this type exists only where the machine has the instruction.
        unsafe { vget_lane_f32::<0>(vfma_f32(vdup_n_f32(c), vdup_n_f32(a), vdup_n_f32(b))) }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Scalar<F>(pub(super) F);

impl<F: Fma> Simd for Scalar<F> {
    type V = f32;
    const W: usize = 1;
    const ROWS: usize = F::ROWS;
    const NARROW: usize = 0;

    #[inline(always)]
    fn call<O: Op>(self, op: O) -> O::Output {
        self.0.call(op)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> f32 {
        x
    }
    operations! {
        add(a, b) = a + b;
        sub(a, b) = a - b;
        mul(a, b) = a * b;
        div(a, b) = a / b;
        min(a, b) = if a < b { a } else { b };
        max(a, b) = if a > b { a } else { b };
        select_gt(a, b, yes, no) = if a > b { yes } else { no };
        and(a, b) = f32::from_bits(a.to_bits() & b.to_bits());
        xor(a, b) = f32::from_bits(a.to_bits() ^ b.to_bits());
        add_bits(a, b) = f32::from_bits(a.to_bits().wrapping_add(b.to_bits()));
    }
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        self.0.fma(a, b, c)
    }
    #[inline(always)]
    fn round(self, a: f32) -> f32 {
        // From 2^23 up every value is an integer; below, adding it rounds the fraction away.
        const LIMIT: f32 = 8_388_608.0;
        let magnitude = f32::from_bits(a.to_bits() & 0x7fff_ffff);
        let rounded = (magnitude + LIMIT) - LIMIT;
        let signed = f32::from_bits(rounded.to_bits() | (a.to_bits() & 0x8000_0000));
        if magnitude < LIMIT { signed } else { a }
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, a: f32) -> f32 {
        f32::from_bits(a.to_bits() << N)
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> f32 {
        // SAFETY: the caller's.
        unsafe { *p }
    }
    #[inline(always)]
    unsafe fn load_half(self, p: *const u16) -> f32 {
        // SAFETY: the caller's.
        f16_to_f32(unsafe { *p })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: f32) {
        // SAFETY: the caller's.
        unsafe { *p = v }
    }
    #[inline(always)]
    unsafe fn load_some(self, p: *const f32, lanes: usize) -> f32 {
        // SAFETY: the caller's.
        if lanes == 0 { 0.0 } else { unsafe { *p } }
    }
    #[inline(always)]
    unsafe fn store_some(self, p: *mut f32, v: f32, lanes: usize) {
        if lanes != 0 {
            // SAFETY: the caller's.
            unsafe { *p = v }
        }
    }
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, _: usize, to: *mut f32, _: usize) {
        // SAFETY: the caller's.
        unsafe { *to = *from }
    }
    #[inline(always)]
    fn dot(self, x: &[i16], stride: usize, w: &[i8], acc: &mut [[i32; PANEL]]) {
        self.0.dot(x, stride, w, acc);
    }
    #[inline(always)]
    fn vectors(_: usize, _: usize) -> usize {
        PANEL
    }
    #[inline(always)]
    unsafe fn tile<E: Element>(self, rows: usize, _: usize, tile: &Tile<E>) {
        // SAFETY: the caller's.
        unsafe { self.0.tile(rows, tile) }
    }
}
