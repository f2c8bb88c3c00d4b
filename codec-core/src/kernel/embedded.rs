//! Fused multiply-add and matrix tiles of small processors, by assembly: `core` has neither.
//!
//! Arm's M-profile cores have one vector load for up to 32 neighbouring registers and a fused multiply-add between
//! registers: a row times a panel is one load for eight weights and eight multiply-adds, 1.2 instructions each. Two
//! rows share the loads of the weights. RISC-V loads one value at a time, so there more rows at once pay more.

use super::matmul::{Init, Tile};
use super::scalar::{Fma, Hardware, Scalar};
use super::simd::Op;
use super::{Element, PANEL};

/// Weights that are widened to f32 at once, where they are not f32.
#[cfg(target_arch = "arm")]
pub(super) const WIDENED: usize = 16 * PANEL;

/// Assembly outside of functions is read without knowing what the target has.
#[cfg(target_arch = "arm")]
macro_rules! fpu {
    () => {
        ".fpu fpv4-sp-d16"
    };
}

impl Hardware {
    /// The processor's own, on a target that has it (the build script knows).
    pub(super) fn here() -> Self {
        // SAFETY: the target has the instruction.
        unsafe { Self::new() }
    }
}

/// `a * b + c`, rounded once: a call, because the compiler does not know single-precision registers by themselves.
#[cfg(all(target_arch = "arm", not(fpu_double)))]
#[unsafe(naked)]
extern "C" fn fma(a: f32, b: f32, c: f32) -> f32 {
    core::arch::naked_asm!(fpu!(), "vfma.f32 s2, s0, s1", "vmov.f32 s0, s2", "bx lr")
}

