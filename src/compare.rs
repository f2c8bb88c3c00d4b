//! What a lower precision of the weights costs: every layer's output beside that of the full precision.

use codec_core::{
    RunError,
    kernel::Compute,
    pipeline::{self, Chain, ChainState},
    spec::Framing,
};
use serde::Serialize;

use crate::{Error, Model, Options, stream::chunk_frames, threads::Threads};

/// Signal and difference of one layer.
#[derive(Clone, Copy, Debug, Default)]
struct Energy {
    signal: f64,
    noise: f64,
}

impl Energy {
    fn add(&mut self, signal: &[f32], other: &[f32]) {
        debug_assert_eq!(signal.len(), other.len());
        for (a, b) in signal.iter().zip(other) {
            let (a, d) = (f64::from(*a), f64::from(*a) - f64::from(*b));
            self.signal += a * a;
            self.noise += d * d;
        }
    }

    /// Decibels; `None` where nothing differs or nothing was there.
    fn snr(&self) -> Option<f64> {
        (self.signal > 0.0 && self.noise > 0.0).then(|| 10.0 * (self.signal / self.noise).log10())
    }
}

/// Seconds of a signal that are compared where all of it would have to be held at once.
pub const COMPARED_SECONDS: usize = 10;

/// A layer, and the signal-to-noise ratio of what it puts out, with what the layers before it have added.
#[derive(Clone, Debug, Serialize)]
pub struct LayerSnr {
    /// What it is, with its sizes.
    pub kind: String,
    /// Prefix of its tensors' names.
    pub name: String,
    /// Decibels; `None` where nothing differs.
    pub snr_db: Option<f64>,
}

/// What a lower precision costs on some signals.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    /// Seconds of audio.
    pub seconds: f64,
    /// The encoder's layers.
    pub encoder: Vec<LayerSnr>,
    /// Share of codes that are the same.
    pub equal_codes: Option<f64>,
    /// The decoder's layers, from the codes of the full precision.
    pub decoder: Vec<LayerSnr>,
    /// The decoded samples, in decibels; `None` where nothing differs.
    pub samples_snr_db: Option<f64>,
}

/// Two chains side by side.
struct Pair<'a> {
    chains: [&'a Chain; 2],
    states: [ChainState; 2],
    /// For each layer, its last step in either chain: precisions differ in what they fuse.
    ends: Vec<[usize; 2]>,
    energies: Vec<Energy>,
    samples: Energy,
}

/// The last step of every layer, with the sum of a residual that ends with it.
fn ends(chain: &Chain) -> Vec<usize> {
    let layers = &chain.plan().layers;
    let next = |i: usize| layers[i..].iter().map(|l| l.first_step).find(|first| *first > layers[i].first_step);
    (0..layers.len()).map(|i| next(i).map_or(usize::MAX, |first| first - 1)).collect()
}

impl<'a> Pair<'a> {
    fn new(full: &'a Chain, lower: &'a Chain, rows: usize) -> Self {
        let ends: Vec<[usize; 2]> = ends(full).into_iter().zip(ends(lower)).map(|(a, b)| [a, b]).collect();
        Self {
            chains: [full, lower],
            states: [full.state(rows), lower.state(rows)],
            energies: vec![Energy::default(); ends.len()],
            ends,
            samples: Energy::default(),
        }
    }

    /// One step of both; the rows that either gives.
    fn step(&mut self, cx: Compute<'_>, input: &[f32], finish: bool) -> Result<[Vec<f32>; 2], Error> {
        let [full, lower] = &mut self.states;
        let mut made: Vec<Vec<f32>> = Vec::new();
        let out = self.chains[0].step_watched(cx, full, input, finish, |_, rows| made.push(rows.to_vec()))?.to_vec();
        let mut other: Vec<Vec<f32>> = Vec::new();
        let lowered =
            self.chains[1].step_watched(cx, lower, input, finish, |_, rows| other.push(rows.to_vec()))?.to_vec();
        for (energy, [a, b]) in self.energies.iter_mut().zip(&self.ends) {
            // The last layer's steps go on to the end.
            let at = |steps: &[Vec<f32>], end: usize| end.min(steps.len().saturating_sub(1));
            if let (Some(a), Some(b)) = (made.get(at(&made, *a)), other.get(at(&other, *b))) {
                energy.add(a, b);
            }
        }
        self.samples.add(&out, &lowered);
        Ok([out, lowered])
    }

    fn layers(&self) -> Vec<LayerSnr> {
        let of = |(layer, energy): (&pipeline::LayerPlan, &Energy)| LayerSnr {
            kind: layer.kind.clone(),
            name: layer.name.clone(),
            snr_db: energy.snr(),
        };
        self.chains[0].plan().layers.iter().zip(&self.energies).map(of).collect()
    }
}

