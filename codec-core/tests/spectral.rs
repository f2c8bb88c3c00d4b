//! Fourier heads and front ends, and the noise layer: what their formulas say, at any chunking.

#[path = "support/golden.rs"]
mod golden;
#[path = "support/signal.rs"]
mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::f64::consts::PI;

use codec_core::{
    BuildError, RunError,
    pipeline::Chain,
    spec::{Activation, Conv, Istft, Layer, LogMel, Noise, PadMode, Padding, Stft, layer_tensors},
};
use golden::{Case, assert_close, transpose, uniform};
use proptest::prelude::*;
use support::{close, cx, noise, rows, run};
use tensors::MapTensors;

fn hann(n: usize) -> Vec<f64> {
    (0..n).map(|t| 0.5 - 0.5 * (2.0 * PI * t as f64 / n as f64).cos()).collect()
}

/// Inverse transforms, windowed and added up, over the sum of squared windows, cut at both ends.
fn istft_reference(l: &Istft, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let (n, hop, bins) = (l.n_fft as usize, l.hop as usize, l.n_fft as usize / 2 + 1);
    let window = hann(n);
    let full = x.len().saturating_sub(1) * hop + n;
    let (mut sum, mut weight) = (vec![0.0; full], vec![0.0; full]);
    for (i, row) in x.iter().enumerate() {
        for t in 0..n {
            let value: f64 = (0..bins)
                .map(|k| {
                    let (magnitude, phase) = (row[k].exp().min(100.0), row[bins + k]);
                    let twice = if k == 0 || k == n / 2 { 1.0 } else { 2.0 };
                    // The ends of a real signal's spectrum are real.
                    let phase_part = |p: f64| if twice == 1.0 { phase.cos() * p.cos() } else { (phase + p).cos() };
                    twice * magnitude * phase_part(2.0 * PI * (k * t % n) as f64 / n as f64)
                })
                .sum();
            sum[i * hop + t] += value / n as f64 * window[t];
            weight[i * hop + t] += window[t] * window[t];
        }
    }
    let cut = (n - hop) / 2;
    (cut..cut + x.len() * hop).map(|t| vec![sum[t] / weight[t]]).collect()
}

