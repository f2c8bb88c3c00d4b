//! Layers between samples and spectra, and the noise layer.

use alloc::{format, vec, vec::Vec};

use super::{Builder, Cur, MAX_CHANNELS, Source, Strides, check, rate, spec_error, weight};
use crate::{
    BuildError,
    kernel::RealFft,
    layer::*,
    pipeline::{network::Kind, plan::Timing},
    spec,
    weights::Precision,
};

/// Values of mel filters.
const MAX_FILTERS: u32 = 1 << 22;

impl Builder<'_> {
    pub(super) fn istft(&mut self, l: &spec::Istft, cur: Cur) -> Result<Cur, BuildError> {
        let n = transform("an inverse STFT", l.n_fft)?;
        check("an inverse STFT", "hop", l.hop, 1, l.n_fft - 1)?;
        if !(l.n_fft - l.hop).is_multiple_of(2) {
            return Err(spec_error(
                "",
                format!("an inverse STFT cuts (n_fft - hop) / 2 rows: {} - {} is odd", l.n_fft, l.hop),
            ));
        }
        self.channels("an inverse STFT", l.n_fft + 2, cur)?;
        let (table, window) = self.fourier(n);
        let mut layer = IstftLayer { src: cur.buffer, dst: 0, tmp: 0, n_fft: n, hop: l.hop as usize, table, window };
        let (hop, cut) = (layer.hop, layer.cut());
        let t = self.timing[cur.buffer];
        let timing = Timing {
            rows: rate("an inverse STFT", t.rows, 1, l.hop as usize)?,
            ahead: t.ahead + t.step() * cut.div_ceil(hop) as f64,
            field: t.field + (n.div_ceil(hop) - 1) as f64 * t.step(),
            lag: t.lag.saturating_mul(hop).saturating_add(cut),
        };
        layer.dst = self.buffer(1, timing);
        layer.tmp = self.temporary(1, Some(layer.tmp_len()));
        let state = 2 * layer.overlap();
        self.note(format!("istft {n} hop {hop}"), "", 0, 0.0, &t, state);
        self.op(Kind::Istft(layer), state, 0);
        Ok(Cur { buffer: layer.dst, channels: 1, owned: true })
    }

    pub(super) fn log_mel(&mut self, l: &spec::LogMel, cur: Cur) -> Result<Cur, BuildError> {
        let n = transform("a log-mel spectrogram", l.n_fft)?;
        check("a log-mel spectrogram", "hop", l.hop, 1, l.n_fft / 2)?;
        // No tensor pays for the filters.
        check("a log-mel spectrogram", "mels", l.mels, 1, MAX_FILTERS / l.n_fft)?;
        check("a log-mel spectrogram", "sample_rate", l.sample_rate, 1, 1 << 24)?;
        self.channels("a log-mel spectrogram", 1, cur)?;
        if self.whole.is_none() {
            self.whole = Some("a log-mel spectrogram is cut off below the loudest moment of the whole signal".into());
        }
        self.endless = true;
        let (mels, hop) = (l.mels as usize, l.hop as usize);
        let (table, window) = self.fourier(n);
        let filters = mel_filters(l.sample_rate.into(), n, mels);
        let filters = Source { name: "mel filters".into(), values: filters.into(), half: false };
        let bins = n / 2 + 1;
        let at = Strides { taps: 1, channels: bins, tap: 0, channel: 1 };
        let filters = self.pack(Precision::F32, mels, &at, |m| m * bins, &filters)?;
        // With so much on the right, what would be one more frame at the end of the signal is not there.
        let frames =
            Window { span: n, stride: hop, left: n / 2, right: n / 2 - hop, pad: Pad::Reflect, complete: false };
        let mut layer = LogMelLayer { src: cur.buffer, dst: 0, tmp: 0, frames, mels, table, window, filters };
        let t = self.timing[cur.buffer];
        let timing = Timing {
            rows: rate("a log-mel spectrogram", t.rows, l.hop as usize, 1)?,
            ahead: t.ahead + (n / 2 - hop) as f64 * t.step(),
            field: t.field + (n - 1) as f64 * t.step(),
            lag: t.lag.saturating_add(n),
        };
        self.reserve(cur.buffer, frames.head(), frames.tail());
        layer.dst = self.buffer(mels, timing);
        layer.tmp = self.temporary(1, Some(layer.tmp_len()));
        let state = frames.history();
        self.note(format!("log_mel {n} hop {hop}→{mels}"), "", 0, (mels * bins) as f64, &timing, state);
        self.op(Kind::LogMel(layer), state, 0);
        Ok(Cur { buffer: layer.dst, channels: mels, owned: true })
    }

    pub(super) fn stft(&mut self, l: &spec::Stft, cur: Cur) -> Result<Cur, BuildError> {
        let n = transform("an STFT", l.n_fft)?;
        check("an STFT", "hop", l.hop, 1, l.n_fft)?;
        let square = l.floor * l.floor;
        if !(l.floor > 0.0 && (f32::MIN_POSITIVE..=f32::MAX).contains(&square) && (0.0..=1.0).contains(&l.power)) {
            return Err(spec_error(
                "",
                format!(
                    "an STFT has a floor of 1.1e-19 to 1.8e19 and a power of 0 to 1, not {} and {}",
                    l.floor, l.power
                ),
            ));
        }
        self.channels("an STFT", 1, cur)?;
        let (hop, channels) = (l.hop as usize, 3 * (n / 2 + 1));
        let (table, window) = self.fourier(n);
        let frames = Window { span: n, stride: hop, left: n - hop, right: 0, pad: Pad::Zero, complete: true };
        let (floor, power) = (l.floor, l.power);
        let mut layer = StftLayer { src: cur.buffer, dst: 0, tmp: 0, frames, floor, power, table, window };
        let t = self.timing[cur.buffer];
        let timing = Timing {
            rows: rate("an STFT", t.rows, hop, 1)?,
            ahead: t.ahead,
            field: t.field + (n - 1) as f64 * t.step(),
            lag: t.lag.saturating_add(n),
        };
        self.reserve(cur.buffer, frames.head(), frames.tail());
        layer.dst = self.buffer(channels, timing);
        layer.tmp = self.temporary(1, Some(layer.tmp_len()));
        let state = frames.history();
        self.note(format!("stft {n} hop {hop}"), "", 0, 0.0, &timing, state);
        self.op(Kind::Stft(layer), state, 0);
        Ok(Cur { buffer: layer.dst, channels, owned: true })
    }

    pub(super) fn noise(&mut self, l: &spec::Noise, cur: Cur) -> Result<Cur, BuildError> {
        check(&l.name, "channels", l.channels, 1, MAX_CHANNELS)?;
        self.channels(&l.name, l.channels, cur)?;
        let cur = self.own(cur);
        let c = cur.channels;
        let w = weight(self.tensors, &format!("{}.weight", l.name), &[c, c, 1])?;
        let at = Strides { taps: 1, channels: c, tap: 0, channel: 1 };
        let weight = self.pack(self.precision(&w), c, &at, |o| o * c, &w)?;
        let key = fnv1a64(&format!("noise.{}", l.index));
        let tmp = self.temporary(c, None);
        let layer = NoiseLayer { src: cur.buffer, tmp, channels: c, weight, key, seed: l.seed };
        let timing = self.timing[cur.buffer];
        self.note(
            format!("noise {c}"),
            &l.name,
            c * c,
            if l.seed.is_some() { (c * c) as f64 } else { 0.0 },
            &timing,
            0,
        );
        self.op(Kind::Noise(layer), 0, 0);
        Ok(cur)
    }

    /// The table of a transform, and a periodic Hann window of its length.
    fn fourier(&mut self, n: usize) -> (Slot, Slot) {
        let mut table = vec![0.0; RealFft::table_len(n)];
        RealFft::fill_table(n, &mut table);
        let angle = |t: usize| 2.0 * core::f64::consts::PI * t as f64 / n as f64;
        let window: Vec<f32> = (0..n).map(|t| (0.5 - 0.5 * libm::cos(angle(t))) as f32).collect();
        (self.fill(&table), self.fill(&window))
    }
}

