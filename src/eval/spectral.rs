//! Distances of short-time spectra.

use serde::Serialize;

use super::{fft::Fft, sisdr::si_sdr};

/// Distances of the spectra of two signals, and the ratio of the waveforms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spectral {
    /// Mean absolute difference of the natural logarithms of 80 mel bands (magnitudes, at least 1e-5; windows of 1024, hops of 256).
    pub mel: f64,
    /// Mean over windows of 2048, 1024, 512, 256 and 128 with hops of a quarter of: spectral convergence, and the mean absolute
    /// difference of the natural logarithms of magnitudes (Yamamoto et al., "Parallel WaveGAN", ICASSP 2020).
    pub mr_stft: f64,
    /// Log-spectral distance in decibels: the root mean square over bins, the mean over time (windows of 1024, hops of 256).
    pub lsd: f64,
    /// [`si_sdr`].
    pub si_sdr: f64,
}

/// Magnitudes of a short-time Fourier transform.
#[derive(Clone, Debug, Default)]
pub struct Spectrogram {
    /// Bins, from 0 to half the rate.
    pub bins: usize,
    /// `[frames, bins]`.
    pub magnitudes: Vec<f64>,
}

/// Least magnitude in logarithms.
const FLOOR: f64 = 1e-5;
const WINDOWS: [usize; 5] = [2048, 1024, 512, 256, 128];
const MEL_WINDOW: usize = 1024;
const MEL_BANDS: usize = 80;

/// Magnitudes in Hann windows of `size` samples, `hop` apart: the first is centred on the first sample, the last half a window behind
/// the last one. Beyond the signal is silence.
pub fn spectrogram(signal: &[f64], size: usize, hop: usize) -> Spectrogram {
    let (size, hop) = (size.max(2), hop.max(1));
    let fft = Fft::new(size);
    let window: Vec<f64> =
        (0..size).map(|i| 0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / size as f64).cos()).collect();
    let frames = (signal.len() + size) / hop;
    let mut spectra = Spectrogram { bins: size / 2 + 1, magnitudes: Vec::with_capacity(frames * (size / 2 + 1)) };
    let mut held = vec![0.0; size];
    for frame in 0..frames {
        for (i, (value, w)) in held.iter_mut().zip(&window).enumerate() {
            let at = (frame * hop + i).checked_sub(size / 2);
            *value = at.and_then(|at| signal.get(at)).map_or(0.0, |v| v * w);
        }
        spectra.magnitudes.extend(fft.forward(&held).iter().map(|bin| bin.norm()));
    }
    spectra
}

/// Triangles between points that are evenly spaced in mel (`2595 log10(1 + f / 700)`), each of area 1: `[bands, bins]`.
fn mel_bank(rate: u32, size: usize, bands: usize) -> Vec<f64> {
    let top = 2595.0 * (1.0 + f64::from(rate) / 2.0 / 700.0).log10();
    let point = |i: usize| 700.0 * (10f64.powf(top * i as f64 / (bands + 1) as f64 / 2595.0) - 1.0);
    let mut bank = Vec::with_capacity(bands * (size / 2 + 1));
    for band in 0..bands {
        let (low, middle, high) = (point(band), point(band + 1), point(band + 2));
        bank.extend((0..=size / 2).map(|bin| {
            let f = bin as f64 * f64::from(rate) / size as f64;
            ((f - low) / (middle - low)).min((high - f) / (high - middle)).max(0.0) * 2.0 / (high - low)
        }));
    }
    bank
}

fn mel_distance(a: &Spectrogram, b: &Spectrogram, rate: u32) -> f64 {
    let bank = mel_bank(rate, MEL_WINDOW, MEL_BANDS);
    let bands = |frame: &[f64]| -> Vec<f64> {
        let sum = |row: &[f64]| row.iter().zip(frame).map(|(w, v)| w * v).sum::<f64>();
        bank.chunks_exact(a.bins).map(|row| sum(row).max(FLOOR).ln()).collect()
    };
    let frames = a.magnitudes.chunks_exact(a.bins).zip(b.magnitudes.chunks_exact(b.bins));
    let sum: f64 = frames.map(|(a, b)| bands(a).iter().zip(bands(b)).map(|(a, b)| (a - b).abs()).sum::<f64>()).sum();
    sum / (a.magnitudes.len() / a.bins * MEL_BANDS).max(1) as f64
}

/// All distances of two signals of one length.
pub fn spectral(reference: &[f64], degraded: &[f64], rate: u32) -> Spectral {
    let mut found = Spectral { mel: 0.0, mr_stft: 0.0, lsd: 0.0, si_sdr: si_sdr(reference, degraded) };
    for size in WINDOWS {
        let (a, b) = (spectrogram(reference, size, size / 4), spectrogram(degraded, size, size / 4));
        let values = a.magnitudes.len().max(1) as f64;
        let (mut difference, mut energy, mut logs) = (0.0, 0.0, 0.0);
        for (a, b) in a.magnitudes.iter().zip(&b.magnitudes) {
            difference += (a - b).powi(2);
            energy += a * a;
            logs += (a.max(FLOOR) / b.max(FLOOR)).ln().abs();
        }
        found.mr_stft += (difference.sqrt() / (energy.sqrt() + 1e-9) + logs / values) / WINDOWS.len() as f64;
        if size == MEL_WINDOW {
            found.mel = mel_distance(&a, &b, rate);
            let rows = a.magnitudes.chunks_exact(a.bins).zip(b.magnitudes.chunks_exact(b.bins));
            let row = |(a, b): (&[f64], &[f64])| {
                let decibels = |(a, b): (&f64, &f64)| (20.0 * (a.max(FLOOR) / b.max(FLOOR)).log10()).powi(2);
                (a.iter().zip(b).map(decibels).sum::<f64>() / a.len() as f64).sqrt()
            };
            found.lsd = rows.map(row).sum::<f64>() * a.bins as f64 / values;
        }
    }
    found
}
