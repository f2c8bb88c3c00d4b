//! Fourier transforms of frames and their adjoints; spectral losses with their gradients.

use std::{f64::consts::PI, fmt, sync::Arc};

use burn::tensor::Tensor;
use rayon::prelude::*;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex, num_complex::Complex};

use super::{Elements, Operand, ordered, plain, record, tensor};
use crate::{group::Group, loss::Ends};

/// Transforms of frames of a signal.
#[derive(Clone)]
pub(crate) struct Frames {
    pub n_fft: usize,
    pub hop: usize,
    pub ends: Ends,
    window: Vec<f32>,
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames").field("n_fft", &self.n_fft).field("hop", &self.hop).finish_non_exhaustive()
    }
}

/// The periodic Hann window of `window` samples in the middle of `n_fft`, times `scale`.
pub(crate) fn hann(n_fft: usize, window: usize, scale: f64) -> Vec<f64> {
    let before = (n_fft - window.min(n_fft)) / 2;
    let value = |t: usize| {
        let at = t.checked_sub(before).filter(|at| *at < window)?;
        Some(scale * (0.5 - 0.5 * (2.0 * PI * at as f64 / window as f64).cos()))
    };
    (0..n_fft).map(|t| value(t).unwrap_or(0.0)).collect()
}

impl Frames {
    /// Frames of `n_fft` samples every `hop`, times a window.
    pub fn new(n_fft: usize, hop: usize, ends: Ends, window: &[f64]) -> Self {
        let mut planner = RealFftPlanner::new();
        Self {
            n_fft,
            hop,
            ends,
            window: window.iter().map(|w| *w as f32).collect(),
            forward: planner.plan_fft_forward(n_fft),
            inverse: planner.plan_fft_inverse(n_fft),
        }
    }

    pub fn bins(&self) -> usize {
        self.n_fft / 2 + 1
    }

    /// Mirrored samples before and after a signal.
    pub fn mirrored(&self, samples: usize) -> [usize; 2] {
        let side = match self.ends {
            Ends::Whole => return [0; 2],
            Ends::Centred => return [self.n_fft / 2; 2],
            Ends::Stride => (self.n_fft - self.hop) / 2,
        };
        [side, side + samples.next_multiple_of(self.hop) - samples]
    }

    /// Frames of a signal.
    pub fn count(&self, samples: usize) -> usize {
        let [left, right] = self.mirrored(samples);
        ((samples + left + right).max(self.n_fft) - self.n_fft) / self.hop + 1
    }

    /// Sample of the signal that is at a place of the mirrored one.
    fn source(&self, place: usize, left: usize, samples: usize) -> Option<usize> {
        let at = place.abs_diff(left);
        if at < samples { Some(at) } else { (2 * (samples - 1)).checked_sub(at) }
    }

    /// Spectra of all frames.
    pub fn analyse(&self, x: &[f32]) -> Vec<Complex<f32>> {
        let (n, bins, [left, _]) = (self.n_fft, self.bins(), self.mirrored(x.len()));
        let mut spectra = vec![Complex::default(); self.count(x.len()) * bins];
        let (mut frame, mut scratch) = (self.forward.make_input_vec(), self.forward.make_scratch_vec());
        for (i, spectrum) in spectra.chunks_exact_mut(bins).enumerate() {
            let first = i * self.hop;
            match first.checked_sub(left).and_then(|first| x.get(first..first + n)) {
                Some(x) => frame.iter_mut().zip(x).zip(&self.window).for_each(|((f, x), w)| *f = x * w),
                None => frame.iter_mut().zip(first..).zip(&self.window).for_each(|((f, place), w)| {
                    *f = w * self.source(place, left, x.len()).map_or(0.0, |at| x[at]);
                }),
            }
            let done = self.forward.process_with_scratch(&mut frame, spectrum, &mut scratch);
            debug_assert!(done.is_ok());
        }
        spectra
    }

    /// The gradient of a signal from gradients of real and imaginary parts of its spectra, which are used up.
    pub fn adjoint(&self, spectra: &mut [Complex<f32>], samples: usize) -> Vec<f32> {
        let (bins, [left, _]) = (self.bins(), self.mirrored(samples));
        let mut x = vec![0.0; samples];
        let (mut frame, mut scratch) = (self.inverse.make_output_vec(), self.inverse.make_scratch_vec());
        for (i, spectrum) in spectra.chunks_exact_mut(bins).enumerate() {
            self.real(spectrum, 0.5, &mut frame, &mut scratch);
            let first = i * self.hop;
            match first.checked_sub(left).and_then(|first| x.get_mut(first..first + self.n_fft)) {
                Some(x) => x.iter_mut().zip(&frame).zip(&self.window).for_each(|((x, f), w)| *x += f * w),
                None => {
                    for ((f, place), w) in frame.iter().zip(first..).zip(&self.window) {
                        if let Some(at) = self.source(place, left, samples) {
                            x[at] += f * w;
                        }
                    }
                }
            }
        }
        x
    }