impl Model {
    /// Codes a signal with this model and with the same model of a lower precision, and compares every layer. Interleaved
    /// samples; a model that needs the whole signal, or cuts it into segments or windows, takes its first
    /// [`COMPARED_SECONDS`] as one.
    ///
    /// # Errors
    /// The other is another model, either is an image, or a sample is not finite.
    pub fn compare(&self, other: &Self, pcm: &[f32], options: &Options) -> Result<Comparison, Error> {
        if self.fingerprint() != other.fingerprint() {
            return Err(Error::OtherModel { expected: self.fingerprint(), found: other.fingerprint() });
        }
        if self.is_packed() || other.is_packed() {
            return Err(RunError::Unsupported("an image does not know its layers: give the model file").into());
        }
        if let Some(index) = pcm.iter().position(|v| !v.is_finite()) {
            return Err(RunError::NotFinite { index }.into());
        }
        let threads = Threads::new(options.threads, options.isa)?;
        let spec = self.spec();
        let (channels, quantizer) = (spec.channels as usize, self.quantizer()?);
        let whole = |chain: &Chain| chain.plan().whole.is_some() || !matches!(spec.framing, Framing::Stream);
        let encoder = spec.encoder.as_ref().map(|_| Ok::<_, Error>((self.encoder_plan()?, other.encoder_plan()?)));
        let encoder = encoder.transpose()?;
        let most = COMPARED_SECONDS * spec.sample_rate as usize * channels;
        let pcm = match &encoder {
            Some((full, _)) if whole(full.chain()) => &pcm[..pcm.len().min(most)],
            _ => pcm,
        };
        let seconds = (pcm.len() / channels) as f64 / f64::from(spec.sample_rate);
        let mut found = Comparison { seconds, ..Comparison::default() };
        let books = options.codebooks.unwrap_or(quantizer.codebooks());
        let mut latents = Vec::new();
        if let Some((full, lower)) = encoder {
            let chunk = match whole(full.chain()) {
                true => pcm.len() / channels,
                false => chunk_frames(full.chain(), spec, spec.hop as usize) * spec.hop as usize,
            };
            let mut pair = Pair::new(full.chain(), lower.chain(), chunk.max(1));
            let mut lowered = Vec::new();
            let mut rest = pcm;
            loop {
                let (now, later) = rest.split_at((chunk * channels).min(rest.len()));
                rest = later;
                let [a, b] = threads.run(|cx| pair.step(cx, now, rest.is_empty()))?;
                latents.extend(a);
                lowered.extend(b);
                if rest.is_empty() {
                    break;
                }
            }
            found.encoder = pair.layers();
            let a = encode(&threads, quantizer, &latents, books)?;
            let b = encode(&threads, quantizer, &lowered, books)?;
            let equal = a.iter().zip(&b).filter(|(a, b)| a == b).count();
            found.equal_codes = (!a.is_empty()).then(|| equal as f64 / a.len() as f64);
            latents = decode(&threads, quantizer, &a, books)?;
        }
        if spec.decoder.is_some() && !latents.is_empty() {
            let (full, lower) = (self.decoder_plan()?, other.decoder_plan()?);
            let (each, dim) = (quantizer.rows_per_frame(), quantizer.dim());
            let chunk = match whole(full.chain()) {
                true => latents.len() / dim,
                false => chunk_frames(full.chain(), spec, each) * each,
            };
            let mut pair = Pair::new(full.chain(), lower.chain(), chunk.max(1));
            let count = latents.len().div_ceil(chunk * dim);
            for (i, now) in latents.chunks(chunk * dim).enumerate() {
                threads.run(|cx| pair.step(cx, now, i + 1 == count))?;
            }
            found.decoder = pair.layers();
            found.samples_snr_db = pair.samples.snr();
        }
        Ok(found)
    }
}

fn encode(
    threads: &Threads,
    quantizer: &codec_core::quantizer::Quantizer,
    latents: &[f32],
    books: usize,
) -> Result<Vec<u16>, Error> {
    let frames = latents.len() / (quantizer.rows_per_frame() * quantizer.dim());
    let latents = &latents[..frames * quantizer.rows_per_frame() * quantizer.dim()];
    let mut codes = vec![0; frames * books];
    let mut scratch = vec![0.0; quantizer.scratch_len(frames, 1)];
    threads.run(|cx| quantizer.encode(cx, latents, books, 1, &mut codes, &mut scratch))?;
    Ok(codes)
}

fn decode(
    threads: &Threads,
    quantizer: &codec_core::quantizer::Quantizer,
    codes: &[u16],
    books: usize,
) -> Result<Vec<f32>, Error> {
    if !quantizer.can_decode() {
        return Ok(Vec::new());
    }
    let frames = codes.len() / books;
    let mut latents = vec![0.0; frames * quantizer.rows_per_frame() * quantizer.dim()];
    let mut scratch = vec![0.0; quantizer.scratch_len(frames, 1)];
    threads.run(|cx| quantizer.decode(cx, codes, frames, books, &mut latents, &mut scratch))?;
    Ok(latents)
}
