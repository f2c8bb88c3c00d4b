//! The opinion score of ViSQOL v3: a calibrated lattice ensemble (Gupta et al., "Monotonic Calibrated Interpolated Look-Up Tables",
//! JMLR 17, 2016) whose values ViSQOL's authors fitted to listening tests.

use std::{
    fmt,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::BANDS;
use crate::eval::EvalError;

const MAGIC: [u8; 8] = *b"VISQOLv3";
const FEATURES: usize = 4 * BANDS + 1;
const LATTICES: usize = 60;
const AXES: usize = 12;
const CORNERS: usize = 1 << AXES;
/// Pieces of a feature's curve, and of that of the result.
const PIECES: usize = 19;
const LAST_PIECES: usize = 9;
/// The longest file: every feature with as many results as an axis can name.
const MOST_BYTES: usize = 4 << 20;
/// The quantile that is asked for: the median listener.
const TAU: f64 = 0.5;

/// Why a file is no lattice.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LatticeError {
    /// It begins with other bytes.
    #[error("it does not begin as a lattice does")]
    Magic,
    /// It ends too early.
    #[error("it ends after {bytes} bytes, and more are needed")]
    Short {
        /// Bytes that there are.
        bytes: usize,
    },
    /// It is longer than what it says of itself.
    #[error("{bytes} bytes are too many")]
    Long {
        /// Bytes that there are, or as many as were read.
        bytes: usize,
    },
    /// It is not what was written.
    #[error("its checksum is {held:08x}, and its bytes have {computed:08x}")]
    Checksum {
        /// In the file.
        held: u32,
        /// Of the bytes before it.
        computed: u32,
    },
    /// A number is NaN or infinite.
    #[error("the number at byte {at} is {value}")]
    NotFinite {
        /// Offset in the file.
        at: usize,
        /// The value.
        value: f32,
    },
    /// A curve has no results, or more than can be named.
    #[error("feature {feature} has {results} results; 1 to 256 can be")]
    Results {
        /// From 0.
        feature: usize,
        /// Of its curve.
        results: u32,
    },
    /// An axis has what is not there.
    #[error("an axis of lattice {lattice} is result {result} of feature {feature}, which is not there")]
    Axis {
        /// From 0.
        lattice: usize,
        /// The feature.
        feature: u8,
        /// The result of its curve.
        result: u8,
    },
}

/// A piecewise linear function with one or several results.
#[derive(Clone, PartialEq)]
struct Curve {
    points: Vec<f32>,
    scales: Vec<f32>,
    /// Rows of a constant and the rise over each piece.
    rises: Vec<Vec<f32>>,
}

/// What makes ViSQOL's opinion score of similarities. It is read from a file that `examples/visqol_lattice.py` makes of ViSQOL's
/// own; the script has the layout.
#[derive(Clone, PartialEq)]
pub struct Lattice {
    /// Of each feature.
    curves: Vec<Curve>,
    /// Feature and result of its curve for each axis; both are there.
    axes: Vec<[(u8, u8); AXES]>,
    low: f32,
    step: f32,
    /// `[LATTICES][CORNERS]`.
    values: Vec<u16>,
    weights: Vec<f32>,
    output: Curve,
}

impl fmt::Debug for Lattice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lattice").field("lattices", &self.axes.len()).finish_non_exhaustive()
    }
}

/// What is left of a file, and where it begins.
struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
    whole: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], LatticeError> {
        let (taken, left) = self.bytes.split_at_checked(n).ok_or(LatticeError::Short { bytes: self.whole })?;
        self.bytes = left;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LatticeError> {
        let bytes = self.bytes.first_chunk().copied();
        self.take(N)?;
        bytes.ok_or(LatticeError::Short { bytes: self.whole })
    }

    fn float(&mut self) -> Result<f32, LatticeError> {
        let at = self.at;
        let value = f32::from_le_bytes(self.array()?);
        if value.is_finite() { Ok(value) } else { Err(LatticeError::NotFinite { at, value }) }
    }

    fn floats(&mut self, n: usize) -> Result<Vec<f32>, LatticeError> {
        (0..n).map(|_| self.float()).collect()
    }
}

