//! Short-time objective intelligibility (Taal et al., "An Algorithm for Intelligibility Prediction of Time-Frequency Weighted Noisy
//! Speech", IEEE TASLP 2011) and its extension (Jensen and Taal, "An Algorithm for Predicting the Intelligibility of Speech Masked by
//! Modulated Noise Maskers", IEEE/ACM TASLP 2016).

use super::fft::Fft;

/// Samples of a window, with hops of half of it, at 10 kHz.
const WINDOW: usize = 256;
const HOP: usize = WINDOW / 2;
const FFT: usize = 512;
/// Third-octave bands from 150 Hz on.
const BANDS: usize = 15;
const LOWEST: f64 = 150.0;
/// Frames of a segment: 384 ms.
const SEGMENT: usize = 30;
/// Decibels below the loudest frame at which a frame is silent.
const RANGE: f64 = 40.0;
/// Decibels: the lowest ratio of signal to distortion that a band is taken to have.
const CLIP: f64 = -15.0;
/// What both metrics are where fewer than 30 frames are not silent, as in the authors' code.
const TOO_SHORT: f64 = 1e-5;

/// STOI of signals of one length at 16 kHz, at most 1; 1e-5 for a signal with less than 384 ms that are not silent.
pub fn stoi(reference: &[f64], degraded: &[f64]) -> f64 {
    segments(reference, degraded, |x, y| {
        let clip = 1.0 + 10f64.powf(-CLIP / 20.0);
        let mut sum = 0.0;
        for (x, y) in x.iter().zip(y.iter_mut()) {
            let scale = norm(x) / (norm(y) + f64::EPSILON);
            y.iter_mut().zip(x.iter()).for_each(|(y, x)| *y = (*y * scale).min(*x * clip));
            let (mut x, mut y) = (*x, *y);
            for row in [&mut x, &mut y] {
                centre(row);
                let norm = norm(row) + f64::EPSILON;
                row.iter_mut().for_each(|v| *v /= norm);
            }
            sum += dot(&x, &y);
        }
        sum / BANDS as f64
    })
}

/// ESTOI of signals of one length at 16 kHz, at most 1; 1e-5 for a signal with less than 384 ms that are not silent.
pub fn extended_stoi(reference: &[f64], degraded: &[f64]) -> f64 {
    segments(reference, degraded, |x, y| {
        normalise(x);
        normalise(y);
        x.iter().zip(y.iter()).map(|(x, y)| dot(x, y)).sum::<f64>() / SEGMENT as f64
    })
}

type Bands = [[f64; SEGMENT]; BANDS];

