//! The signals of `make.py`, by the same closed forms.

use std::f64::consts::TAU;

use codec::eval::Signal;

fn noise(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as f64 / 2f64.powi(31) - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn voice(rate: u32, seconds: u32, scrambled: bool) -> Vec<f64> {
    let hiss = noise((rate * seconds) as usize, 7);
    let sample = |(i, hiss): (usize, f64)| {
        let t = i as f64 / f64::from(rate);
        let phase = TAU * 120.0 * t - 30.0 / 0.7 * (TAU * 0.7 * t).cos();
        let harmonic = |k: u32| {
            let (k, f) = (f64::from(k), 120.0 * f64::from(k));
            let level = 1.0 / (1.0 + ((f - 600.0) / 250.0).powi(2)) + 0.5 / (1.0 + ((f - 1900.0) / 300.0).powi(2));
            level * (k * phase + if scrambled { 2.4 * k * k } else { 0.0 }).sin()
        };
        let syllable = (TAU * 1.7 * t).sin().max(0.0).sqrt();
        let between = (TAU * 1.7 * t + 2.2).sin().max(0.0).powi(2);
        0.18 * (1..25).map(harmonic).sum::<f64>() * syllable + 0.05 * between * hiss
    };
    hiss.into_iter().enumerate().map(sample).collect()
}

fn low_pass(x: &[f64], a: f64, times: usize) -> Vec<f64> {
    let mut x = x.to_vec();
    for _ in 0..times {
        let mut held = 0.0;
        for v in &mut x {
            held += a * (*v - held);
            *v = held;
        }
    }
    x
}

fn late(x: &[f64], n: usize) -> Vec<f64> {
    [vec![0.0; n], x.to_vec()].concat()
}

fn plus(x: &[f64], level: f64, seed: u64) -> Vec<f64> {
    x.iter().zip(noise(x.len(), seed)).map(|(x, n)| x + level * n).collect()
}

/// Rounded to 16 bits, half up.
pub fn signal(x: &[f64], sample_rate: u32) -> Signal {
    let held = |v: &f64| ((v * 32767.0 + 0.5).floor().clamp(-32768.0, 32767.0) / 32768.0) as f32;
    Signal { samples: x.iter().map(held).collect(), sample_rate }
}

/// Name, reference and degraded signal.
pub fn cases() -> Vec<(&'static str, Signal, Signal)> {
    let x = voice(16_000, 4, false);
    let map = |f: &dyn Fn(f64) -> f64| x.iter().map(|v| f(*v)).collect::<Vec<_>>();
    let chirp: Vec<f64> = (0..x.len())
        .map(|i| {
            let t = i as f64 / 16_000.0;
            0.5 * (TAU * (200.0 * t + 400.0 * t * t)).sin()
        })
        .collect();
    let mut gap = x.clone();
    gap[16_000..22_000].fill(0.0);
    let y = voice(24_000, 4, false);
    let at_16 = vec![
        ("identical", x.clone()),
        ("noisy", plus(&x, 0.01, 3)),
        ("louder_noise", plus(&x, 0.1, 4)),
        ("dull", low_pass(&x, 0.5, 3)),
        ("coarse", map(&|v| (v * 16.0).round_ties_even() / 16.0)),
        ("clipped", map(&|v| (8.0 * v).tanh() / 4.0)),
        ("late_and_soft", late(&map(&|v| 0.5 * v), 137)),
        ("early", plus(&x[211..], 0.02, 5)),
        ("scrambled_and_late", late(&voice(16_000, 4, true), 800)),
        ("gap", gap),
        ("cut_off", x[..52_000].to_vec()),
    ];
    let mut all: Vec<_> =
        at_16.into_iter().map(|(name, deg)| (name, signal(&x, 16_000), signal(&deg, 16_000))).collect();
    all.push(("chirp", signal(&chirp, 16_000), signal(&low_pass(&chirp, 0.4, 2), 16_000)));
    all.push(("at_24_khz", signal(&y, 24_000), signal(&plus(&low_pass(&y, 0.6, 2), 0.01, 6), 24_000)));
    all
}
