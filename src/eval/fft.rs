//! Fourier transforms of real signals.

use std::sync::Arc;

use realfft::{
    ComplexToReal, RealFftPlanner, RealToComplex,
    num_complex::{Complex64, ComplexFloat as _},
};

/// Transforms of one size.
pub struct Fft {
    forward: Arc<dyn RealToComplex<f64>>,
    inverse: Arc<dyn ComplexToReal<f64>>,
    size: usize,
}

impl Fft {
    /// Of `size` samples, at least 1.
    pub fn new(size: usize) -> Self {
        let mut planner = RealFftPlanner::new();
        Self { forward: planner.plan_fft_forward(size), inverse: planner.plan_fft_inverse(size), size }
    }

    /// `size / 2 + 1` bins of `samples`, which are filled up with zeros.
    pub fn forward(&self, samples: &[f64]) -> Vec<Complex64> {
        let mut input = vec![0.0; self.size];
        let n = samples.len().min(self.size);
        input[..n].copy_from_slice(&samples[..n]);
        let mut bins = self.forward.make_output_vec();
        self.forward.process(&mut input, &mut bins).expect("sizes are the plan's own");
        bins
    }

    /// Back, divided by `size`.
    pub fn inverse(&self, mut bins: Vec<Complex64>) -> Vec<f64> {
        // Those of a real signal are real; rounding leaves something there.
        bins[0].im = 0.0;
        if self.size.is_multiple_of(2) {
            bins[self.size / 2].im = 0.0;
        }
        let mut samples = vec![0.0; self.size];
        self.inverse.process(&mut bins, &mut samples).expect("sizes are the plan's own");
        samples.iter_mut().for_each(|v| *v /= self.size as f64);
        samples
    }
}

/// `sum of a[n] b[n + lag]` for every lag, those below 0 from the end; of a power of two that leaves room for all of them.
pub fn correlate(a: &[f64], b: &[f64]) -> Vec<f64> {
    let fft = Fft::new((a.len() + b.len()).next_power_of_two());
    let (a, b) = (fft.forward(a), fft.forward(b));
    fft.inverse(a.iter().zip(&b).map(|(a, b)| a.conj() * b).collect())
}

/// The magnitude of the analytic signal.
pub fn envelope(samples: &[f64]) -> Vec<f64> {
    let n = samples.len();
    if n == 0 {
        return Vec::new();
    }
    let fft = Fft::new(n);
    // The Hilbert transform turns each bin by a quarter, and leaves nothing of the first and of the one in the middle.
    let mut bins = fft.forward(samples);
    for (i, bin) in bins.iter_mut().enumerate() {
        *bin = if i == 0 || 2 * i == n { Complex64::ZERO } else { Complex64::new(bin.im, -bin.re) };
    }
    let turned = fft.inverse(bins);
    samples.iter().zip(&turned).map(|(re, im)| Complex64::new(*re, *im).abs()).collect()
}
