//! How near a decoded signal is to its original: the metrics that the field reports, after the codec's delay is removed.
//!
//! Everything is measured on one channel at 16 kHz ([`RATE`]), so that codecs of different rates can be compared; the spectral
//! metrics can be had at another rate too. Definitions, ranges and what each metric does not tell: `docs/eval.md`.
//!
//! ```
//! use codec::eval::{Options, Signal, UseVisqol, score};
//!
//! let tone = |level: f32| (0..16_000).map(|i| level * (i as f32 * 0.3).sin()).collect();
//! let reference = Signal { samples: tone(0.5), sample_rate: 16_000 };
//! let degraded = Signal { samples: tone(0.25), sample_rate: 16_000 };
//! let scores = score(&reference, &degraded, &Options { visqol: UseVisqol::No, ..Options::default() })?;
//! assert!(scores.si_sdr > 60.0); // loudness does not count there
//! assert!(scores.lsd > 5.9); // and here it does
//! # Ok::<(), codec::eval::EvalError>(())
//! ```

mod align;
mod books;
mod fft;
mod sisdr;
mod spectral;
mod stoi;
mod summary;
mod visqol;

use std::{io, path::PathBuf, sync::Arc};

use serde::Serialize;

pub use align::{Alignment, How, align};
pub use books::{BookUse, BookUses};
pub use sisdr::si_sdr;
pub use spectral::{Spectral, Spectrogram, spectral, spectrogram};
pub use stoi::{extended_stoi, stoi};
pub use summary::Summary;
pub use visqol::{Lattice, LatticeError, Visqol, visqol};

use crate::audio::{Allow, AudioError, Conform};

/// The rate, in hertz, at which signals are compared.
pub const RATE: u32 = 16_000;
/// The longest signal that is scored, in seconds: what is held in memory grows with it.
pub const MOST_SECONDS: u32 = 600;

/// One channel of sound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signal {
    /// Samples, with full scale at ±1.
    pub samples: Vec<f32>,
    /// Samples a second.
    pub sample_rate: u32,
}

impl Signal {
    /// Seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.sample_rate.max(1))
    }

    /// The signal at another rate, with no delay added.
    ///
    /// # Errors
    /// [`EvalError::Audio`] for a rate that is out of range.
    pub fn at_rate(&self, sample_rate: u32) -> Result<Self, EvalError> {
        let allow = Allow { resample: true, ..Allow::default() };
        let mut conform = Conform::new((self.sample_rate, 1), (sample_rate, 1), allow)?;
        let mut samples = Vec::new();
        conform.push(&self.samples, &mut samples);
        conform.finish(&mut samples);
        Ok(Self { samples, sample_rate })
    }

    fn doubles(&self) -> Vec<f64> {
        self.samples.iter().map(|v| f64::from(*v)).collect()
    }
}

/// What of ViSQOL is computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum UseVisqol {
    /// Nothing: it takes longer than all the rest.
    No,
    /// Its similarity.
    #[default]
    Similarity,
    /// Its similarity and the opinion score that the lattice makes of it.
    Opinion(Arc<Lattice>),
}

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The longest delay, either way, that is looked for, in milliseconds.
    pub max_delay_ms: f64,
    /// What of ViSQOL is computed.
    pub visqol: UseVisqol,
    /// Another rate, in hertz, at which [`Spectral`] is measured too.
    pub rate: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_delay_ms: 300.0, visqol: UseVisqol::Similarity, rate: None }
    }
}

/// The scores of a decoded signal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Seconds of the reference.
    pub seconds: f64,
    /// ViSQOL's mean neurogram similarity (NSIM), at most 1; `None` if it was not asked for, or the signal has no patch of speech
    /// to compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nsim: Option<f64>,
    /// ViSQOL v3, speech mode: a mean opinion score from 1 to 5; `None` without a lattice, and where `nsim` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visqol: Option<f64>,
    /// Short-time objective intelligibility, at most 1.
    pub stoi: f64,
    /// Extended short-time objective intelligibility, at most 1.
    pub estoi: f64,
    /// Scale-invariant signal-to-distortion ratio in decibels.
    pub si_sdr: f64,
    /// Mel distance, from 0.
    pub mel: f64,
    /// Multi-resolution STFT distance, from 0.
    pub mr_stft: f64,
    /// Log-spectral distance in decibels, from 0.
    pub lsd: f64,
    /// The delay that was removed in milliseconds, positive where the decoded signal is late.
    pub delay_ms: f64,
    /// How the delay was found.
    pub aligned_by: How,
    /// The spectral metrics and SI-SDR at the rate that was asked for besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_rate: Option<Spectral>,
}