    /// `Σ_k re cos - im sin`, twice for inner bins, with `inner` times their values.
    fn real(&self, spectrum: &mut [Complex<f32>], inner: f32, frame: &mut [f32], scratch: &mut [Complex<f32>]) {
        let n = self.n_fft;
        for (k, z) in spectrum.iter_mut().enumerate() {
            if k == 0 || 2 * k == n { z.im = 0.0 } else { *z *= inner }
        }
        let done = self.inverse.process_with_scratch(spectrum, frame, scratch);
        debug_assert!(done.is_ok());
    }
}

/// Spectra of `[batch, channels, samples]` as images `[batch, 2 * channels, frames, bins]`: the channels' real parts, then
/// their imaginary parts.
pub(crate) fn image(frames: &Frames, x: &Tensor<3>) -> Option<Tensor<4>> {
    const BACK: [usize; 4] = [0, 3, 1, 2];
    const THERE: [usize; 4] = [0, 2, 3, 1];
    let [batch, channels, samples] = x.dims();
    let operand = Operand::of(x)?;
    let (count, bins) = (frames.count(samples), frames.bins());
    let mut image = vec![0.0; batch * count * bins * 2 * channels];
    image.par_chunks_mut(count * bins * 2 * channels).zip(operand.plain().par_chunks(channels * samples)).for_each(
        |(image, x)| {
            for (c, x) in x.chunks_exact(samples).enumerate() {
                for (pixel, z) in image.chunks_exact_mut(2 * channels).zip(frames.analyse(x)) {
                    (pixel[c], pixel[channels + c]) = (z.re, z.im);
                }
            }
        },
    );
    let frames = frames.clone();
    Some(record([&operand], tensor(image, &[batch, count, bins, 2 * channels], &BACK), move |gradient, _| {
        let g = ordered(gradient, &THERE);
        let mut x = vec![0.0; batch * channels * samples];
        x.par_chunks_mut(channels * samples).zip(g.par_chunks(count * bins * 2 * channels)).for_each(|(x, g)| {
            for (c, x) in x.chunks_exact_mut(samples).enumerate() {
                let mut spectra: Vec<_> =
                    g.chunks_exact(2 * channels).map(|pixel| Complex::new(pixel[c], pixel[channels + c])).collect();
                x.copy_from_slice(&frames.adjoint(&mut spectra, samples));
            }
        });
        [Some(plain(x, &[batch, channels, samples]))]
    }))
}

/// Powers in bands, `[batch, channels, samples]` to `[batch * channels, frames, bands]`: squares of magnitudes under filters.
pub(crate) fn bands(frames: &Frames, filters: &Filters, x: &Tensor<3>) -> Option<Tensor<3>> {
    let [batch, channels, samples] = x.dims();
    let operand = Operand::of(x)?;
    let (count, bins, bands) = (frames.count(samples), frames.bins(), filters.0.len());
    let mut powers = vec![0.0; batch * channels * count * bands];
    let items = powers.par_chunks_mut(count * bands);
    let one = |(powers, x): (&mut [f32], &[f32])| {
        let spectra = frames.analyse(x);
        let mut squares = vec![0.0; bins];
        for (powers, spectrum) in powers.chunks_exact_mut(bands).zip(spectra.chunks_exact(bins)) {
            squares.iter_mut().zip(spectrum).for_each(|(s, z)| *s = z.norm_sqr());
            powers.iter_mut().zip(filters.apply(&squares)).for_each(|(to, power)| *to = power);
        }
        spectra
    };
    let spectra: Vec<Vec<Complex<f32>>> = items.zip(operand.plain().par_chunks(samples)).map(one).collect();
    let (frames, filters) = (frames.clone(), filters.clone());
    Some(record([&operand], plain(powers, &[batch * channels, count, bands]), move |gradient, _| {
        let g = Elements(gradient.to_contiguous());
        let one = |(spectra, g): (&Vec<Complex<f32>>, &[f32])| {
            let mut spectra = spectra.clone();
            let mut slopes = vec![0.0; bins];
            for (spectrum, g) in spectra.chunks_exact_mut(bins).zip(g.chunks_exact(bands)) {
                slopes.fill(0.0);
                filters.spread(g, &mut slopes);
                spectrum.iter_mut().zip(&slopes).for_each(|(z, s)| *z *= 2.0 * s);
            }
            frames.adjoint(&mut spectra, samples)
        };
        let x: Vec<f32> = spectra.par_iter().zip(g.par_chunks(count * bands)).flat_map_iter(one).collect();
        [Some(plain(x, &[batch, channels, samples]))]
    }))
}

