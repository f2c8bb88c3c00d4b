//! ViSQOL v3 in speech mode (Hines et al., "ViSQOL: an objective speech quality model", EURASIP JASMP 2015; Chinen et al., "ViSQOL
//! v3: an open source production ready objective speech and audio metric", QoMEX 2020): patches of the reference's gammatone
//! spectrogram are looked for in the decoded signal's, compared by NSIM, and a calibrated lattice that was fitted to listening
//! tests makes an opinion score of the bands' statistics, where there is one ([`Lattice`]).
//!
//! Constants and the order of steps are those of the authors' program, since a score means nothing without them.

mod gammatone;
mod lattice;
mod nsim;
mod patches;

use super::fft::{correlate, envelope};
use gammatone::{Filters, Image};
pub use lattice::{Lattice, LatticeError};
use patches::Match;

/// Bands of the spectrogram.
const BANDS: usize = 21;
/// Samples at 16 kHz of a window of 80 ms and of its hop.
const WINDOW: usize = 1280;
const HOP: usize = WINDOW / 4;
/// Windows of a patch.
const PATCH: usize = 20;
/// Seconds between windows.
const FRAME: f64 = HOP as f64 / super::RATE as f64;
/// A mean similarity below which nothing is alike.
const UNLIKE: f64 = 0.15;

/// What ViSQOL finds.
#[derive(Clone, Debug, PartialEq)]
pub struct Visqol {
    /// Mean opinion score, 1 to 5; `None` without a lattice.
    pub mos: Option<f64>,
    /// Mean neurogram similarity (NSIM), at most 1.
    pub similarity: f64,
    /// The same of each of the 21 bands, low frequencies first.
    pub bands: Vec<f64>,
    /// Mean similarity of each band in the least alike tenth of the patches.
    pub low: Vec<f64>,
    /// Standard deviation of the similarity of each band over time.
    pub deviation: Vec<f64>,
    /// Mean level of each band of the decoded signal in decibels, from 0.
    pub level: Vec<f64>,
}

/// Compares signals at 16 kHz; the opinion score is there with a lattice. `None` if the reference has no patch of 400 ms with voice in it, either is too short, or the decoded
/// signal is silent.
pub fn visqol(reference: &[f64], degraded: &[f64], lattice: Option<&Lattice>) -> Option<Visqol> {
    let lag = global_lag(reference, degraded);
    let degraded = super::align::shifted(degraded, -lag, degraded.len().checked_add_signed(lag)?);
    let level = |x: &[f64]| (x.iter().map(|v| v * v).sum::<f64>() / x.len().max(1) as f64).sqrt();
    let scale = level(reference) / level(&degraded);
    if !scale.is_finite() {
        return None;
    }
    let degraded: Vec<f64> = degraded.iter().map(|v| v * scale).collect();
    let filters = Filters::new();
    let (mut a, mut b) = (filters.spectrogram(reference)?, filters.spectrogram(&degraded)?);
    gammatone::to_decibels(&mut a, &mut b);
    let starts = patches::with_voice(reference, a.columns);
    let mut found = patches::best_path(&a, &b, &starts)?;
    for one in &mut found {
        realign(one, reference, &degraded, &filters);
    }
    Some(of_patches(&found, lattice))
}

/// Samples by which `degraded` must be delayed for the best match of the envelopes; 0 beyond half the reference.
fn global_lag(reference: &[f64], degraded: &[f64]) -> isize {
    let lag = envelope_lag(reference, degraded);
    if lag.unsigned_abs() * 2 > reference.len() { 0 } else { lag }
}

fn envelope_lag(reference: &[f64], degraded: &[f64]) -> isize {
    let outline = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / x.len().max(1) as f64;
        let centred: Vec<f64> = x.iter().map(|v| v - mean).collect();
        envelope(&centred).into_iter().map(|v| v + mean).collect::<Vec<_>>()
    };
    let most = reference.len().max(degraded.len()) as isize - 1;
    let sums = correlate(&outline(degraded), &outline(reference));
    let mut best = (0, f64::NEG_INFINITY);
    for lag in -most..=most {
        let at = if lag < 0 { sums.len().checked_sub(lag.unsigned_abs()) } else { Some(lag as usize) };
        if let Some(&sum) = at.and_then(|at| sums.get(at)).filter(|sum| **sum > best.1) {
            best = (lag, sum);
        }
    }
    best.0
}

