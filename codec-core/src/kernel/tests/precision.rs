//! Weights in other precisions than f32.

use super::*;
use crate::weights::f16_to_f32;

/// Halves of every kind, subnormal ones too, in (-2, 2).
fn halves(len: usize, seed: u64) -> Vec<u16> {
    noise(len, seed)
        .iter()
        .enumerate()
        .map(|(i, v)| v.to_bits() as u16 & if i % 7 == 0 { 0x83ff } else { 0xbfff })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// A product with halves is the product with the same values in f32, bit for bit, and refused where that is.
    #[test]
    fn halves_are_the_f32_that_they_are(shape in shapes()) {
        let Shape { taps, depth, columns, seed, .. } = shape;
        let len = taps * depth;
        let case = Case::new(shape, depth, 0);
        let halves = halves(panel_len(columns, len), seed);
        let singles: Vec<f32> = halves.iter().map(|h| f16_to_f32(*h)).collect();
        for cx in computes() {
            let run = |data: Weights<'_>| {
                let mut out = case.before.clone();
                let to = Out { data: &mut out, origin: 3, row_stride: case.stride() };
                let done = matmul(cx, case.rows(), Panels { columns, depth: len, data }, case.start(), case.epilogue(), to);
                (done, out)
            };
            let (single, half) = (run(Weights::F32(&singles)), run(Weights::F16(&halves)));
            prop_assert!(single.0 && half.0);
            prop_assert!(same(&single.1, &half.1), "{} pool {}", cx.isa, cx.pool.is_some());
            if let Some(short) = halves.len().checked_sub(1) {
                let refused = run(Weights::F16(&halves[..short]));
                prop_assert!(!refused.0 || case.shape.rows == 0);
                prop_assert!(same(&refused.1, &case.before));
            }
        }
    }
}

/// Each instruction set's conversion of every half, as a product with 1: infinities and NaN too.
#[test]
fn every_half_is_converted() {
    let halves: Vec<u16> = (0..=u16::MAX).collect();
    for cx in computes() {
        let rows = Rows { data: &[1.0], origin: 0, rows: 1, row_stride: 1, taps: 1, tap_stride: 0, depth: 1 };
        let w = Panels { columns: halves.len(), depth: 1, data: Weights::F16(&halves) };
        // A sum starts from -0, so that a weight of -0 shows.
        let (bias, mut out) = (vec![-0.0; halves.len()], vec![0.0; halves.len()]);
        let to = Out { data: &mut out, origin: 0, row_stride: halves.len() };
        let plain = Epilogue { residual: None, then: Pointwise::Identity };
        assert!(matmul(cx, rows, w, Start::Bias(&bias), plain, to));
        let expected: Vec<f32> = halves.iter().map(|h| f16_to_f32(*h)).collect();
        assert!(same(&out, &expected), "{}", cx.isa);
    }
}

#[test]
fn panels_of_weights() {
    let (singles, halves) = (noise(3 * 16 * 5, 1), halves(3 * 16 * 5, 2));
    let (integers, scales) = (vec![1i8; 3 * 16 * 6], noise(3 * 16, 3));
    let int8 = Weights::I8 { values: &integers, scales: &scales };
    for weights in [Weights::F32(&singles), Weights::F16(&halves), int8] {
        match weights.panels(5, 1..3) {
            Some(Weights::F32(part)) => assert_eq!(part, &singles[80..]),
            Some(Weights::F16(part)) => assert_eq!(part, &halves[80..]),
            Some(Weights::I8 { values, scales: part }) => assert_eq!((values.len(), part), (2 * 16 * 6, &scales[16..])),
            None => panic!("there are three panels"),
        }
        assert!(weights.panels(5, 1..4).is_none() && weights.panels(usize::MAX, 0..1).is_none());
    }
}