/// The inverse transform of the engine's `Istft` layer: `[batch, n_fft + 2, frames]`, logarithms of magnitudes and phases, to
/// `[batch, 1, frames * hop]`. `weight` is what every sample is multiplied by at the end.
pub(crate) fn synthesise(frames: &Frames, most: f32, weight: Vec<f32>, x: &Tensor<3>) -> Option<Tensor<3>> {
    let [batch, channels, count] = x.dims();
    let operand = Operand::of(x)?;
    let (n, hop, bins) = (frames.n_fft, frames.hop, frames.bins());
    let input = operand.ordered(&[0, 2, 1]);
    let cut = (n - hop) / 2;
    let samples = count * hop;
    // Real and imaginary parts, which the gradient needs again.
    let polar = |row: &[f32]| -> Vec<Complex<f32>> {
        let (logs, phases) = row.split_at(bins);
        logs.iter().zip(phases).map(|(l, p)| Complex::from_polar(l.exp().min(most), *p)).collect()
    };
    let spectra: Vec<Complex<f32>> = input.par_chunks(channels).flat_map_iter(polar).collect();
    let mut y = vec![0.0; batch * samples];
    y.par_chunks_mut(samples.max(1)).zip(spectra.par_chunks(count * bins)).for_each(|(y, spectra)| {
        let mut long = vec![0.0; (count - 1) * hop + n];
        let (mut frame, mut scratch) = (frames.inverse.make_output_vec(), frames.inverse.make_scratch_vec());
        for (i, spectrum) in spectra.chunks_exact(bins).enumerate() {
            frames.real(&mut spectrum.to_vec(), 1.0, &mut frame, &mut scratch);
            let long = &mut long[i * hop..][..n];
            long.iter_mut().zip(&frame).zip(&frames.window).for_each(|((y, f), w)| *y += f * w / n as f32);
        }
        y.iter_mut().zip(&long[cut..]).zip(&weight).for_each(|((y, l), w)| *y = l * w);
    });
    let frames = frames.clone();
    Some(record([&operand], plain(y, &[batch, 1, samples]), move |gradient, _| {
        let g = Elements(gradient.to_contiguous());
        let mut x = vec![0.0; batch * count * channels];
        let items = x.par_chunks_mut(count * channels).zip(g.par_chunks(samples)).zip(spectra.par_chunks(count * bins));
        items.for_each(|((x, g), spectra)| {
            let mut long = vec![0.0; (count - 1) * hop + n];
            long[cut..].iter_mut().zip(g.iter().zip(&weight)).for_each(|(l, (g, w))| *l = g * w);
            let (mut frame, mut scratch) = (frames.forward.make_input_vec(), frames.forward.make_scratch_vec());
            let mut spectrum = frames.forward.make_output_vec();
            for (i, (x, z)) in x.chunks_exact_mut(channels).zip(spectra.chunks_exact(bins)).enumerate() {
                frame
                    .iter_mut()
                    .zip(&long[i * hop..])
                    .zip(&frames.window)
                    .for_each(|((f, l), w)| *f = l * w / n as f32);
                let done = frames.forward.process_with_scratch(&mut frame, &mut spectrum, &mut scratch);
                debug_assert!(done.is_ok());
                let (logs, phases) = x.split_at_mut(bins);
                for (k, (g, z)) in spectrum.iter().zip(z).enumerate() {
                    // The imaginary parts at both ends of the spectrum count for nothing.
                    let edge = k == 0 || 2 * k == n;
                    let (re, im) = if edge { (g.re, 0.0) } else { (2.0 * g.re, 2.0 * g.im) };
                    // A magnitude at its limit stays there.
                    logs[k] = if z.norm_sqr() < (most * most) * (1.0 - 1e-6) { re * z.re + im * z.im } else { 0.0 };
                    phases[k] = im * z.re - re * z.im;
                }
            }
        });
        [Some(tensor(x, &[batch, count, channels], &[0, 2, 1]))]
    }))
}

/// What a loss between two signals needs of one resolution.
pub(crate) struct Compared {
    /// The loss.
    pub value: f64,
    /// Its gradient with respect to the first signals.
    pub gradient: Vec<f32>,
}

