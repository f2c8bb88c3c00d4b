//! Codes and samples on a device: the engine's work, done by the networks that are trained, without gradients and for many
//! signals at once.

mod run;
mod stage;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use burn::tensor::{Int, Tensor};
use codec::{
    Error, Model, Options,
    cli::{Coded, Coder, Failure, Half},
    model_file::ModelFile,
};
use codec_core::{
    kernel::Compute,
    pipeline::{Coding, Decoding},
    spec::{CodecSpec, Metric, Quantizer, ResidualRounding, layer_tensors},
};

use crate::{
    Store, Tracking, TrainError, Vars,
    device::{self, Opened},
    quantizer::{Rules, TrainQuantizer},
};
use run::{Budget, Signal};
use stage::Stage;

/// Values of latents that are searched at once.
const SEARCHED: usize = 8 << 20;

/// One half of a model on a device.
pub struct DeviceCoder<'m> {
    model: &'m Model,
    opened: Opened,
    vars: Vars,
    stages: Vec<Stage>,
    search: Option<Search>,
}

/// A codebook search on the device.
struct Search {
    quantizer: TrainQuantizer,
    /// Codes a frame of each codebook.
    each: Vec<usize>,
}

impl<'m> DeviceCoder<'m> {
    /// Builds one half of the model of a file on a device. `file` holds the tensors of `model`.
    ///
    /// # Errors
    /// The model does not have this half; it is one that only the engine can run (int8, whose sums are exact integers); a
    /// tensor is missing.
    pub fn new(model: &'m Model, file: &ModelFile, opened: Opened, half: Half) -> Result<Self, TrainError> {
        let spec = model.spec();
        let (layers, channels) = match half {
            Half::Encoder => (model.encoder_plan().map(|_| spec.encoder.as_deref())?, spec.channels),
            Half::Decoder => (model.decoder_plan().map(|_| spec.decoder.as_deref())?, spec.latent),
        };
        let layers = layers.unwrap_or_default();
        let stages = stage::stages(layers, channels as usize)?;
        let own: Vec<_> = layer_tensors(layers, channels).into_iter().map(|t| t.name).collect();
        let others: Vec<_> = [(&spec.encoder, spec.channels), (&spec.decoder, spec.latent)]
            .into_iter()
            .flat_map(|(layers, channels)| layer_tensors(layers.as_deref().unwrap_or_default(), channels))
            .map(|t| t.name)
            .collect();
        let mut wanted = spec.tensors();
        wanted.retain(|t| own.contains(&t.name) || (half == Half::Encoder && !others.contains(&t.name)));
        let store = Store::read(file, wanted, false, &opened.device)?;
        let search = if half == Half::Encoder { Search::new(spec, model)? } else { None };
        Ok(Self { model, opened, vars: store.vars(Tracking::None), stages, search })
    }

    fn error(&self, e: TrainError) -> Error {
        match e {
            TrainError::Codec(e) => e,
            e => Error::Device { device: self.opened.name.clone(), reason: e.to_string() },
        }
    }

    /// Latents of signals, on the device; `None` for one that is too short for a layer.
    fn latents(&self, signals: &[Vec<f32>]) -> Result<Vec<Option<Tensor<3>>>, TrainError> {
        let channels = self.model.spec().channels as usize;
        let signals = signals.iter().map(|s| Signal::Host { values: s.clone(), channels }).collect();
        let latents = run::run(&self.stages, &self.vars, signals, &self.opened, Budget::default(), false)?;
        Ok(latents.into_iter().map(|l| l.map(|l| l.on(&self.opened.device))).collect())
    }

