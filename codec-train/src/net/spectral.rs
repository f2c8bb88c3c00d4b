//! Samples to spectra and back.

use std::f64::consts::PI;

use burn::tensor::{Tensor, TensorData};
use codec_core::spec::{Istft, Stft};

use crate::{
    cpu::spectrum::{Frames, synthesise},
    loss::{Ends, Spectrogram},
};

/// An inverse short-time Fourier transform as a matrix product and shifted sums, so that its gradient is one too.
#[derive(Clone, Debug)]
pub(super) struct InverseStft {
    n_fft: usize,
    hop: usize,
    /// `[blocks * hop, n_fft + 2]`: windowed samples of a frame from real, then imaginary parts; rows past `n_fft` are zero.
    basis: Vec<f32>,
    window: Vec<f64>,
    frames: Frames,
}

/// The greatest magnitude.
const MOST: f32 = 100.0;

impl InverseStft {
    pub fn new(l: &Istft) -> Self {
        let (n, hop) = (l.n_fft as usize, l.hop as usize);
        let bins = n / 2 + 1;
        let window: Vec<f64> = (0..n).map(|t| 0.5 - 0.5 * (2.0 * PI * t as f64 / n as f64).cos()).collect();
        let mut basis = vec![0.0; n.div_ceil(hop) * hop * 2 * bins];
        for (t, row) in basis.chunks_exact_mut(2 * bins).take(n).enumerate() {
            for k in 0..bins {
                let twice = if k == 0 || k == n / 2 { 1.0 } else { 2.0 };
                let angle = 2.0 * PI * ((k * t) % n) as f64 / n as f64;
                row[k] = (twice / n as f64 * angle.cos() * window[t]) as f32;
                row[bins + k] = (-twice / n as f64 * angle.sin() * window[t]) as f32;
            }
        }
        let frames = Frames::new(n, hop, Ends::Whole, &window);
        Self { n_fft: n, hop, basis, window, frames }
    }

    /// `[batch, n_fft + 2, frames]` to `[batch, 1, frames * hop]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, channels, frames] = x.dims();
        let (n, hop) = (self.n_fft, self.hop);
        if let Some(y) = synthesise(&self.frames, MOST, self.weight(frames), &x) {
            return y;
        }
        let blocks = n.div_ceil(hop);
        let magnitude = x.clone().slice_dim(1, 0..channels / 2).exp().clamp_max(MOST);
        let phase = x.clone().slice_dim(1, channels / 2..channels);
        let spectrum = Tensor::cat(vec![magnitude.clone() * phase.clone().cos(), magnitude * phase.sin()], 1);
        let basis = TensorData::new(self.basis.clone(), [1, blocks * hop, n + 2]);
        let windowed = Tensor::<3>::from_data(basis, &x.device()).matmul(spectrum);
        // Block `j` of frame `f` lies at block `f + j` of the output.
        let mut sum: Option<Tensor<3>> = None;
        for j in 0..blocks {
            let block = windowed.clone().slice_dim(1, j * hop..(j + 1) * hop);
            let zeros = |n: usize| Tensor::<3>::zeros([batch, hop, n], &x.device());
            let mut parts = vec![block];
            if j > 0 {
                parts.insert(0, zeros(j));
            }
            if j + 1 < blocks {
                parts.push(zeros(blocks - 1 - j));
            }
            let placed = Tensor::cat(parts, 2);
            sum = Some(match sum {
                Some(sum) => sum + placed,
                None => placed,
            });
        }
        let all = (frames + blocks - 1) * hop;
        let Some(sum) = sum else { return x };
        let signal = sum.swap_dims(1, 2).reshape([batch, 1, all]);
        let cut = (n - hop) / 2;
        let weight = Tensor::<1>::from_data(TensorData::new(self.weight(frames), [frames * hop]), &x.device());
        signal.slice_dim(2, cut..cut + frames * hop) * weight.reshape([1, 1, frames * hop])
    }

    /// One over the sum of the squared windows, where the output lies.
    fn weight(&self, frames: usize) -> Vec<f32> {
        let cut = (self.n_fft - self.hop) / 2;
        let mut sum = vec![0.0; (frames.max(1) - 1) * self.hop + self.n_fft];
        for f in 0..frames {
            sum[f * self.hop..].iter_mut().zip(&self.window).for_each(|(s, w)| *s += w * w);
        }
        sum[cut..].iter().take(frames * self.hop).map(|s| (1.0 / s) as f32).collect()
    }
}

/// A short-time Fourier transform that looks back, as levels and compressed values.
#[derive(Clone, Debug)]
pub(super) struct CausalStft {
    spec: Stft,
    transform: Spectrogram,
}

impl CausalStft {
    pub fn new(l: &Stft) -> Self {
        let n = l.n_fft as usize;
        Self { spec: *l, transform: Spectrogram::new(n, l.hop as usize, n, Ends::Whole, 1.0) }
    }

    pub fn is(&self, l: &Stft) -> bool {
        self.spec == *l
    }

    /// `[batch, 1, samples]` to `[batch, 3 bins, rows]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, _, samples] = x.dims();
        let (n, hop) = (self.spec.n_fft as usize, self.spec.hop as usize);
        let rows = samples.div_ceil(hop);
        if rows == 0 {
            return Tensor::zeros([batch, 3 * self.transform.bins(), 0], &x.device());
        }
        let zeros = |count: usize| Tensor::<3>::zeros([batch, 1, count], &x.device());
        let padded = [zeros(n - hop), x.clone(), zeros(rows * hop - samples)];
        let padded = Tensor::cat(padded.into_iter().filter(|part| part.dims()[2] > 0).collect(), 2);
        let spectrum = self.transform.image(padded);
        let parts = [0, 1].map(|part| spectrum.clone().slice_dim(1, part..part + 1).squeeze_dim::<3>(1));
        let [re, im] = parts.clone();
        let power = (re.square() + im.square()).add_scalar(self.spec.floor * self.spec.floor);
        let nepers = power.log().mul_scalar(0.5);
        let factor = nepers.clone().mul_scalar(self.spec.power - 1.0).exp();
        let [re, im] = parts.map(|part| part * factor.clone());
        Tensor::cat(vec![nepers.mul_scalar(std::f32::consts::LOG10_E), re, im], 2).swap_dims(1, 2)
    }
}