/// Rows and then columns without their means and of unit norm; a row or column that is constant gives nothing.
fn normalise(x: &mut Bands) {
    for row in x.iter_mut() {
        centre(row);
        let norm = norm(row);
        row.iter_mut().for_each(|v| *v = if norm > 1e-14 { *v / norm } else { 0.0 });
    }
    for column in 0..SEGMENT {
        let mut held: [f64; BANDS] = std::array::from_fn(|band| x[band][column]);
        centre(&mut held);
        let norm = norm(&held);
        for (row, v) in x.iter_mut().zip(held) {
            row[column] = if norm > 1e-14 { v / norm } else { 0.0 };
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

fn centre(x: &mut [f64]) {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    x.iter_mut().for_each(|v| *v -= mean);
}

/// The mean of `measure` over all segments of third-octave bands of what is not silent.
fn segments(reference: &[f64], degraded: &[f64], measure: impl Fn(&mut Bands, &mut Bands) -> f64) -> f64 {
    let (x, y) = without_silence(&to_10_khz(reference), &to_10_khz(degraded));
    let (x, y) = (bands(&x), bands(&y));
    let count = (x.len() + 1).saturating_sub(SEGMENT);
    if count == 0 {
        return TOO_SHORT;
    }
    let of = |all: &[[f64; BANDS]], at: usize| -> Bands {
        std::array::from_fn(|band| std::array::from_fn(|frame| all[at + frame][band]))
    };
    (0..count).map(|at| measure(&mut of(&x, at), &mut of(&y, at))).sum::<f64>() / count as f64
}

/// A Hann window that has no zero in it.
fn window() -> [f64; WINDOW] {
    std::array::from_fn(|i| 0.5 - 0.5 * (std::f64::consts::TAU * (i + 1) as f64 / (WINDOW + 1) as f64).cos())
}

fn starts(len: usize) -> impl Iterator<Item = usize> {
    (0..len.saturating_sub(WINDOW)).step_by(HOP)
}

/// Both signals from the windows in which the reference is within 40 dB of its loudest, overlapped and added.
fn without_silence(x: &[f64], y: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let window = window();
    let windowed = |signal: &[f64], at: usize| -> [f64; WINDOW] { std::array::from_fn(|i| window[i] * signal[at + i]) };
    let levels: Vec<f64> = starts(x.len()).map(|at| 20.0 * (norm(&windowed(x, at)) + f64::EPSILON).log10()).collect();
    let loudest = levels.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let kept: Vec<usize> =
        starts(x.len()).zip(&levels).filter(|(_, level)| loudest - RANGE - **level < 0.0).map(|(at, _)| at).collect();
    let join = |signal: &[f64]| {
        let mut out = vec![0.0; if kept.is_empty() { 0 } else { (kept.len() - 1) * HOP + WINDOW }];
        for (i, &at) in kept.iter().enumerate() {
            out[i * HOP..].iter_mut().zip(windowed(signal, at)).for_each(|(o, v)| *o += v);
        }
        out
    };
    (join(x), join(y))
}

/// Magnitudes of third-octave bands, frame by frame.
fn bands(signal: &[f64]) -> Vec<[f64; BANDS]> {
    let (fft, window) = (Fft::new(FFT), window());
    // The bin that is nearest to a frequency.
    let bin = |f: f64| (f * FFT as f64 / 10_000.0 - 0.5).ceil().max(0.0) as usize;
    let edges: [(usize, usize); BANDS] = std::array::from_fn(|band| {
        let edge = |sixths: i32| bin(LOWEST * 2f64.powf(f64::from(sixths) / 6.0));
        (edge(2 * band as i32 - 1), edge(2 * band as i32 + 1))
    });
    starts(signal.len())
        .map(|at| {
            let held: Vec<f64> = signal[at..at + WINDOW].iter().zip(&window).map(|(v, w)| v * w).collect();
            let bins = fft.forward(&held);
            std::array::from_fn(|band| {
                let (low, high) = edges[band];
                bins[low..high].iter().map(|b| b.norm_sqr()).sum::<f64>().sqrt()
            })
        })
        .collect()
}

/// From 16 kHz to 10 kHz by the filter of the authors' code (Octave's `resample`): 5 up, 8 down, a Kaiser-windowed sinc with
/// 60 dB of rejection.
fn to_10_khz(signal: &[f64]) -> Vec<f64> {
    const UP: usize = 5;
    const DOWN: usize = 8;
    let cutoff = 1.0 / (2 * DOWN) as f64;
    let half = ((60.0 - 8.0) / (28.714 * cutoff / 10.0)).ceil() as usize;
    let beta = 0.1102 * (60.0 - 8.7);
    let mut filter: Vec<f64> = (0..=2 * half)
        .map(|i| {
            let t = i as f64 - half as f64;
            let x = 2.0 * cutoff * t * std::f64::consts::PI;
            let sinc = if x == 0.0 { 1.0 } else { x.sin() / x };
            sinc * bessel_i0(beta * (1.0 - (t / half as f64).powi(2)).max(0.0).sqrt())
        })
        .collect();
    let sum: f64 = filter.iter().sum();
    filter.iter_mut().for_each(|v| *v *= UP as f64 / sum);
    (0..(signal.len() * UP).div_ceil(DOWN))
        .map(|out| {
            // Sample `i` of the signal stands at `i * UP`; the filter is centred on `out * DOWN`.
            let centre = out * DOWN;
            let first = centre.saturating_sub(half).div_ceil(UP);
            let last = ((centre + half) / UP).min(signal.len() - 1);
            (first..=last).map(|i| signal[i] * filter[centre + half - i * UP]).sum()
        })
        .collect()
}

/// The modified Bessel function of the first kind and order 0.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 1..200 {
        term *= (x / 2.0 / f64::from(k)).powi(2);
        sum += term;
        if term < sum * 1e-17 {
            break;
        }
    }
    sum
}
