//! A loaded model.

use std::{
    fs::File,
    io::Read,
    path::Path,
    sync::{Arc, OnceLock},
};

use codec_core::{
    BuildError,
    kernel::Isa,
    pipeline::{self, ChainPlan},
    quantizer::Quantizer,
    spec::{CodecSpec, Framing},
    weights::{Dtype, Precision},
};
use serde::Serialize;

use crate::{
    Codes, Decoder, Encoder, Error,
    image_file::{ImageFile, starts_as_image},
    model_file::{Fingerprint, ModelFile, Provenance},
};

/// A model file or a deploy image, mapped. Encoder and decoder are planned when first used, and shared by every signal.
#[derive(Debug)]
pub struct Model {
    source: Source,
    precision: Precision,
    encoder: OnceLock<Result<pipeline::Encoder, BuildError>>,
    decoder: OnceLock<Result<pipeline::Decoder, BuildError>>,
}

#[derive(Debug)]
enum Source {
    File(ModelFile),
    Image(About),
}

/// What an image says of its model.
#[derive(Debug)]
struct About {
    spec: CodecSpec,
    provenance: Provenance,
    fingerprint: Fingerprint,
}

/// How to code a signal.
#[derive(Clone, Debug)]
pub struct Options {
    /// Codes a frame; `None` for all that the model has, from [`Options::first_codebook`] on.
    pub codebooks: Option<usize>,
    /// Which of the model's codes of a frame is the first, 0 for all from the beginning. An encoder searches the codes before it and
    /// leaves them out; a decoder makes of the codes what they add to the latent by themselves
    /// ([`Quantizer::decode_range`]).
    pub first_codebook: usize,
    /// Width of the codebook search over residual stages; 1 is the greedy search, and more than
    /// [`MAX_BEAM`](codec_core::quantizer::MAX_BEAM) counts as that.
    pub beam: usize,
    /// Codebooks, from the first on, that are encoded at half the rate: neighbouring frames share their codes, which decode
    /// as ever ([`Quantizer::encode_merged`]). 0 for none.
    pub merged_books: usize,
    /// Seed of the noise that a decoder adds (SNAC's, [`codec_core::spec::Noise`]): the same seed and codes give the same
    /// samples. `None` for the model's own, which in imported models is no noise.
    pub noise_seed: Option<u64>,
    /// Threads for one signal; 0 for as many as the machine has. Results do not depend on it.
    pub threads: usize,
    /// Instruction set. Results do not depend on it.
    pub isa: Isa,
    /// Bytes that the coding of one signal may take beside the signal and the model. What it takes grows with the
    /// signal only if the model needs the whole of it.
    pub max_memory: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            codebooks: None,
            first_codebook: 0,
            beam: 1,
            merged_books: 0,
            noise_seed: None,
            threads: 1,
            isa: Isa::detect(),
            max_memory: 4 << 30,
        }
    }
}