    fn encode_all(&self, signals: &[Vec<f32>], options: &Options) -> Result<Vec<Result<Vec<u16>, Error>>, Error> {
        let quantizer = self.model.quantizer()?;
        let all = quantizer.codebooks().saturating_sub(options.first_codebook);
        let coding = Coding {
            first: options.first_codebook,
            codebooks: options.codebooks.unwrap_or(all),
            beam: options.beam.max(1),
            merged: options.merged_books,
        };
        quantizer.check_codebooks(coding.first, coding.codebooks)?;
        let latents = self.latents(signals).map_err(|e| self.error(e))?;
        let rows = quantizer.rows_per_frame();
        let whole = |latent: Tensor<3>| {
            let n = latent.dims()[2] / rows * rows;
            (n > 0).then(|| latent.slice_dim(2, 0..n))
        };
        let frames: Vec<Option<Tensor<3>>> = latents.iter().map(|l| l.clone().and_then(whole)).collect();
        let search = self.search.as_ref().filter(|_| coding.beam == 1 && coding.merged == 0);
        let mut codes = match search {
            Some(search) => search.codes(&self.vars, &frames, rows, &coding).map_err(|e| self.error(e))?,
            None => {
                let on_host = |latent: &Tensor<3>| self.quantised(latent.clone(), &coding);
                frames.iter().map(|f| f.as_ref().map_or(Ok(Vec::new()), on_host)).collect::<Result<_, _>>()?
            }
        }
        .into_iter();
        let each = |(signal, latent): (&Vec<f32>, &Option<Tensor<3>>)| {
            let codes = codes.next().unwrap_or_default();
            if latent.is_some() { Ok(codes) } else { self.by_the_engine(signal, &coding, options) }
        };
        Ok(signals.iter().zip(&latents).map(each).collect())
    }

    /// Codes of a latent by the engine's quantizer, for what the device does not search.
    fn quantised(&self, latent: Tensor<3>, coding: &Coding) -> Result<Vec<u16>, Error> {
        let quantizer = self.model.quantizer()?;
        let latent = crate::model::interleaved(latent);
        let frames = latent.len() / quantizer.dim() / quantizer.rows_per_frame();
        let searched = coding.first + coding.codebooks;
        let mut codes = vec![0; frames * searched];
        let mut scratch = vec![0.0; quantizer.scratch_len(frames, coding.beam)];
        let cx = Compute { isa: Options::default().isa, pool: None };
        quantizer.encode_merged(cx, &latent, searched, coding.beam, coding.merged, &mut codes, &mut scratch)?;
        Ok(codes.chunks_exact(searched).flat_map(|frame| &frame[coding.first..]).copied().collect())
    }

    /// A signal that is too short for the networks here, whose padding the engine knows.
    fn by_the_engine(&self, signal: &[f32], coding: &Coding, options: &Options) -> Result<Vec<u16>, Error> {
        let spec = self.model.spec();
        let plan = self.model.encoder_plan()?;
        let hop = spec.hop as usize;
        let frames = (signal.len() / spec.channels as usize).div_ceil(hop).max(1);
        let mut state = plan.state_for(frames, coding)?;
        let mut codes = vec![0; state.max_frames() * state.codebooks()];
        let cx = Compute { isa: options.isa, pool: None };
        let frames = plan.step(cx, &mut state, signal, true, &mut codes)?;
        codes.truncate(frames * coding.codebooks);
        Ok(codes)
    }