/// Samples from `start` to `end` seconds. What is missing at the end is put before it, as the authors' program does.
fn slice(signal: &[f64], start: f64, end: f64) -> Vec<f64> {
    let rate = f64::from(super::RATE);
    let from = (start * rate).max(0.0) as usize;
    let to = ((end * rate) as usize).min(signal.len().saturating_sub(1));
    let missing = (end * rate - signal.len() as f64).max(0.0) as usize;
    let before = (-start * rate).max(0.0) as usize;
    [vec![0.0; before + missing], signal.get(from..to).unwrap_or_default().to_vec()].concat()
}

/// Aligns a pair of patches in time, and keeps what it gives if that is more alike.
fn realign(found: &mut Match, reference: &[f64], degraded: &[f64], filters: &Filters) {
    let Some(start) = found.degraded_start else { return };
    let mut a = slice(reference, found.start, found.end);
    let mut b = slice(degraded, start, start + PATCH as f64 * FRAME);
    let lag = global_lag(&a, &b);
    if let Some(len) = b.len().checked_add_signed(lag) {
        b = super::align::shifted(&b, -lag, len);
    }
    if a.len() < b.len() && lag > 0 {
        // The beginning of the reference would meet the silence that was put before the other.
        a.drain(..(lag as usize).min(a.len()));
        b.drain(..(lag as usize).min(b.len()));
    }
    let len = a.len().min(b.len());
    a.truncate(len);
    b.truncate(len);
    let (Some(mut x), Some(mut y)) = (filters.spectrogram(&a), filters.spectrogram(&b)) else { return };
    gammatone::to_decibels(&mut x, &mut y);
    let similarity = nsim::patch(&x, 0, &y, 0, x.columns);
    if similarity.mean >= found.similarity.mean {
        let start = found.start + if lag > 0 { lag as f64 / f64::from(super::RATE) } else { 0.0 };
        (found.start, found.end) = (start, start + len as f64 / f64::from(super::RATE));
        found.similarity = similarity;
    }
}

/// Statistics of all pairs of patches, and the opinion that follows.
fn of_patches(found: &[Match], lattice: Option<&Lattice>) -> Visqol {
    let n = found.len() as f64;
    let mean = |of: fn(&Match) -> &[f64; BANDS]| -> [f64; BANDS] {
        std::array::from_fn(|band| found.iter().map(|m| of(m)[band]).sum::<f64>() / n)
    };
    let bands = mean(|m| &m.similarity.means);
    let level = mean(|m| &m.similarity.energies);
    let low: [f64; BANDS] = std::array::from_fn(|band| {
        let mut all: Vec<f64> = found.iter().map(|m| m.similarity.means[band]).collect();
        all.sort_by(f64::total_cmp);
        let count = (all.len() / 10).max(1);
        all[..count].iter().sum::<f64>() / count as f64
    });
    let frames: Vec<f64> = found.iter().map(|m| ((m.end - m.start) / FRAME).ceil()).collect();
    let total: f64 = frames.iter().sum();
    // Pooled over patches.
    let deviation: [f64; BANDS] = std::array::from_fn(|band| {
        let sum = |(m, frames): (&Match, &f64)| {
            (frames - 1.0) * m.similarity.deviations[band].powi(2) + frames * m.similarity.means[band].powi(2)
        };
        let all: f64 = found.iter().zip(&frames).map(sum).sum();
        if total <= 1.0 { 0.0 } else { ((all - bands[band].powi(2) * total) / (total - 1.0)).max(0.0).sqrt() }
    });
    let similarity = bands.iter().sum::<f64>() / BANDS as f64;
    let opinion = |lattice: &Lattice| lattice.opinion([&bands, &low, &deviation, &level]);
    let mos = lattice.map(|lattice| if similarity < UNLIKE { 1.0 } else { opinion(lattice) });
    let [bands, low, deviation, level] = [bands, low, deviation, level].map(Vec::from);
    Visqol { mos, similarity, bands, low, deviation, level }
}