/// Levels and compressed values of frames that end with the samples of their hop.
fn stft_reference(l: &Stft, x: &[f32]) -> Vec<Vec<f64>> {
    let (n, hop, bins) = (l.n_fft as usize, l.hop as usize, l.n_fft as usize / 2 + 1);
    let window = hann(n);
    (0..x.len().div_ceil(hop))
        .map(|row| {
            let sample =
                |t: usize| ((row + 1) * hop + t).checked_sub(n).and_then(|at| x.get(at)).map_or(0.0, |v| f64::from(*v));
            let part = |k: usize, f: fn(f64) -> f64| {
                (0..n).map(|t| sample(t) * window[t] * f(2.0 * PI * (k * t % n) as f64 / n as f64)).sum::<f64>()
            };
            let values: Vec<(f64, f64)> = (0..bins).map(|k| (part(k, f64::cos), -part(k, f64::sin))).collect();
            let power = |(re, im): (f64, f64)| re * re + im * im + f64::from(l.floor).powi(2);
            let factor = |v| power(v).powf((f64::from(l.power) - 1.0) / 2.0);
            let levels = values.iter().map(|v| power(*v).log10() / 2.0);
            let reals = values.iter().map(|v| v.0 * factor(*v));
            levels.chain(reals).chain(values.iter().map(|v| v.1 * factor(*v))).collect()
        })
        .collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn istft_is_the_formula_at_any_chunking(
        size in 0usize..6, hop in 1u32..60, rows_in in 0usize..14, pieces in prop::collection::vec(1usize..6, 1..8), seed in any::<u64>(),
    ) {
        let n_fft = [4, 8, 10, 24, 40, 60][size];
        // At least a quarter: less overlap than that nobody uses, and windows near zero are divided by.
        let hop = (hop % (n_fft * 3 / 4)).max(1);
        let hop = hop + (n_fft - hop) % 2;
        let l = Istft { n_fft, hop };
        let channels = n_fft as usize + 2;
        let chain = Chain::new(&[Layer::Istft(l)], channels, &MapTensors::default()).unwrap();
        prop_assert_eq!(chain.plan().rate, (u64::from(hop), 1));
        let x: Vec<f32> = noise(rows_in * channels, seed).into_iter().map(|v| 3.0 * v).collect();
        let whole = run(&chain, &x, &[rows_in.max(1)]);
        prop_assert_eq!(whole.len(), rows_in * hop as usize);
        if rows_in > 0 {
            let reference = istft_reference(&l, &rows(&x, channels));
            let largest = reference.iter().fold(1.0f64, |m, v| m.max(v[0].abs()));
            let scaled = |v: &[f32]| -> Vec<f32> { v.iter().map(|v| (f64::from(*v) / largest) as f32).collect() };
            let reference: Vec<Vec<f64>> = reference.iter().map(|v| vec![v[0] / largest]).collect();
            close(&scaled(&whole), &reference);
        }
        prop_assert_eq!(bits(&whole), bits(&run(&chain, &x, &pieces)));
    }

    #[test]
    fn stft_is_the_formula_at_any_chunking(
        size in 0usize..6, hop in 1u32..60, n in 0usize..150, pieces in prop::collection::vec(1usize..40, 1..8),
        power in 0f32..1.0, seed in any::<u64>(),
    ) {
        let n_fft = [4, 8, 10, 24, 40, 60][size];
        let l = Stft { n_fft, hop: 1 + hop % n_fft, floor: 0.01, power };
        let chain = Chain::new(&[Layer::Stft(l)], 1, &MapTensors::default()).unwrap();
        prop_assert_eq!(chain.plan().rate, (1, u64::from(l.hop)));
        let x = noise(n, seed);
        let whole = run(&chain, &x, &[n.max(1)]);
        close(&whole, &stft_reference(&l, &x));
        prop_assert_eq!(bits(&whole), bits(&run(&chain, &x, &pieces)));
    }

    /// Behind and before other layers, which need room around its rows.
    #[test]
    fn a_vocoder_streams_exactly(
        left in 0u32..7, n in 0usize..12, pieces in prop::collection::vec(1usize..6, 1..8), seed in any::<u64>(),
    ) {
        let conv = |name: &str, input, output, mode, left| Layer::Conv(Conv {
            name: name.into(), input, output, kernel: 7, stride: 1, dilation: 1, groups: 1, bias: true,
            padding: Padding { mode, left, right: 6 - left, complete: false }, int8: None,
        });
        let layers = [
            conv("in", 5, 26, PadMode::Reflect, left),
            Layer::Istft(Istft { n_fft: 24, hop: 6 }),
            conv("out", 1, 4, PadMode::Reflect, 6 - left),
            Layer::Activation(Activation::Elu { alpha: 1.0 }),
            Layer::Noise(Noise { name: "n".into(), channels: 4, index: 0, seed: Some(seed) }),
            conv("last", 4, 1, PadMode::Zero, 3),
        ];
        let tensors = MapTensors::random(&layer_tensors(&layers, 5), seed);
        let chain = Chain::new(&layers, 5, &tensors).unwrap();
        let x = noise(n * 5, seed);
        let whole = run(&chain, &x, &[n.max(1)]);
        prop_assert_eq!(whole.len(), 6 * n);
        prop_assert!(whole.iter().all(|v| v.is_finite()));
        prop_assert_eq!(bits(&whole), bits(&run(&chain, &x, &pieces)));
    }

    #[test]
    fn noise_is_its_generator(
        seed in any::<u64>(), index in 0u32..12, n in 0usize..40, pieces in prop::collection::vec(1usize..12, 1..8),
    ) {
        let layer = |seed| Layer::Noise(Noise { name: "n".into(), channels: 6, index, seed });
        let tensors = MapTensors::random(&layer_tensors(&[layer(None)], 6), seed);
        let x = noise(n * 6, seed);
        let silent = Chain::new(&[layer(None)], 6, &tensors).unwrap();
        prop_assert_eq!(bits(&run(&silent, &x, &pieces)), bits(&x));

        let chain = Chain::new(&[layer(Some(seed))], 6, &tensors).unwrap();
        let whole = run(&chain, &x, &[n.max(1)]);
        prop_assert_eq!(bits(&whole), bits(&run(&chain, &x, &pieces)));
        // The generator as the published parity cases state it.
        let noise: Vec<f32> = uniform(&format!("noise.{index}"), n, seed, 1.0, 0.0).iter().map(|u| u * 1.7320508).collect();
        let w = codec_core::weights::Tensors::tensor(&tensors, "n.weight").unwrap();
        let reference: Vec<Vec<f64>> = rows(&x, 6).iter().zip(&noise).map(|(row, noise)| {
            let dot = |o: usize| (0..6).map(|c| f64::from(w.get(o * 6 + c)) * row[c]).sum::<f64>();
            (0..6).map(|o| row[o] + f64::from(*noise) * dot(o)).collect()
        }).collect();
        if n > 0 {
            close(&whole, &reference);
        }
    }
}

/// Over 2^17 rows: mean and variance of the generator, and no two layers or seeds alike.
#[test]
fn noise_has_unit_variance() {
    let draw = |index, seed| {
        let layer = Layer::Noise(Noise { name: "n".into(), channels: 1, index, seed: Some(seed) });
        let mut tensors = MapTensors::default();
        tensors.insert("n.weight", &[1, 1, 1], &[1.0]);
        let chain = Chain::new(&[layer], 1, &tensors).unwrap();
        run(&chain, &vec![1.0; 1 << 17], &[4096]).iter().map(|v| f64::from(*v) - 1.0).collect::<Vec<f64>>()
    };
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / a.len() as f64;
    let all = [draw(0, 1), draw(1, 1), draw(0, 2)];
    for (i, a) in all.iter().enumerate() {
        let mean = a.iter().sum::<f64>() / a.len() as f64;
        assert!(mean.abs() < 0.01, "mean {mean}");
        for (j, b) in all.iter().enumerate() {
            let expected = if i == j { 1.0 } else { 0.0 };
            assert!((product(a, b) - expected).abs() < 0.01, "{i} and {j}: {}", product(a, b));
        }
    }
}