/// The result of a loss whose gradient is known.
pub(crate) fn known(fake: &Operand, shape: &[usize], compared: Compared) -> Tensor<1> {
    let shape = shape.to_vec();
    record([fake], plain(vec![compared.value as f32], &[1]), move |gradient, _| {
        let g = Elements(gradient.to_contiguous()).first().copied().unwrap_or_default();
        [Some(plain(compared.gradient.iter().map(|x| x * g).collect(), &shape))]
    })
}

fn magnitudes(spectra: &[Complex<f32>], floor: f32) -> Vec<f32> {
    spectra.iter().map(|z| z.norm_sqr().max(floor).sqrt()).collect()
}

/// Gradients of spectra from those of magnitudes, `spectra` in place; below the floor there is none.
fn of_magnitudes(spectra: &mut [Complex<f32>], magnitudes: &[f32], gradient: impl Iterator<Item = f32>, floor: f32) {
    for ((z, m), g) in spectra.iter_mut().zip(magnitudes).zip(gradient) {
        *z *= if z.norm_sqr() > floor { g / m } else { 0.0 };
    }
}

/// Filters over the bins of a spectrum, without what of them is zero.
#[derive(Clone, Debug)]
pub(crate) struct Filters(Vec<(usize, Vec<f32>)>);

impl Filters {
    /// Of a matrix `[filters, bins]`.
    pub fn new(matrix: &[f32], bins: usize) -> Self {
        let one = |row: &[f32]| {
            let first = row.iter().position(|w| *w != 0.0).unwrap_or(0);
            let end = row.iter().rposition(|w| *w != 0.0).map_or(first, |last| last + 1);
            (first, row[first..end].to_vec())
        };
        Self(matrix.chunks_exact(bins).map(one).collect())
    }

    fn apply(&self, magnitudes: &[f32]) -> impl Iterator<Item = f32> {
        let dot = |(first, w): &(usize, Vec<f32>)| magnitudes[*first..].iter().zip(w).map(|(m, w)| m * w).sum();
        self.0.iter().map(dot)
    }

    /// The adjoint of [`Filters::apply`], added to `bins`.
    fn spread(&self, values: &[f32], bins: &mut [f32]) {
        for (value, (first, w)) in values.iter().zip(&self.0) {
            bins[*first..].iter_mut().zip(w).for_each(|(b, w)| *b += value * w);
        }
    }
}

/// Weights of a mel loss's terms, and its floors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MelTerms {
    pub log: f32,
    pub linear: f32,
    pub square: f32,
    pub floor: f32,
    pub power: f32,
}

/// One resolution of the mel loss, the mean over signals `[signals, samples]`.
pub(crate) fn mel(
    frames: &Frames,
    filters: &Filters,
    terms: MelTerms,
    samples: usize,
    fake: &[f32],
    real: &[f32],
) -> Compared {
    let bins = frames.bins();
    let mels = filters.0.len();
    let values = (fake.len() / samples.max(1)) * frames.count(samples) * mels;
    let each = 1.0 / values.max(1) as f32;
    let one = |(fake, real): (&[f32], &[f32])| {
        let mut spectra = frames.analyse(fake);
        let of_fake = magnitudes(&spectra, terms.power);
        let of_real = magnitudes(&frames.analyse(real), terms.power);
        let mut value = 0.0;
        let mut slopes = vec![0.0; mels];
        let mut gradient = vec![0.0; of_fake.len()];
        let rows = of_fake.chunks_exact(bins).zip(of_real.chunks_exact(bins)).zip(gradient.chunks_exact_mut(bins));
        for ((a, b), gradient) in rows {
            for ((slope, a), b) in slopes.iter_mut().zip(filters.apply(a)).zip(filters.apply(b)) {
                let difference = a.max(terms.floor).log10() - b.max(terms.floor).log10();
                value += f64::from(
                    terms.log * difference.abs()
                        + terms.linear * (a - b).abs()
                        + terms.square * difference * difference,
                );
                let log = terms.log * sign(difference) + 2.0 * terms.square * difference;
                let log = if a > terms.floor { log * std::f32::consts::LOG10_E / a } else { 0.0 };
                *slope = (log + terms.linear * sign(a - b)) * each;
            }
            filters.spread(&slopes, gradient);
        }
        of_magnitudes(&mut spectra, &of_fake, gradient.into_iter(), terms.power);
        (value, frames.adjoint(&mut spectra, samples))
    };
    let parts: Vec<(f64, Vec<f32>)> = fake.par_chunks(samples).zip(real.par_chunks(samples)).map(one).collect();
    let value = parts.iter().map(|(value, _)| value).sum::<f64>() * f64::from(each);
    Compared { value, gradient: parts.into_iter().flat_map(|(_, gradient)| gradient).collect() }
}

fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// Share of the complex difference in [`compressed`].
pub(crate) const COMPLEX_SHARE: f32 = 0.3;

/// One resolution of the compressed loss: mean squares of differences of fourth roots of magnitudes, without and with phases.
pub(crate) fn compressed(frames: &Frames, floor: f32, samples: usize, fake: &[f32], real: &[f32]) -> Compared {
    let values = (fake.len() / samples.max(1)) * frames.count(samples) * frames.bins();
    let each = 1.0 / values.max(1) as f32;
    let one = |(fake, real): (&[f32], &[f32])| {
        let mut spectra = frames.analyse(fake);
        let mut value = 0.0;
        for (z, b) in spectra.iter_mut().zip(frames.analyse(real)) {
            // Squares of magnitudes, the roots, and what a value is multiplied by.
            let (square_a, square_b) = (z.norm_sqr() + floor, b.norm_sqr() + floor);
            let (root_a, root_b) = (square_a.sqrt().sqrt().sqrt(), square_b.sqrt().sqrt().sqrt());
            let (by_a, by_b) = (root_a / square_a.sqrt(), root_b / square_b.sqrt());
            let root = root_a - root_b;
            let apart = *z * by_a - b * by_b;
            value += f64::from((1.0 - COMPLEX_SHARE) * root * root + COMPLEX_SHARE * apart.norm_sqr());
            let slope = apart * (2.0 * COMPLEX_SHARE * each);
            let radial =
                0.5 * (1.0 - COMPLEX_SHARE) * each * root * root_a - 0.75 * by_a * (slope.re * z.re + slope.im * z.im);
            *z = slope * by_a + *z * (radial / square_a);
        }
        (value, frames.adjoint(&mut spectra, samples))
    };
    let parts: Vec<(f64, Vec<f32>)> = fake.par_chunks(samples).zip(real.par_chunks(samples)).map(one).collect();
    let value = parts.iter().map(|(value, _)| value).sum::<f64>() * f64::from(each);
    Compared { value, gradient: parts.into_iter().flat_map(|(_, gradient)| gradient).collect() }
}

/// One resolution of the STFT loss: spectral convergence plus the mean difference of logarithms. Of a group each process has its
/// part of the batch, and the mean over processes is the loss of all.
pub(crate) fn stft(
    group: &dyn Group,
    frames: &Frames,
    floor: f32,
    least: f32,
    samples: usize,
    fake: &[f32],
    real: &[f32],
) -> Compared {
    let pairs = fake.par_chunks(samples).zip(real.par_chunks(samples));
    let of = |(fake, real): (&[f32], &[f32])| {
        let spectra = frames.analyse(fake);
        let a = magnitudes(&spectra, floor);
        let b = magnitudes(&frames.analyse(real), floor);
        let square = |x: f32| f64::from(x) * f64::from(x);
        let apart = a.iter().zip(&b).map(|(a, b)| square(b - a)).sum::<f64>();
        let logs = a.iter().zip(&b).map(|(a, b)| f64::from((b / a).ln().abs())).sum::<f64>();
        (spectra, apart, b.iter().map(|b| square(*b)).sum::<f64>(), logs, a, b)
    };
    let mut all: Vec<_> = pairs.map(of).collect();
    let total = |f: &dyn Fn(usize) -> f64| (0..all.len()).map(f).sum::<f64>();
    let raised = |x: f64| x.max(f64::from(least)).sqrt();
    let own = total(&|i| all[i].1);
    let mut sums = [own, total(&|i| all[i].2)];
    group.sum_f64(&mut sums);
    let count = total(&|i| all[i].4.len() as f64).max(1.0);
    // A root of a sum: each process has its share of it, and its slope.
    let share = group.size() as f64 / (raised(sums[0]) * raised(sums[1]));
    let value = own * share + total(&|i| all[i].3) / count;
    let pull = if sums[0] > f64::from(least) { share } else { 0.0 };
    let gradient = all.par_iter_mut().flat_map_iter(|(spectra, _, _, _, a, b)| {
        let slope = |(a, b): (&f32, &f32)| (pull * f64::from(a - b)) as f32 + sign(a - b) / (a * count as f32);
        let slopes: Vec<f32> = a.iter().zip(&*b).map(slope).collect();
        of_magnitudes(spectra, a, slopes.into_iter(), floor);
        frames.adjoint(spectra, samples)
    });
    Compared { value, gradient: gradient.collect() }
}