/// `a * b + c`, rounded once.
#[cfg(all(target_arch = "arm", fpu_double))]
#[inline(always)]
fn fma(a: f32, b: f32, c: f32) -> f32 {
    let sum;
    // SAFETY: arithmetic on registers.
    unsafe {
        core::arch::asm!(
            "vfma.f32 {c}, {a}, {b}",
            a = in(sreg) a,
            b = in(sreg) b,
            c = inlateout(sreg) c => sum,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// `a * b + c`, rounded once.
#[cfg(not(target_arch = "arm"))]
#[inline(always)]
fn fma(a: f32, b: f32, c: f32) -> f32 {
    let sum;
    // SAFETY: arithmetic on registers.
    unsafe {
        core::arch::asm!(
            "fmadd.s {sum}, {a}, {b}, {c}",
            a = in(freg) a,
            b = in(freg) b,
            c = in(freg) c,
            sum = lateout(freg) sum,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

impl Fma for Hardware {
    /// Rows that share the loads of weights.
    const ROWS: usize = if cfg!(target_arch = "arm") { 2 } else { 4 };

    /// Not inlined: every kernel has one copy, and flash is short.
    #[inline(never)]
    fn call<O: Op>(self, op: O) -> O::Output {
        op.run(Scalar(self))
    }
    #[inline(always)]
    fn fma(self, a: f32, b: f32, c: f32) -> f32 {
        fma(a, b, c)
    }
    #[inline(always)]
    unsafe fn tile<E: Element>(self, rows: usize, tile: &Tile<E>) {
        // SAFETY: the caller's.
        unsafe { self::tile(rows, tile) }
    }
}

/// A panel's columns a few at a time, as many as leave the registers for the rows.
/// # Safety
/// What [`Tile`] says of `rows` rows of a panel.
#[cfg(not(target_arch = "arm"))]
#[inline(never)]
unsafe fn tile<E: Element>(rows: usize, tile: &Tile<E>) {
    use super::matmul::TileOf;
    let s = Scalar(Hardware::here());
    let columns = if rows > 2 { 4 } else { PANEL / rows.max(1) };
    for first in (0..PANEL).step_by(columns) {
        let some = Tile {
            b: tile.b.wrapping_add(first),
            init: match tile.init {
                Init::Bias(bias) => Init::Bias(bias.wrapping_add(first)),
                init => init,
            },
            out: tile.out.wrapping_add(first),
            ..*tile
        };
        // SAFETY: the caller's; these columns are the panel's.
        unsafe {
            match rows {
                1 => TileOf::<_, 1, PANEL>::new(&some).run(s),
                2 => TileOf::<_, 2, 8>::new(&some).run(s),
                3 => TileOf::<_, 3, 4>::new(&some).run(s),
                _ => TileOf::<_, 4, 4>::new(&some).run(s),
            }
        }
    }
}

/// # Safety
/// What [`Tile`] says of one or two rows of a panel.
#[cfg(target_arch = "arm")]
#[inline(never)]
unsafe fn tile<E: Element>(rows: usize, tile: &Tile<E>) {
    // SAFETY: the caller's; a panel's columns are neighbours in the output and the bias.
    unsafe {
        for i in 0..rows {
            let out = tile.out.add(i * tile.out_stride);
            match tile.init {
                Init::Zero => core::slice::from_raw_parts_mut(out, PANEL).fill(0.0),
                Init::Bias(bias) => core::ptr::copy_nonoverlapping(bias, out, PANEL),
                Init::Output => {}
            }
        }
        let mut b = tile.b;
        let mut room = [0.0; WIDENED];
        for j in 0..tile.taps {
            let a = tile.a.wrapping_offset(j as isize * tile.tap_stride);
            let mut c = 0;
            while c < tile.depth {
                let (w, depth) = E::widen(b, tile.depth - c, &mut room);
                let a = a.wrapping_add(c);
                if rows == 1 {
                    row(tile.out, a, w, depth);
                } else {
                    let (below, other) = (a.wrapping_add(tile.row_stride), tile.out.wrapping_add(tile.out_stride));
                    pair(tile.out, a, w, depth, below, other);
                    pair(tile.out.wrapping_add(8), a, w.wrapping_add(8), depth, below, other.wrapping_add(8));
                }
                b = b.wrapping_add(depth * PANEL);
                c += depth;
            }
        }
    }
}

/// `out[n] = fma(x[k], w[k][n], out[n])` for `k < depth`, `n < 16`.
/// # Safety
/// `depth` values of `x`, `depth` rows of 16 of `w` and 16 of `out` are there.
#[cfg(target_arch = "arm")]
#[unsafe(naked)]
unsafe extern "C" fn row(out: *mut f32, x: *const f32, w: *const f32, depth: usize) {
    core::arch::naked_asm!(
        fpu!(),
        ".macro CODEC_ROW x",
        "vldmia r2!, {{s20-s27}}",
        "vfma.f32 s0, \\x, s20",
        "vfma.f32 s1, \\x, s21",
        "vfma.f32 s2, \\x, s22",
        "vfma.f32 s3, \\x, s23",
        "vfma.f32 s4, \\x, s24",
        "vfma.f32 s5, \\x, s25",
        "vfma.f32 s6, \\x, s26",
        "vfma.f32 s7, \\x, s27",
        "vldmia r2!, {{s20-s27}}",
        "vfma.f32 s8, \\x, s20",
        "vfma.f32 s9, \\x, s21",
        "vfma.f32 s10, \\x, s22",
        "vfma.f32 s11, \\x, s23",
        "vfma.f32 s12, \\x, s24",
        "vfma.f32 s13, \\x, s25",
        "vfma.f32 s14, \\x, s26",
        "vfma.f32 s15, \\x, s27",
        ".endm",
        "vpush {{s16-s27}}",
        "vldmia r0, {{s0-s15}}",
        "subs r3, #4",
        "blo 2f",
        "1:",
        "vldmia r1!, {{s16-s19}}",
        "CODEC_ROW s16",
        "CODEC_ROW s17",
        "CODEC_ROW s18",
        "CODEC_ROW s19",
        "subs r3, #4",
        "bhs 1b",
        "2:",
        "adds r3, #4",
        "beq 4f",
        "3:",
        "vldmia r1!, {{s16}}",
        "CODEC_ROW s16",
        "subs r3, #1",
        "bne 3b",
        "4:",
        "vstmia r0, {{s0-s15}}",
        "vpop {{s16-s27}}",
        "bx lr",
        ".purgem CODEC_ROW",
    )
}

/// As [`row`], for two rows and eight columns of a panel.
/// # Safety
/// `depth` values of `x` and `below`, 8 of `out` and `other`, and `depth` rows of `w`, 16 apart, are there.
#[cfg(target_arch = "arm")]
#[unsafe(naked)]
unsafe extern "C" fn pair(
    out: *mut f32,
    x: *const f32,
    w: *const f32,
    depth: usize,
    below: *const f32,
    other: *mut f32,
) {
    core::arch::naked_asm!(
        fpu!(),
        ".macro CODEC_PAIR x, y",
        "vldmia r2!, {{s20-s27}}",
        "adds r2, #32",
        "vfma.f32 s0, \\x, s20",
        "vfma.f32 s1, \\x, s21",
        "vfma.f32 s2, \\x, s22",
        "vfma.f32 s3, \\x, s23",
        "vfma.f32 s4, \\x, s24",
        "vfma.f32 s5, \\x, s25",
        "vfma.f32 s6, \\x, s26",
        "vfma.f32 s7, \\x, s27",
        "vfma.f32 s8, \\y, s20",
        "vfma.f32 s9, \\y, s21",
        "vfma.f32 s10, \\y, s22",
        "vfma.f32 s11, \\y, s23",
        "vfma.f32 s12, \\y, s24",
        "vfma.f32 s13, \\y, s25",
        "vfma.f32 s14, \\y, s26",
        "vfma.f32 s15, \\y, s27",
        ".endm",
        "push {{r4, r5}}",
        "ldr r4, [sp, #8]",
        "ldr r5, [sp, #12]",
        "vpush {{s16-s27}}",
        "vldmia r0, {{s0-s7}}",
        "vldmia r5, {{s8-s15}}",
        "subs r3, #2",
        "blo 2f",
        "1:",
        "vldmia r1!, {{s16-s17}}",
        "vldmia r4!, {{s18-s19}}",
        "CODEC_PAIR s16, s18",
        "CODEC_PAIR s17, s19",
        "subs r3, #2",
        "bhs 1b",
        "2:",
        "adds r3, #2",
        "beq 4f",
        "vldmia r1!, {{s16}}",
        "vldmia r4!, {{s18}}",
        "CODEC_PAIR s16, s18",
        "4:",
        "vstmia r0, {{s0-s7}}",
        "vstmia r5, {{s8-s15}}",
        "vpop {{s16-s27}}",
        "pop {{r4, r5}}",
        "bx lr",
        ".purgem CODEC_PAIR",
    )
}