fn transform(what: &str, n: u32) -> Result<usize, BuildError> {
    if RealFft::supports(n as usize) {
        return Ok(n as usize);
    }
    Err(spec_error(
        "",
        format!(
            "{what} of length {n}: even lengths up to {} without prime factors above 5 can be had",
            crate::kernel::MAX_FFT
        ),
    ))
}

/// Mel filters `[mels, n_fft / 2 + 1]`: triangles from 0 Hz to half the sample rate, evenly spaced on Slaney's mel scale
/// (linear to 1 kHz, logarithmic above; Auditory Toolbox 1998) and of equal area.
pub fn mel_filters(rate: f64, n_fft: usize, mels: usize) -> Vec<f32> {
    const LINEAR: f64 = 200.0 / 3.0;
    const CORNER: f64 = 1000.0;
    let step = libm::log(6.4) / 27.0;
    let top = rate / 2.0;
    let last = if top < CORNER { top / LINEAR } else { CORNER / LINEAR + libm::log(top / CORNER) / step };
    let hertz = |i: usize| {
        let mel = last * i as f64 / (mels + 1) as f64;
        if mel < CORNER / LINEAR { mel * LINEAR } else { CORNER * libm::exp(step * (mel - CORNER / LINEAR)) }
    };
    let filter = |m: usize| {
        let (low, middle, high) = (hertz(m), hertz(m + 1), hertz(m + 2));
        (0..=n_fft / 2).map(move |k| {
            let f = k as f64 * rate / n_fft as f64;
            let height = ((f - low) / (middle - low)).min((high - f) / (high - middle)).max(0.0);
            (height * 2.0 / (high - low)) as f32
        })
    };
    (0..mels).flat_map(filter).collect()
}