    fn decode_all(&self, signals: &[Coded], options: &Options) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
        let plan = self.model.decoder_plan()?;
        let quantizer = plan.quantizer();
        if options.noise_seed.is_some() && plan.chain().has_noise() {
            let reason = "noise from a seed is the engine's".to_owned();
            return Err(Error::Device { device: self.opened.name.clone(), reason });
        }
        let cx = Compute { isa: options.isa, pool: None };
        let latent = |coded: &Coded| -> Result<Signal, Error> {
            let frames = coded.data.len() / coded.codebooks.max(1);
            let mut latent = vec![0.0; frames * quantizer.rows_per_frame() * quantizer.dim()];
            let mut scratch = vec![0.0; quantizer.scratch_len(frames, 1)];
            quantizer.decode_range(cx, &coded.data, frames, coded.first, coded.codebooks, &mut latent, &mut scratch)?;
            Ok(Signal::Host { values: latent, channels: quantizer.dim() })
        };
        let latents: Vec<_> = signals.iter().map(latent).collect();
        let good = latents.iter().filter_map(|l| l.as_ref().ok().cloned()).collect();
        let mut decoded = run::run(&self.stages, &self.vars, good, &self.opened, Budget::default(), true)
            .map_err(|e| self.error(e))?
            .into_iter();
        let each = |(coded, latent): (&Coded, Result<Signal, Error>)| {
            latent?;
            if let Some(signal) = decoded.next().flatten() {
                return Ok(signal.into_host());
            }
            let decoding = Decoding { first: coded.first, codebooks: coded.codebooks, noise_seed: None };
            let mut state = plan.state_for((coded.data.len() / coded.codebooks.max(1)).max(1), &decoding)?;
            Ok(plan.step(cx, &mut state, &coded.data, true)?.to_vec())
        };
        Ok(signals.iter().zip(latents).map(each).collect())
    }

    /// The same error for all, and panics of the device as errors.
    fn all<T>(
        &self,
        count: usize,
        work: impl FnOnce() -> Result<Vec<Result<T, Error>>, Error>,
    ) -> Vec<Result<T, Error>> {
        let failed = |reason: String| Error::Device { device: self.opened.name.clone(), reason };
        match guarded(&self.opened.name, work) {
            Ok(Ok(results)) => results,
            Ok(Err(e)) => {
                let text = e.to_string();
                let rest = (1..count).map(|_| Err(failed(text.clone()))).collect::<Vec<_>>();
                std::iter::once(Err(e)).chain(rest).collect()
            }
            Err(reason) => (0..count).map(|_| Err(failed(reason.clone()))).collect(),
        }
    }
}

/// For the command line: opens a device and builds one half of the model that was loaded from `path`.
///
/// # Errors
/// Those of [`device::find`] and [`DeviceCoder::new`]; the model is a deploy image.
pub fn open<'m>(name: &str, half: Half, path: &'m Path, model: &'m Model) -> Result<Box<dyn Coder + 'm>, Failure> {
    let failure = |e: TrainError| {
        let help = match &e {
            TrainError::Device { .. } => "`--device cpu`, or none, computes on the processor",
            TrainError::Untrainable { .. } => "this model runs on the processor: leave --device away",
            _ => "see `codec info MODEL` for what the model can do",
        };
        Failure::new(e, help)
    };
    if model.is_packed() {
        let text = format!("{}: a deploy image is for the engine on the processor", path.display());
        return Err(Failure::new(text, "give the model file that it was made of with --model, or leave --device away"));
    }
    let opened = device::find(name).map_err(failure)?;
    let file = ModelFile::open(path).map_err(|e| failure(e.into()))?;
    let device = opened.name.clone();
    let made = guarded(&device, || DeviceCoder::new(model, &file, opened, half));
    let made = made.map_err(|e| Failure::new(e, "choose a device with more memory, or leave --device away"))?;
    Ok(Box::new(made.map_err(failure)?))
}

impl Coder for DeviceCoder<'_> {
    fn device(&self) -> &str {
        &self.opened.name
    }

    fn encode(&self, signals: &[Vec<f32>], options: &Options) -> Vec<Result<Vec<u16>, Error>> {
        self.all(signals.len(), || self.encode_all(signals, options))
    }

    fn decode(&self, signals: &[Coded], options: &Options) -> Vec<Result<Vec<f32>, Error>> {
        self.all(signals.len(), || self.decode_all(signals, options))
    }
}

/// A device's panic as a text.
fn guarded<T>(device: &str, work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|cause: Box<dyn Any + Send>| {
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(|t| (*t).to_owned()));
        format!("{device} failed: {}", text.as_deref().unwrap_or("it gave no reason"))
    })
}

impl Search {
    /// `None` for what only the engine's quantizer searches as it is defined.
    fn new(spec: &CodecSpec, model: &Model) -> Result<Option<Self>, TrainError> {
        let rows = model.quantizer()?.rows_per_frame();
        let mut each = Vec::new();
        if !searchable(&spec.quantizer, rows, &mut each) {
            return Ok(None);
        }
        Ok(TrainQuantizer::new(&spec.quantizer, Rules::default()).ok().map(|quantizer| Self { quantizer, each }))
    }

