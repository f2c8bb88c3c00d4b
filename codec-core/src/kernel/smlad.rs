//! Products of int8 weights with 16-bit activations on Arm cores with the DSP extension: two multiply-adds an instruction.
//!
//! A word of weights is two neighbouring columns for two neighbouring terms; `sxtb16` makes a pair of 16-bit numbers for each
//! column of it, which `smlad` multiplies by a pair of activations. Two rows share the unpacking.

use super::PANEL;

/// As `int8::dot`.
pub(super) fn dot(x: &[i16], stride: usize, w: &[i8], acc: &mut [[i32; PANEL]]) {
    let pairs = (w.len() / (2 * PANEL)).min(stride / 2);
    let w = w.as_ptr();
    let mut rows = acc.iter_mut().zip(x.chunks(stride.max(1)));
    while let Some((sums, x)) = rows.next() {
        match rows.next() {
            Some((below, y)) => {
                let pairs = pairs.min(x.len() / 2).min(y.len() / 2);
                for c in (0..PANEL).step_by(4) {
                    let (sums, below) = (sums.as_mut_ptr().wrapping_add(c), below.as_mut_ptr().wrapping_add(c));
                    // SAFETY: so many pairs are in both rows and in `w`, and four sums from `c` on.
                    unsafe { two(x.as_ptr(), w.wrapping_add(2 * c), y.as_ptr(), pairs, sums, below) }
                }
            }
            None => {
                let pairs = pairs.min(x.len() / 2);
                for c in (0..PANEL).step_by(8) {
                    // SAFETY: so many pairs are in the row and in `w`, and eight sums from `c` on.
                    unsafe { one(x.as_ptr(), w.wrapping_add(2 * c), pairs, sums.as_mut_ptr().wrapping_add(c)) }
                }
            }
        }
    }
}

/// Assembly outside of functions is read without knowing what the target has.
#[cfg(not(smlad_v8))]
macro_rules! extension {
    () => {
        ".arch armv7e-m"
    };
}
#[cfg(smlad_v8)]
macro_rules! extension {
    () => {
        ".cpu cortex-m33"
    };
}

/// One row, eight columns.
/// # Safety
/// `pairs` pairs are at `x`, and groups 32 bytes apart at `w`; 8 sums at `acc`.
#[unsafe(naked)]
unsafe extern "C" fn one(x: *const i16, w: *const i8, pairs: usize, acc: *mut i32) {
    core::arch::naked_asm!(
        extension!(),
        ".macro CODEC_COLUMNS a, b, load:vararg",
        "ldr r3, \\load",
        "sxtb16 r12, r3",
        "sxtb16 r3, r3, ror #8",
        "smlad \\a, r12, lr, \\a",
        "smlad \\b, r3, lr, \\b",
        ".endm",
        ".macro CODEC_PAIRS",
        "ldr lr, [r0], #4",
        "CODEC_COLUMNS r4, r5, [r1], #32",
        "CODEC_COLUMNS r6, r7, [r1, #-28]",
        "CODEC_COLUMNS r8, r9, [r1, #-24]",
        "CODEC_COLUMNS r10, r11, [r1, #-20]",
        ".endm",
        "push {{r3-r11, lr}}",
        "ldm r3, {{r4-r11}}",
        "subs r2, #2",
        "blo 2f",
        "1:",
        "CODEC_PAIRS",
        "CODEC_PAIRS",
        "subs r2, #2",
        "bhs 1b",
        "2:",
        "adds r2, #2",
        "beq 3f",
        "CODEC_PAIRS",
        "3:",
        "pop {{r3}}",
        "stm r3, {{r4-r11}}",
        "pop {{r4-r11, pc}}",
        ".purgem CODEC_PAIRS",
        ".purgem CODEC_COLUMNS",
    )
}

/// Two rows, four columns.
/// # Safety
/// `pairs` pairs are at `x` and `y`, and groups 32 bytes apart at `w`; 4 sums at `acc` and `below`.
#[unsafe(naked)]
unsafe extern "C" fn two(x: *const i16, w: *const i8, y: *const i16, pairs: usize, acc: *mut i32, below: *mut i32) {
    core::arch::naked_asm!(
        extension!(),
        ".macro CODEC_PAIRS",
        "ldr r3, [r1], #32",
        "sxtb16 r12, r3",
        "sxtb16 r3, r3, ror #8",
        "ldr lr, [r0]",
        "smlad r4, r12, lr, r4",
        "smlad r5, r3, lr, r5",
        "ldr lr, [r2], #4",
        "smlad r8, r12, lr, r8",
        "smlad r9, r3, lr, r9",
        "ldr r3, [r1, #-28]",
        "sxtb16 r12, r3",
        "sxtb16 r3, r3, ror #8",
        "smlad r10, r12, lr, r10",
        "smlad r11, r3, lr, r11",
        "ldr lr, [r0], #4",
        "smlad r6, r12, lr, r6",
        "smlad r7, r3, lr, r7",
        ".endm",
        "push {{r4-r11, lr}}",
        "ldr r12, [sp, #36]",
        "ldm r12, {{r4-r7}}",
        "ldr r12, [sp, #40]",
        "ldm r12, {{r8-r11}}",
        // Where the first row ends, and where whole fours of pairs do: no register is left for a count.
        "bic lr, r3, #3",
        "add lr, r0, lr, lsl #2",
        "add r3, r0, r3, lsl #2",
        "push {{r3, lr}}",
        "cmp r0, lr",
        "beq 2f",
        "1:",
        "CODEC_PAIRS",
        "CODEC_PAIRS",
        "CODEC_PAIRS",
        "CODEC_PAIRS",
        "ldr r3, [sp, #4]",
        "cmp r0, r3",
        "bne 1b",
        "2:",
        "ldr r3, [sp]",
        "cmp r0, r3",
        "beq 3f",
        "CODEC_PAIRS",
        "b 2b",
        "3:",
        "add sp, #8",
        "ldr r12, [sp, #36]",
        "stm r12, {{r4-r7}}",
        "ldr r12, [sp, #40]",
        "stm r12, {{r8-r11}}",
        "pop {{r4-r11, pc}}",
        ".purgem CODEC_PAIRS",
    )
}