/// Why signals could not be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The rates differ.
    #[error("the reference has {reference} Hz and the decoded signal {degraded} Hz; resample one of them")]
    Rates {
        /// Of the reference.
        reference: u32,
        /// Of the decoded signal.
        degraded: u32,
    },
    /// A signal is too short for the metrics' windows.
    #[error("{samples} samples at {RATE} Hz are too few; at least {least} are needed")]
    TooShort {
        /// Samples at [`RATE`].
        samples: usize,
        /// Needed.
        least: usize,
    },
    /// A signal is longer than what is held in memory.
    #[error("{seconds:.0} s are too long; at most {MOST_SECONDS} s are scored, so cut the signal")]
    TooLong {
        /// Seconds.
        seconds: f64,
    },
    /// A sample is NaN or infinite.
    #[error("sample {index} is {value}; every sample must be a finite number")]
    NotFinite {
        /// From 0.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The longest delay is no number of milliseconds that can be looked for.
    #[error("a delay of up to {0} ms cannot be looked for; give 0 to 10000 ms")]
    Delay(f64),
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file is no lattice of ViSQOL.
    #[error("{} cannot be used as ViSQOL's lattice: {error}; make it anew with examples/visqol_lattice.py", path.display())]
    Lattice {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: LatticeError,
    },
    /// Resampling failed.
    #[error(transparent)]
    Audio(#[from] AudioError),
}

/// Fewest samples at [`RATE`]: a tenth of a second.
const LEAST: usize = RATE as usize / 10;

/// Scores a decoded signal. Lengths may differ: after the delay is removed, what is missing is silence and what is beyond the
/// reference is cut off.
///
/// # Errors
/// [`EvalError`]: rates that differ, too short or too long, not finite.
pub fn score(reference: &Signal, degraded: &Signal, options: &Options) -> Result<Scores, EvalError> {
    if reference.sample_rate != degraded.sample_rate {
        return Err(EvalError::Rates { reference: reference.sample_rate, degraded: degraded.sample_rate });
    }
    if !(0.0..=10_000.0).contains(&options.max_delay_ms) {
        return Err(EvalError::Delay(options.max_delay_ms));
    }
    for signal in [reference, degraded] {
        if signal.seconds() > f64::from(MOST_SECONDS) {
            return Err(EvalError::TooLong { seconds: signal.seconds() });
        }
        if let Some((index, value)) = signal.samples.iter().enumerate().find(|(_, v)| !v.is_finite()) {
            return Err(EvalError::NotFinite { index, value: *value });
        }
    }
    let pair = |rate: u32| Ok::<_, EvalError>((reference.at_rate(rate)?.doubles(), degraded.at_rate(rate)?.doubles()));
    let (original, decoded) = pair(RATE)?;
    for samples in [original.len(), decoded.len()] {
        if samples < LEAST {
            return Err(EvalError::TooShort { samples, least: LEAST });
        }
    }
    let alignment = align(&original, &decoded, RATE, options.max_delay_ms);
    let decoded = align::shifted(&decoded, alignment.lag, original.len());
    let at_rate = match options.rate.filter(|rate| *rate != RATE) {
        None => None,
        Some(rate) => {
            let (original, decoded) = pair(rate)?;
            let lag = (alignment.lag as f64 * f64::from(rate) / f64::from(RATE)).round_ties_even() as isize;
            Some(spectral(&original, &align::shifted(&decoded, lag, original.len()), rate))
        }
    };
    let spectra = spectral(&original, &decoded, RATE);
    let heard = match &options.visqol {
        UseVisqol::No => None,
        UseVisqol::Similarity => visqol(&original, &decoded, None),
        UseVisqol::Opinion(lattice) => visqol(&original, &decoded, Some(lattice)),
    };
    Ok(Scores {
        seconds: original.len() as f64 / f64::from(RATE),
        nsim: heard.as_ref().map(|v| v.similarity),
        visqol: heard.and_then(|v| v.mos),
        stoi: stoi(&original, &decoded),
        estoi: extended_stoi(&original, &decoded),
        si_sdr: spectra.si_sdr,
        mel: spectra.mel,
        mr_stft: spectra.mr_stft,
        lsd: spectra.lsd,
        delay_ms: alignment.lag as f64 * 1e3 / f64::from(RATE),
        aligned_by: alignment.how,
        at_rate,
    })
}