    /// Frame-major codes of latents that are whole frames of `rows` rows; none for `None`.
    fn codes(
        &self,
        vars: &Vars,
        latents: &[Option<Tensor<3>>],
        rows: usize,
        coding: &Coding,
    ) -> Result<Vec<Vec<u16>>, TrainError> {
        // Whole frames, as many at once as a tensor may well hold.
        let width = latents.iter().flatten().map(|l| l.dims()[1]).max().unwrap_or(1);
        let most = (SEARCHED / width / rows).max(1);
        let mut codes: Vec<Vec<u16>> = vec![Vec::new(); latents.len()];
        let mut batch: Vec<(usize, usize, Tensor<3>)> = Vec::new();
        let mut gathered = 0;
        for (i, latent) in latents.iter().enumerate() {
            let Some(latent) = latent else { continue };
            let frames = latent.dims()[2] / rows;
            let mut from = 0;
            while from < frames {
                let n = (frames - from).min(most - gathered);
                batch.push((i, n, latent.clone().slice_dim(2, from * rows..(from + n) * rows)));
                (from, gathered) = (from + n, gathered + n);
                if gathered == most {
                    self.search(vars, std::mem::take(&mut batch), coding, &mut codes)?;
                    gathered = 0;
                }
            }
        }
        self.search(vars, batch, coding, &mut codes)?;
        Ok(codes)
    }

    /// Appends the codes of some latents, each with its signal and its frames.
    fn search(
        &self,
        vars: &Vars,
        batch: Vec<(usize, usize, Tensor<3>)>,
        coding: &Coding,
        out: &mut [Vec<u16>],
    ) -> Result<(), TrainError> {
        let total: usize = batch.iter().map(|(_, frames, _)| frames).sum();
        if total == 0 {
            return Ok(());
        }
        let searched = coding.first + coding.codebooks;
        let mut books = 0;
        let mut width = 0;
        while width < searched && books < self.each.len() {
            width += self.each[books];
            books += 1;
        }
        let (places, latents): (Vec<_>, Vec<_>) = batch.into_iter().map(|(i, n, latent)| ((i, n), latent)).unzip();
        let codes = self.quantizer.codes(vars, Tensor::cat(latents, 2), books)?;
        let failed = |e| TrainError::Device { name: "codes".into(), reason: format!("{e:?}") };
        let flat = Tensor::<1, Int>::cat(codes, 0).try_into_vec_as::<i64>().map_err(failed)?;
        // Codebook after codebook, and of each one frame after frame.
        let mut starts = Vec::with_capacity(books);
        let mut start = 0;
        for each in &self.each[..books] {
            starts.push((start, *each));
            start += each * total;
        }
        let mut frame = 0;
        for (i, frames) in places {
            for f in frame..frame + frames {
                let whole = starts.iter().flat_map(|(start, each)| &flat[start + f * each..start + (f + 1) * each]);
                out[i].extend(whole.take(searched).skip(coding.first).map(|code| *code as u16));
            }
            frame += frames;
        }
        Ok(())
    }
}

/// Whether [`TrainQuantizer::codes`] finds the engine's codes; lists how many a frame of `rows` rows has of each codebook.
fn searchable(q: &Quantizer, rows: usize, each: &mut Vec<usize>) -> bool {
    match q {
        Quantizer::Vq(v) => {
            each.push(rows);
            v.metric != Metric::EuclideanDirect
        }
        Quantizer::Residual { stages: parts, rounding, .. } => {
            *rounding == ResidualRounding::Plain && parts.iter().all(|p| searchable(p, rows, each))
        }
        Quantizer::Grouped { groups: parts } | Quantizer::Split { parts } => {
            parts.iter().all(|p| searchable(p, rows, each))
        }
        Quantizer::Rated { stride, inner } => {
            let each_book = rows / (*stride).max(1) as usize;
            matches!(**inner, Quantizer::Vq(_)) && searchable(inner, each_book, each)
        }
        Quantizer::Fsq(f) => {
            each.extend((0..f.stages).map(|_| rows));
            true
        }
        _ => false,
    }
}