impl Lattice {
    /// Reads a file.
    ///
    /// # Errors
    /// [`EvalError::Read`] if it cannot be read, [`EvalError::Lattice`] if it is no lattice or damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, EvalError> {
        let path: PathBuf = path.as_ref().to_owned();
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => Self::from_bytes(&bytes).map_err(|error| EvalError::Lattice { path, error }),
            Err(error) => Err(EvalError::Read { path, error }),
        }
    }

    /// Reads what a file has.
    ///
    /// # Errors
    /// [`LatticeError`] if it is no lattice or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LatticeError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(LatticeError::Magic);
        }
        if bytes.len() > MOST_BYTES {
            return Err(LatticeError::Long { bytes: bytes.len() });
        }
        let whole = bytes.len();
        let (covered, checksum) = bytes.split_last_chunk::<4>().ok_or(LatticeError::Short { bytes: whole })?;
        let mut rest = Rest { bytes: covered, at: 0, whole };
        rest.take(MAGIC.len())?;
        let held = Self::read(&mut rest)?;
        if !rest.bytes.is_empty() {
            return Err(LatticeError::Long { bytes: whole });
        }
        let (of_file, computed) = (u32::from_le_bytes(*checksum), crc32fast::hash(covered));
        if of_file == computed { Ok(held) } else { Err(LatticeError::Checksum { held: of_file, computed }) }
    }

    fn read(rest: &mut Rest<'_>) -> Result<Self, LatticeError> {
        let mut curves = Vec::with_capacity(FEATURES);
        for feature in 0..FEATURES {
            let (points, scales) = (rest.floats(PIECES)?, rest.floats(PIECES)?);
            let results = u32::from_le_bytes(rest.array()?);
            if !(1..=256).contains(&results) {
                return Err(LatticeError::Results { feature, results });
            }
            let rises = (0..results).map(|_| rest.floats(PIECES + 1)).collect::<Result<_, _>>()?;
            curves.push(Curve { points, scales, rises });
        }
        let mut axes = Vec::with_capacity(LATTICES);
        for lattice in 0..LATTICES {
            let mut all = [(0, 0); AXES];
            for axis in &mut all {
                let [feature, result] = rest.array()?;
                if curves.get(usize::from(feature)).is_none_or(|curve| usize::from(result) >= curve.rises.len()) {
                    return Err(LatticeError::Axis { lattice, feature, result });
                }
                *axis = (feature, result);
            }
            axes.push(all);
        }
        let (low, step) = (rest.float()?, rest.float()?);
        let values = rest.take(2 * LATTICES * CORNERS)?;
        let values = values.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
        let weights = rest.floats(LATTICES)?;
        let (points, scales) = (rest.floats(LAST_PIECES)?, rest.floats(LAST_PIECES)?);
        let output = Curve { points, scales, rises: vec![rest.floats(LAST_PIECES + 1)?] };
        Ok(Self { curves, axes, low, step, values, weights, output })
    }

    /// The mean opinion score of similarity by band: mean, lowest tenth, standard deviation, and the level of the decoded
    /// signal.
    pub(super) fn opinion(&self, features: [&[f64; BANDS]; 4]) -> f64 {
        let features = features.into_iter().flatten().chain(&[TAU]);
        let results: Vec<Vec<f64>> = self.curves.iter().zip(features).map(|(curve, x)| curve.at(*x)).collect();
        let mut sum = 0.0;
        for ((axes, values), weight) in self.axes.iter().zip(self.values.chunks_exact(CORNERS)).zip(&self.weights) {
            let mut corners: Vec<f64> =
                values.iter().map(|v| f64::from(self.low) + f64::from(self.step) * f64::from(*v)).collect();
            for &(feature, result) in axes {
                let w = results[usize::from(feature)][usize::from(result)].clamp(0.0, 1.0);
                let (near, far) = corners.split_at(corners.len() / 2);
                corners = near.iter().zip(far).map(|(a, b)| a + w * (b - a)).collect();
            }
            sum += f64::from(*weight) * corners[0];
        }
        self.output.at(sum)[0]
    }
}

impl Curve {
    fn at(&self, x: f64) -> Vec<f64> {
        let pieces: Vec<f64> = self
            .points
            .iter()
            .zip(&self.scales)
            .map(|(point, scale)| ((x - f64::from(*point)) * f64::from(*scale)).clamp(0.0, 1.0))
            .collect();
        let of = |row: &Vec<f32>| {
            f64::from(row[0]) + row[1..].iter().zip(&pieces).map(|(rise, piece)| f64::from(*rise) * piece).sum::<f64>()
        };
        self.rises.iter().map(of).collect()
    }
}
