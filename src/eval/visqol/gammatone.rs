//! The gammatone spectrogram (Slaney, "An Efficient Implementation of the Patterson-Holdsworth Auditory Filter Bank", Apple TR 35,
//! 1993).

use realfft::num_complex::Complex64;

use super::{BANDS, HOP, WINDOW};
use crate::eval::RATE;

/// Bands by time, low frequencies first.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub columns: usize,
    /// `[BANDS][columns]`.
    pub values: Vec<f64>,
}

impl Image {
    pub fn row(&self, band: usize) -> &[f64] {
        &self.values[band * self.columns..(band + 1) * self.columns]
    }
}

/// Four sections one after the other that have their poles in common.
struct Band {
    /// Of the newest sample and of the one before.
    numerators: [[f64; 2]; 4],
    poles: [f64; 2],
}

/// The bank for 16 kHz, 50 Hz to 8 kHz.
pub struct Filters {
    bands: Vec<Band>,
    window: Vec<f64>,
}

impl Filters {
    pub fn new() -> Self {
        let (ear_q, least) = (9.26449, 24.7);
        let (low, high, t) = (50.0_f64, f64::from(RATE) / 2.0, 1.0 / f64::from(RATE));
        let offset = ear_q * least;
        // Evenly spaced on the scale of equivalent rectangular bandwidths, and the lowest first.
        let centre = |i: usize| {
            let step = ((low + offset).ln() - (high + offset).ln()) / BANDS as f64;
            (step * (BANDS - i) as f64).exp() * (high + offset) - offset
        };
        let window =
            (0..WINDOW).map(|i| 0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / (WINDOW - 1) as f64).cos()).collect();
        Self { bands: (0..BANDS).map(|i| Band::new(centre(i), ear_q, least, t)).collect(), window }
    }

    /// The root mean square of each band in each window, which is filtered from rest; `None` for less than a window.
    pub fn spectrogram(&self, signal: &[f64]) -> Option<Image> {
        let columns = (signal.len() > WINDOW).then(|| 1 + (signal.len() - WINDOW) / HOP)?;
        let mut image = Image { columns, values: vec![0.0; BANDS * columns] };
        let mut held = vec![0.0; WINDOW];
        for column in 0..columns {
            let from = &signal[column * HOP..column * HOP + WINDOW];
            held.iter_mut().zip(from).zip(&self.window).for_each(|((h, v), w)| *h = v * w);
            for (i, band) in self.bands.iter().enumerate() {
                image.values[i * columns + column] = (band.energy(&held) / WINDOW as f64).sqrt();
            }
        }
        Some(image)
    }
}

impl Band {
    fn new(centre: f64, ear_q: f64, least: f64, t: f64) -> Self {
        let b = 1.019 * std::f64::consts::TAU * (centre / ear_q + least);
        let turn = std::f64::consts::TAU * centre * t;
        let decay = (-b * t).exp();
        let (sin, cos) = turn.sin_cos();
        let roots = [3.0 + 8f64.sqrt(), 3.0 - 8f64.sqrt()].map(f64::sqrt);
        let zeros = [roots[0], -roots[0], roots[1], -roots[1]];
        let two_turns = Complex64::from_polar(1.0, 2.0 * turn);
        let pole = Complex64::from_polar(decay, turn);
        // The response of each section at the centre, which the first is divided by.
        let response = zeros.iter().fold(Complex64::ONE, |product, root| {
            product * (-2.0 * two_turns * t + 2.0 * pole * t * (cos - root * sin))
        });
        let poles = -2.0 * decay * decay - 2.0 * two_turns + 2.0 * (Complex64::ONE + two_turns) * decay;
        let gain = (response / poles.powi(4)).norm();
        let mut numerators = zeros.map(|root| [t, -t * decay * (cos + root * sin)]);
        numerators[0] = numerators[0].map(|v| v / gain);
        Self { numerators, poles: [-2.0 * cos * decay, decay * decay] }
    }

    /// The energy of what comes out.
    fn energy(&self, input: &[f64]) -> f64 {
        let mut state = [[0.0; 2]; 4];
        let mut energy = 0.0;
        for &sample in input {
            let mut x = sample;
            for (s, n) in state.iter_mut().zip(&self.numerators) {
                let y = n[0] * x + s[0];
                s[0] = n[1] * x - self.poles[0] * y + s[1];
                s[1] = -self.poles[1] * y;
                x = y;
            }
            energy += x * x;
        }
        energy
    }
}

/// Decibels with a floor at -45 and, in each column, 45 below the louder of the two; the least of both images becomes 0.
pub fn to_decibels(a: &mut Image, b: &mut Image) {
    const FLOOR: f64 = 45.0;
    for image in [&mut *a, &mut *b] {
        for v in &mut image.values {
            *v = (10.0 * (if *v == 0.0 { f64::EPSILON } else { *v }).log10()).max(-FLOOR);
        }
    }
    for column in 0..a.columns.min(b.columns) {
        let loudest =
            (0..BANDS).map(|band| a.row(band)[column].max(b.row(band)[column])).fold(f64::NEG_INFINITY, f64::max);
        for image in [&mut *a, &mut *b] {
            let columns = image.columns;
            for band in 0..BANDS {
                let v = &mut image.values[band * columns + column];
                *v = v.max(loudest - FLOOR);
            }
        }
    }
    let least = a.values.iter().chain(&b.values).copied().fold(f64::INFINITY, f64::min);
    for v in a.values.iter_mut().chain(&mut b.values) {
        *v -= least;
    }
}