impl Model {
    /// Opens a model file or a deploy image.
    ///
    /// # Errors
    /// The file cannot be read, is neither, or is of a version that this build does not know; an image is damaged.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        if Self::is_image(path) {
            return Ok(ImageFile::open(path)?.into());
        }
        Ok(Self::of(ModelFile::open(path)?))
    }

    /// Reads a model file or a deploy image that lies in memory, where its bytes stay.
    ///
    /// # Errors
    /// As [`Model::load`], and an image that is not aligned as [`Model::from_image`] needs it.
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, Error> {
        if starts_as_image(bytes) {
            return Self::from_image(Arc::new(bytes));
        }
        Ok(Self::of(ModelFile::from_static(bytes)?))
    }

    /// How the weights of the networks are held.
    pub fn precision(&self) -> Precision {
        match &self.source {
            Source::File(file)
                if self.precision == Precision::F32 && file.tensors().any(|(_, t)| t.dtype == Dtype::F16) =>
            {
                Precision::F16
            }
            _ => self.precision,
        }
    }

    /// Whether this is a deploy image.
    pub fn is_packed(&self) -> bool {
        matches!(self.source, Source::Image(_))
    }

    /// Whether a file can be read and starts as a deploy image.
    pub fn is_image(path: impl AsRef<Path>) -> bool {
        let mut start = Vec::with_capacity(8);
        let read = File::open(path).and_then(|file| file.take(8).read_to_end(&mut start));
        read.is_ok() && starts_as_image(&start)
    }

    /// A model from a deploy image in memory, which is used where it lies.
    ///
    /// # Errors
    /// The bytes are no image, damaged, or not aligned to [`IMAGE_ALIGN`](codec_core::image::IMAGE_ALIGN).
    pub fn from_image(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Result<Self, Error> {
        Ok(ImageFile::from_bytes(bytes, "the image")?.into())
    }

    fn of(file: ModelFile) -> Self {
        let precision = Precision::default();
        Self { source: Source::File(file), precision, encoder: OnceLock::new(), decoder: OnceLock::new() }
    }

    /// The model with its networks' weights held in another precision, which makes other tokens. As a model file is loaded,
    /// tensors of f16 are held in f16, all others in f32; an image keeps the precision that it was packed with.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        match self.source {
            Source::File(file) => Self { precision, ..Self::of(file) },
            Source::Image(_) => self,
        }
    }

    /// What the codec is.
    pub fn spec(&self) -> &CodecSpec {
        match &self.source {
            Source::File(file) => file.spec(),
            Source::Image(about) => &about.spec,
        }
    }

    /// What identifies spec and weights.
    pub fn fingerprint(&self) -> Fingerprint {
        match &self.source {
            Source::File(file) => file.fingerprint(),
            Source::Image(about) => about.fingerprint,
        }
    }

    /// Where the model comes from, and its licence.
    pub fn provenance(&self) -> &Provenance {
        match &self.source {
            Source::File(file) => file.provenance(),
            Source::Image(about) => &about.provenance,
        }
    }

    /// Compares the content with what the file states of it. An image's checksum was already compared as it was opened.
    ///
    /// # Errors
    /// They differ.
    pub fn verify(&self) -> Result<(), Error> {
        match &self.source {
            Source::File(file) => Ok(file.verify()?),
            Source::Image(_) => Ok(()),
        }
    }

    /// The planned encoder.
    ///
    /// # Errors
    /// The model has none, or its spec and tensors do not fit.
    pub fn encoder_plan(&self) -> Result<&pipeline::Encoder, Error> {
        let built = self.encoder.get_or_init(|| match &self.source {
            Source::File(file) => pipeline::Encoder::with_precision(self.spec(), file, self.precision),
            Source::Image(about) => Err(BuildError::NoEncoder(about.spec.name.clone())),
        });
        built.as_ref().map_err(|e| e.clone().into())
    }

    /// The planned decoder.
    ///
    /// # Errors
    /// The model has none, or its spec and tensors do not fit.
    pub fn decoder_plan(&self) -> Result<&pipeline::Decoder, Error> {
        let built = self.decoder.get_or_init(|| match &self.source {
            Source::File(file) => pipeline::Decoder::with_precision(self.spec(), file, self.precision),
            Source::Image(about) => Err(BuildError::NoDecoder(about.spec.name.clone())),
        });
        built.as_ref().map_err(|e| e.clone().into())
    }

    /// An encoder for one signal.
    ///
    /// # Errors
    /// Those of [`Model::encoder_plan`]; a number of codebooks that the model does not have.
    pub fn encoder(&self, options: &Options) -> Result<Encoder<'_>, Error> {
        Encoder::new(self, options)
    }

    /// A decoder for one signal of `options.codebooks` codes a frame, from `options.first_codebook` on.
    ///
    /// # Errors
    /// Those of [`Model::decoder_plan`]; a number of codebooks that the model does not have.
    pub fn decoder(&self, options: &Options) -> Result<Decoder<'_>, Error> {
        Decoder::new(self, options)
    }

    /// Encodes a whole signal, interleaved.
    ///
    /// # Errors
    /// Those of [`Model::encoder`] and [`Encoder::push`].
    pub fn encode(&self, pcm: &[f32], options: &Options) -> Result<Codes, Error> {
        let mut encoder = self.encoder(options)?;
        let mut codes = Codes::new(encoder.codebooks());
        encoder.push(pcm, &mut codes)?;
        encoder.finish(&mut codes)?;
        Ok(codes)
    }

    /// Decodes a whole signal to interleaved samples; `samples` (a channel) is the length that the signal had.
    ///
    /// # Errors
    /// Those of [`Model::decoder`] and [`Decoder::push`]; a length that the frames cannot make.
    pub fn decode(&self, codes: &Codes, samples: Option<u64>, options: &Options) -> Result<Vec<f32>, Error> {
        let options = Options { codebooks: Some(codes.codebooks), ..options.clone() };
        let mut decoder = self.decoder(&options)?;
        let mut pcm = Vec::new();
        decoder.push(codes, &mut pcm)?;
        decoder.finish(&mut pcm)?;
        if let Some(samples) = samples {
            let channels = self.spec().channels as usize;
            let made = (pcm.len() / channels) as u64;
            if samples.abs_diff(made) > self.slack() {
                return Err(Error::Length { samples, made, frames: codes.frames() });
            }
            pcm.resize(samples as usize * channels, 0.0);
        }
        Ok(pcm)
    }

    /// Samples (a channel) by which a signal's length may differ from what its frames make: what the last frame was filled
    /// up with, or what a system drops at the ends.
    pub fn slack(&self) -> u64 {
        u64::from(self.spec().sample_rate).max(4 * u64::from(self.spec().hop))
    }

    /// Frames a second.
    pub fn frame_rate(&self) -> f64 {
        f64::from(self.spec().sample_rate) / f64::from(self.spec().hop)
    }

    /// The quantizer of whichever of encoder and decoder is there.
    ///
    /// # Errors
    /// Those of [`Model::encoder_plan`] and [`Model::decoder_plan`].
    pub fn quantizer(&self) -> Result<&Quantizer, Error> {
        match self.decoder.get() {
            Some(Ok(decoder)) => Ok(decoder.quantizer()),
            _ if self.spec().encoder.is_some() => Ok(self.encoder_plan()?.quantizer()),
            _ => Ok(self.decoder_plan()?.quantizer()),
        }
    }

    /// The codebook counts that the publisher offers, with their bitrates.
    ///
    /// # Errors
    /// Those of [`Model::quantizer`].
    pub fn bitrates(&self) -> Result<Vec<Bitrate>, Error> {
        let quantizer = self.quantizer()?;
        let choices: Vec<usize> = if self.spec().codebook_choices.is_empty() {
            (1..=quantizer.codebooks()).filter(|&n| quantizer.check_codebooks(0, n).is_ok()).collect()
        } else {
            self.spec().codebook_choices.iter().map(|&n| n as usize).collect()
        };
        let kbps = |codebooks| f64::from(quantizer.bits_per_frame(codebooks)) * self.frame_rate() / 1000.0;
        Ok(choices.into_iter().map(|codebooks| Bitrate { codebooks, kbps: kbps(codebooks) }).collect())
    }

    /// Everything that is known of the model before the first sample.
    ///
    /// # Errors
    /// Spec and tensors do not fit.
    pub fn info(&self) -> Result<ModelInfo, Error> {
        let spec = self.spec();
        let quantizer = self.quantizer()?;
        let part = |chain: &pipeline::Chain, rows_a_second: f64, rows: usize| {
            let (state, workspace) = chain.memory(rows);
            NetworkInfo {
                mmac_per_second: chain.plan().macs_per_row * rows_a_second / 1e6,
                streamable: chain.plan().whole.is_none(),
                state_bytes: state,
                workspace_bytes: workspace,
                plan: chain.plan().clone(),
            }
        };
        let encoder = match &spec.encoder {
            None => None,
            Some(_) => {
                let chain = self.encoder_plan()?.chain();
                Some(part(
                    chain,
                    f64::from(spec.sample_rate),
                    crate::stream::chunk_frames(chain, spec, spec.hop as usize) * spec.hop as usize,
                ))
            }
        };
        let decoder = match &spec.decoder {
            None => None,
            Some(_) => {
                let chain = self.decoder_plan()?.chain();
                let rows = quantizer.rows_per_frame();
                let piece = crate::stream::chunk_frames(chain, spec, rows) * rows;
                Some(part(chain, self.frame_rate() * rows as f64, piece))
            }
        };
        let delay = |n: &Option<NetworkInfo>, hop: f64| n.as_ref().map_or(0.0, |n| n.plan.lookahead * hop);
        let hop = f64::from(spec.hop);
        let samples = hop + delay(&encoder, 1.0) + delay(&decoder, hop / quantizer.rows_per_frame() as f64);
        let streamable =
            matches!(spec.framing, Framing::Stream) && [&encoder, &decoder].into_iter().flatten().all(|n| n.streamable);
        Ok(ModelInfo {
            name: spec.name.clone(),
            fingerprint: self.fingerprint().to_string(),
            sample_rate: spec.sample_rate,
            channels: spec.channels,
            hop: spec.hop,
            frame_rate: self.frame_rate(),
            framing: spec.framing.clone(),
            codebook_sizes: quantizer.sizes().to_vec(),
            bitrates: self.bitrates()?,
            streamable,
            precision: self.precision(),
            delay_samples: streamable.then_some(samples),
            delay_ms: streamable.then(|| samples / f64::from(spec.sample_rate) * 1000.0),
            encoder,
            decoder,
        })
    }
}

