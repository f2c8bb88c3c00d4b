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
    for weights in [Weights::F32(&singles), Weights::F16(&halves)] {
        match weights.panels(5, 1..3) {
            Some(Weights::F32(part)) => assert_eq!(part, &singles[80..]),
            Some(Weights::F16(part)) => assert_eq!(part, &halves[80..]),
            None => panic!("there are three panels"),
        }
        assert!(weights.panels(5, 1..4).is_none() && weights.panels(usize::MAX, 0..1).is_none());
    }
}
