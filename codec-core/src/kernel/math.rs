//! Elementary functions: the same operations in the same order on every instruction set.
//!
//! Polynomials are minimax fits of the relative error over the reduced range, with coefficients rounded to
//! `f32` one after the other. Relative errors of the results are about `1e-7`; the tests hold the figures.

use super::simd::Simd;

/// Added and taken away, rounds to an integer; its low bits then hold the integer.
const MAGIC: f32 = 12_582_912.0;
const LN_2_HIGH: f32 = f32::from_bits(0x3f31_7218);
const LN_2_LOW: f32 = f32::from_bits(0xb102_e308);
const PI_HIGH: f32 = f32::from_bits(0x4049_0fdb);
const PI_MIDDLE: f32 = f32::from_bits(0xb3bb_bd2e);
const PI_LOW: f32 = f32::from_bits(0xa777_2ced);

/// `(2^n, exp(r) - 1)` with `x = n ln 2 + r`, `|r| <= ln 2 / 2`, for `x` clamped to where `2^n` is a normal number.
#[inline(always)]
fn exp_parts<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let x = s.max(s.splat(-87.3), s.min(s.splat(88.3), x));
    let t = s.fma(x, s.splat(core::f32::consts::LOG2_E), s.splat(MAGIC));
    let n = s.sub(t, s.splat(MAGIC));
    let r = s.fma(n, s.splat(-LN_2_HIGH), x);
    let r = s.fma(n, s.splat(-LN_2_LOW), r);
    let mut q = s.splat(f32::from_bits(0x3ab5_ce6d));
    for c in [0x3c09_12b6, 0x3d2a_ab79, 0x3e2a_aa5a, 0x3eff_ffff] {
        q = s.fma(q, r, s.splat(f32::from_bits(c)));
    }
    let scale = s.add_bits(s.shift_left::<23>(t), s.splat(1.0));
    (scale, s.fma(s.mul(r, r), q, r))
}

/// `exp(x)`; below -87.3 and above 88.3 what it is there (1.2e-38 and 2.2e38).
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let (scale, p) = exp_parts(s, x);
    s.fma(scale, p, scale)
}

/// `exp(x) - 1` with full relative precision near zero.
#[inline(always)]
pub(super) fn exp_m1<S: Simd>(s: S, x: S::V) -> S::V {
    let (scale, p) = exp_parts(s, x);
    s.fma(scale, p, s.sub(scale, s.splat(1.0)))
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.xor(x, s.splat(-0.0)))))
}

/// Hyperbolic tangent; odd to the bit.
#[inline(always)]
pub(super) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // With e = exp(-2|x|) - 1: tanh|x| = -e / (2 + e). Neither cancels nor overflows.
    let sign = s.and(x, s.splat(-0.0));
    let e = exp_m1(s, s.mul(s.splat(-2.0), s.xor(x, sign)));
    let magnitude = s.div(s.sub(s.splat(0.0), e), s.add(s.splat(2.0), e));
    s.xor(magnitude, sign)
}

/// The error function; odd to the bit.
#[inline(always)]
pub(super) fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    let sign = s.and(x, s.splat(-0.0));
    let a = s.xor(x, sign);
    // Up to 1: a polynomial of a^2.
    let u = s.mul(a, a);
    let mut near = s.splat(f32::from_bits(0x38a4_b514));
    for c in [0xba51_fb7e, 0x3baa_02d9, 0xbcdb_fc86, 0x3de7_167c, 0xbec0_939f, 0x3f90_6eba] {
        near = s.fma(near, u, s.splat(f32::from_bits(c)));
    }
    // From 1 on: 1 - exp(-g), where g is a polynomial of a; from 4 on that is 1.
    let b = s.min(s.splat(4.0), a);
    let mut g = s.splat(f32::from_bits(0xb943_e8d2));
    for c in [0x3b41_759a, 0xbcb3_087e, 0x3dd3_3b24, 0x3f23_5b07, 0x3f90_452a, 0x39b0_5c70] {
        g = s.fma(g, b, s.splat(f32::from_bits(c)));
    }
    let far = s.sub(s.splat(1.0), exp(s, s.xor(g, s.splat(-0.0))));
    s.xor(s.select_gt(a, s.splat(1.0), far, s.mul(a, near)), sign)
}

/// `x (1 + erf(x / sqrt(2))) / 2`.
#[inline(always)]
pub(super) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let half = s.mul(s.splat(0.5), x);
    s.fma(half, erf(s, s.mul(x, s.splat(core::f32::consts::FRAC_1_SQRT_2))), half)
}

/// `x / (1 + exp(-x))`.
#[inline(always)]
pub(super) fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    s.div(x, s.add(s.splat(1.0), exp(s, s.xor(x, s.splat(-0.0)))))
}

/// Sine; the error is absolute, about `1e-7`, for `|x|` up to 10^4 and grows with `|x|` beyond. Always in [-1, 1].
#[inline(always)]
pub(super) fn sin<S: Simd>(s: S, x: S::V) -> S::V {
    let t = s.fma(x, s.splat(core::f32::consts::FRAC_1_PI), s.splat(MAGIC));
    let n = s.sub(t, s.splat(MAGIC));
    // (-1)^n: the lowest bit of n becomes the sign.
    s.xor(sin_less_half_turns(s, x, n), s.shift_left::<31>(t))
}

/// Cosine, as precise as [`sin`]: with `x = r + (m + 1/2) π` it is `-(-1)^m sin(r)`.
#[inline(always)]
pub(super) fn cos<S: Simd>(s: S, x: S::V) -> S::V {
    let t = s.add(s.fma(x, s.splat(core::f32::consts::FRAC_1_PI), s.splat(-0.5)), s.splat(MAGIC));
    let n = s.add(s.sub(t, s.splat(MAGIC)), s.splat(0.5));
    s.xor(sin_less_half_turns(s, x, n), s.add_bits(s.shift_left::<31>(t), s.splat(-0.0)))
}

/// `sin(x - n π)` where that is within a quarter of a turn.
#[inline(always)]
fn sin_less_half_turns<S: Simd>(s: S, x: S::V, n: S::V) -> S::V {
    let r = s.fma(n, s.splat(-PI_HIGH), x);
    let r = s.fma(n, s.splat(-PI_MIDDLE), r);
    let r = s.fma(n, s.splat(-PI_LOW), r);
    // Past 10^7 `n` is no longer the nearest: keep the polynomial where it is a sine.
    let r = s.max(s.splat(-core::f32::consts::FRAC_PI_2), s.min(s.splat(core::f32::consts::FRAC_PI_2), r));
    let r2 = s.mul(r, r);
    let mut p = s.splat(f32::from_bits(0x362e_e3e7));
    for c in [0xb94f_b873, 0x3c08_876d, 0xbe2a_aaa6] {
        p = s.fma(p, r2, s.splat(f32::from_bits(c)));
    }
    let y = s.fma(s.mul(r2, r), p, r);
    s.max(s.splat(-1.0), s.min(s.splat(1.0), y))
}

/// The greatest integer not above.
#[inline(always)]
pub(super) fn floor<S: Simd>(s: S, x: S::V) -> S::V {
    let r = s.round(x);
    s.select_gt(r, x, s.sub(r, s.splat(1.0)), r)
}

/// `x` between `low` and `high`; NaN stays.
#[inline(always)]
pub(super) fn clamp<S: Simd>(s: S, x: S::V, low: f32, high: f32) -> S::V {
    s.max(s.splat(low), s.min(s.splat(high), x))
}