impl From<ImageFile> for Model {
    fn from(image: ImageFile) -> Self {
        let ImageFile { spec, provenance, fingerprint, precision, encoder, decoder } = image;
        let cell = |found: Option<_>| found.map_or_else(OnceLock::new, |part| OnceLock::from(Ok(part)));
        Self {
            source: Source::Image(About { spec, provenance, fingerprint }),
            precision,
            encoder: cell(encoder),
            decoder: decoder.map_or_else(OnceLock::new, |part| OnceLock::from(Ok(part))),
        }
    }
}

/// What `codec info` says of a model.
#[derive(Clone, Debug, Serialize)]
pub struct ModelInfo {
    /// Name of the codec.
    pub name: String,
    /// Hash of spec and tensors.
    pub fingerprint: String,
    /// Samples a second.
    pub sample_rate: u32,
    /// Audio channels.
    pub channels: u32,
    /// Samples a frame.
    pub hop: u32,
    /// Frames a second.
    pub frame_rate: f64,
    /// How long signals are cut.
    pub framing: Framing,
    /// Entries of every codebook.
    pub codebook_sizes: Vec<u32>,
    /// Bitrates of the codebook counts on offer.
    pub bitrates: Vec<Bitrate>,
    /// Whether encoder and decoder take a signal in pieces of any size.
    pub streamable: bool,
    /// How the weights of the networks are held.
    pub precision: Precision,
    /// Algorithmic delay in samples: a hop, and what encoder and decoder look ahead.
    pub delay_samples: Option<f64>,
    /// The same in milliseconds.
    pub delay_ms: Option<f64>,
    /// The encoder, if there is one.
    pub encoder: Option<NetworkInfo>,
    /// The decoder, if there is one.
    pub decoder: Option<NetworkInfo>,
}

/// A bitrate on offer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bitrate {
    /// Codes a frame.
    pub codebooks: usize,
    /// Kilobits a second.
    pub kbps: f64,
}

/// An encoder or decoder.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkInfo {
    /// Millions of multiply-accumulates a second of audio.
    pub mmac_per_second: f64,
    /// Whether it takes a signal in pieces.
    pub streamable: bool,
    /// Bytes carried from piece to piece.
    pub state_bytes: usize,
    /// Bytes of scratch memory at the default size of a piece.
    pub workspace_bytes: usize,
    /// Layers, parameters, receptive field.
    #[serde(flatten)]
    pub plan: ChainPlan,
}