/// The textbook form in f64, but for the filters, which golden cases check.
#[test]
fn log_mel_of_a_tone() {
    let l = LogMel { sample_rate: 16000, n_fft: 400, hop: 160, mels: 40 };
    let chain = Chain::new(&[Layer::LogMel(l)], 1, &MapTensors::default()).unwrap();
    assert!(chain.plan().whole.is_some());
    assert_eq!(chain.plan().rate, (1, 160));
    for n in [1, 100, 159, 160, 161, 400, 1000, 4799, 4800] {
        let x: Vec<f32> = (0..n).map(|t| (2.0 * PI * 1000.0 * t as f64 / 16000.0).sin() as f32).collect();
        let y = run(&chain, &x, &[n]);
        assert_eq!(y.len(), n / 160 * 40, "{n} samples");
        assert!(y.iter().all(|v| v.is_finite()));
        let largest = y.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
        // 8 below the greatest, over 4.
        assert!(y.iter().all(|v| *v >= largest - 2.0 - 1e-6));
        if n == 4800 {
            // 15 of 45.25 mels up to 8 kHz, of 41 filters' distances.
            let row = &y[10 * 40..11 * 40];
            let peak = (0..40).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            assert_eq!(peak, 13);
        }
    }
    let silence = run(&chain, &[0.0; 800], &[800]);
    assert!(silence.iter().all(|v| *v == -1.5), "log10(1e-10) is -10");
    let mut state = chain.state(800);
    assert!(matches!(chain.step(cx(), &mut state, &[0.0; 400], false), Err(RunError::TooLong { .. })));
}

#[test]
fn s3tokenizer_spectrogram() {
    let folder = golden::committed();
    let case = Case::load(&folder, "s3tokenizer_v2_25hz");
    let l = LogMel { sample_rate: 16000, n_fft: 400, hop: 160, mels: 128 };
    let chain = Chain::new(&[Layer::LogMel(l)], 1, &MapTensors::default()).unwrap();
    let pcm = case.array("pcm").f32();
    let tolerance = 10.0 * case.measured("mel_f32_f64");
    for (name, pcm) in [("mel", pcm), ("mel_odd", &pcm[..16777])] {
        let ours = transpose(&run(&chain, pcm, &[pcm.len()]), pcm.len() / 160);
        assert_close(name, &ours, case.array(name).f32(), tolerance);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |layer: Layer, input| {
        let error = Chain::new(&[layer], input, &MapTensors::default()).unwrap_err();
        assert!(matches!(error, BuildError::Spec(_)), "{error}");
    };
    for (n_fft, hop, input) in [(0, 1, 2), (8, 0, 10), (8, 8, 10), (8, 3, 10), (14, 2, 16), (8, 2, 9), (u32::MAX, 1, 1)]
    {
        refused(Layer::Istft(Istft { n_fft, hop }), input);
    }
    for (n_fft, hop, mels, sample_rate, input) in [
        (400, 160, 0, 16000, 1),
        (400, 201, 80, 16000, 1),
        (400, 0, 80, 16000, 1),
        (402, 160, 80, 16000, 1),
        (400, 160, 80, 0, 1),
        (400, 160, 80, 16000, 2),
    ] {
        refused(Layer::LogMel(LogMel { sample_rate, n_fft, hop, mels }), input);
    }
    for (n_fft, hop, floor, power, input) in [
        (0, 1, 0.1, 0.5, 1),
        (8, 0, 0.1, 0.5, 1),
        (8, 9, 0.1, 0.5, 1),
        (14, 2, 0.1, 0.5, 1),
        (8, 2, 0.0, 0.5, 1),
        (8, 2, f32::NAN, 0.5, 1),
        (8, 2, -0.1, 0.5, 1),
        (8, 2, 1e30, 0.5, 1),
        (8, 2, 0.1, 1.5, 1),
        (8, 2, 0.1, f32::NAN, 1),
        (8, 2, 0.1, 0.5, 2),
    ] {
        refused(Layer::Stft(Stft { n_fft, hop, floor, power }), input);
    }
    let noise = Noise { name: "n".into(), channels: 3, index: 0, seed: Some(1) };
    refused(Layer::Noise(noise.clone()), 4);
    let missing = Chain::new(&[Layer::Noise(noise)], 3, &MapTensors::default()).unwrap_err();
    assert_eq!(missing, BuildError::MissingTensor("n.weight".into()));
}
