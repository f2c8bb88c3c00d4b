//! The delay of a codec.

use serde::Serialize;

use super::fft::correlate;

/// How a delay was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// By the waveforms.
    Waveform,
    /// By the loudness: the waveforms have too little in common.
    Envelope,
}

/// The delay of a decoded signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alignment {
    /// Samples by which the decoded signal is late.
    pub lag: isize,
    /// Normalised correlation of the waveforms at the best lag, -1 to 1.
    pub correlation: f64,
    /// What the lag is from.
    pub how: How,
}

/// Waveforms whose normalised correlation is less have lost their phase, as after a parametric codec.
const SAME_WAVEFORM: f64 = 0.35;
/// A correlation that is enough to correct the lag of the loudness by the waveform.
const SOME_WAVEFORM: f64 = 0.2;

/// Finds the delay of `degraded` at `rate`, up to `max_ms` either way: by the waveforms, or where these have too little in
/// common by the loudness in steps of a millisecond, and then by the waveforms within 4 ms of that.
pub fn align(reference: &[f64], degraded: &[f64], rate: u32, max_ms: f64) -> Alignment {
    let most = (f64::from(rate) * max_ms / 1e3) as usize;
    let (lag, correlation) = best_lag(reference, degraded, most);
    if correlation >= SAME_WAVEFORM {
        return Alignment { lag, correlation, how: How::Waveform };
    }
    let hop = (rate as usize / 1000).max(1);
    let window = (rate as usize / 50).max(1);
    let (a, b) = (loudness(reference, hop, window), loudness(degraded, hop, window));
    let mut lag = best_lag(&a, &b, most / hop).0 * hop as isize;
    let (fine, found) =
        best_lag(reference, &shifted(degraded, lag, degraded.len().min(reference.len())), rate as usize / 250);
    if found > SOME_WAVEFORM {
        lag += fine;
    }
    Alignment { lag, correlation, how: How::Envelope }
}

/// `lag` samples earlier, with silence where there is nothing, of the length `len`.
pub(super) fn shifted(signal: &[f64], lag: isize, len: usize) -> Vec<f64> {
    let late = lag.unsigned_abs();
    let mut moved = match lag {
        ..0 => [vec![0.0; late.min(len)], signal.to_vec()].concat(),
        _ => signal.get(late..).unwrap_or_default().to_vec(),
    };
    moved.resize(len, 0.0);
    moved
}

/// The lag of `b` behind `a` of the highest correlation, and that correlation, normalised.
fn best_lag(a: &[f64], b: &[f64], most: usize) -> (isize, f64) {
    let sums = correlate(a, b);
    let most = most.min(sums.len() / 2 - 1);
    let mut best = (0, f64::NEG_INFINITY);
    let lags = (0..=most as isize).chain(-(most as isize)..0);
    for lag in lags {
        let sum = sums[if lag < 0 { sums.len() - lag.unsigned_abs() } else { lag as usize }];
        if sum > best.1 {
            best = (lag, sum);
        }
    }
    let energy = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>();
    (best.0, best.1 / ((energy(a) * energy(b)).sqrt() + 1e-12))
}

/// The logarithm of the root mean square in windows, without its mean.
fn loudness(signal: &[f64], hop: usize, window: usize) -> Vec<f64> {
    let windows = (signal.len().saturating_sub(window) / hop + 1).max(1);
    let mut all: Vec<f64> = (0..windows)
        .map(|i| {
            let from = (i * hop).min(signal.len());
            let held = &signal[from..(from + window).min(signal.len())];
            let power = held.iter().map(|v| v * v).sum::<f64>() / window as f64;
            (power.sqrt() + 1e-4).ln()
        })
        .collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    all.iter_mut().for_each(|v| *v -= mean);
    all
}