/// Int8 weights in the documented order, the column scales, and the plain matrix `[column][k]`.
fn int8(columns: usize, depth: usize, seed: u64, extreme: bool) -> (Vec<i8>, Vec<f32>, Vec<i8>) {
    let padded = columns.div_ceil(PANEL) * PANEL;
    let plain: Vec<i8> = noise(padded * depth, seed)
        .iter()
        .map(|v| match extreme {
            true if *v < 0.0 => -127,
            true => 127,
            false => (v.to_bits() as i8).max(-127),
        })
        .collect();
    let mut packed = vec![0; panel_len(columns, depth.next_multiple_of(2))];
    for (i, w) in plain.iter().enumerate() {
        let (n, k) = (i / depth, i % depth);
        let panel = n / PANEL * PANEL * depth.next_multiple_of(2);
        packed[panel + k / 2 * 2 * PANEL + n % PANEL / 2 * 4 + k % 2 * 2 + n % 2] = *w;
    }
    (packed, noise(padded, seed ^ 9).iter().map(|v| v * 0.01).collect(), plain)
}

impl Case {
    /// The rule of int8 products, with sums in 64 bits.
    fn expected_int8(&self, scales: &[f32], w: &[i8]) -> Vec<f32> {
        let Shape { rows, taps, depth, columns, .. } = self.shape;
        let len = taps * depth;
        let levels = 32767.min((i32::MAX as usize) / (127 * len.max(1))) as f32;
        let mut out = self.before.clone();
        for t in 0..rows {
            let x: Vec<f32> = (0..len).map(|k| self.input(t, k / depth, k % depth)).collect();
            let peak = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let (inverse, step) = match x.iter().all(|v| v.is_finite()) {
                false => (0.0, f32::NAN),
                true if peak < 2f32.powi(-100) => (0.0, 0.0),
                true => (levels / peak, peak / levels),
            };
            let q: Vec<i64> = x.iter().map(|v| (v * inverse).round_ties_even() as i64).collect();
            let row = 3 + t * self.stride();
            for n in 0..columns {
                let sum: i64 = (0..len).map(|k| q[k] * i64::from(w[n * len + k])).sum();
                let mut value = i32::try_from(sum).unwrap() as f32 * (step * scales[n]);
                if self.shape.start == 1 {
                    value += self.bias[n];
                }
                if self.shape.residual {
                    value += self.residual[2 + t * self.stride() + n];
                }
                out[row + n] = value;
            }
            let then = function(self.shape.then, &self.parameters);
            assert!(pointwise(SCALAR, then, columns, &mut out[row..row + columns]));
        }
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Every instruction set, split and block gives the same bits as the rule, whatever the input holds.
    #[test]
    fn int8_is_the_rule(mut shape in shapes(), kind in 0..5usize) {
        shape.start = if shape.start == 2 { 0 } else { shape.start };
        let Shape { taps, depth, columns, seed, .. } = shape;
        let len = taps * depth;
        let mut case = Case::new(shape, depth, 0);
        for (i, v) in case.x.iter_mut().enumerate() {
            *v = match kind {
                0 => *v,
                // The greatest sums there are.
                1 => if *v < 0.0 { -1.75 } else { 1.75 },
                2 => *v * 1e38,
                3 => *v * 1e-38,
                _ => match i % 251 {
                    7 => f32::NAN,
                    80 => f32::INFINITY,
                    150 => f32::NEG_INFINITY,
                    151 => f32::MAX,
                    _ => *v,
                },
            };
        }
        let (values, scales, plain) = int8(columns, len, seed, kind == 1);
        let expected = case.expected_int8(&scales, &plain);
        for cx in computes() {
            let run = |values, scales, start| {
                let mut out = case.before.clone();
                let to = Out { data: &mut out, origin: 3, row_stride: case.stride() };
                let w = Panels { columns, depth: len, data: Weights::I8 { values, scales } };
                (matmul(cx, case.rows(), w, start, case.epilogue(), to), out)
            };
            let (done, out) = run(&values, &scales, case.start());
            prop_assert!(done);
            prop_assert!(same(&out, &expected), "{} pool {}", cx.isa, cx.pool.is_some());
            if case.shape.rows > 0 && !values.is_empty() {
                for (done, out) in [
                    run(&values[..values.len() - 1], &scales, case.start()),
                    run(&values, &scales[..columns - 1], case.start()),
                    run(&values, &scales, Start::Output),
                ] {
                    prop_assert!(!done && same(&out, &case.before));
                }
            }
        }
    }

    /// Rounding to integers is to the nearest, and what it leaves is half a step at most.
    #[test]
    fn int8_weights_are_near(depth in 1..40usize, seed in any::<u64>(), size in -40..30i32) {
        let w: Vec<f32> = noise(depth * PANEL, seed).iter().map(|v| v * 2f32.powi(size)).collect();
        let (mut packed, mut scales) = (vec![0i8; panel_len(PANEL, depth.next_multiple_of(2))], [0.0; PANEL]);
        pack_int8(&w, &mut packed, &mut scales);
        for c in 0..PANEL {
            let peak = (0..depth).map(|k| w[k * PANEL + c].abs()).fold(0.0, f32::max);
            prop_assert_eq!(scales[c], peak / 127.0);
            for k in 0..depth {
                let q = packed[k / 2 * 2 * PANEL + c / 2 * 4 + k % 2 * 2 + c % 2];
                prop_assert!(q > -128);
                let error = (f32::from(q) * scales[c] - w[k * PANEL + c]).abs();
                prop_assert!(error <= scales[c] * 0.5001, "{} for {}", f32::from(q) * scales[c], w[k * PANEL + c]);
            }
        }
    }
}

/// The longest sums that have room for one level, at their greatest, and one longer.
#[test]
fn int8_sums_reach_the_end_of_32_bits() {
    const DEEPEST: usize = i32::MAX as usize / 127;
    assert_eq!((int8_levels(DEEPEST), int8_levels(DEEPEST + 1)), (1, 0));
    assert_eq!((int8_levels(0), int8_levels(516), int8_levels(517)), (32767, 32767, 32706));
    assert_eq!(int8_levels(usize::MAX), 0);
    for depth in [516, 517, 3584, 100_000] {
        let (x, w) = (vec![-3.0; depth], vec![-127i8; depth.next_multiple_of(2) * PANEL]);
        let levels = int8_levels(depth);
        let sum = (depth * levels * 127) as f32;
        for cx in computes() {
            let rows = Rows { data: &x, origin: 0, rows: 1, row_stride: 0, taps: 1, tap_stride: 0, depth };
            let w = Panels { columns: 3, depth, data: Weights::I8 { values: &w, scales: &[0.5; 3] } };
            let mut out = [0.0; 3];
            let to = Out { data: &mut out, origin: 0, row_stride: 3 };
            let plain = Epilogue { residual: None, then: Pointwise::Identity };
            assert!(matmul(cx, rows, w, Start::Zero, plain, to));
            assert_eq!(out, [sum * (3.0 / levels as f32 * 0.5); 3], "{}", cx.isa);
        }
    }
}

/// Weights that no packing makes, as a made-up image can have them, end in some value.
#[test]
fn int8_weights_of_128_do_not_panic() {
    let (x, w) = (vec![1.0; 40_000], vec![-128i8; 40_000 * PANEL]);
    for cx in computes() {
        let rows = Rows { data: &x, origin: 0, rows: 1, row_stride: 0, taps: 1, tap_stride: 0, depth: 40_000 };
        let w = Panels { columns: 1, depth: 40_000, data: Weights::I8 { values: &w, scales: &[1.0] } };
        let plain = Epilogue { residual: None, then: Pointwise::Identity };
        assert!(matmul(cx, rows, w, Start::Zero, plain, Out { data: &mut [0.0], origin: 0, row_stride: 1 }));
    }
}
