//! Stands in for the facade until the engine is here: a model that keeps the mean of each frame.
#![allow(missing_docs)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use codec_core::{
    RunError,
    spec::{CodecSpec, Quantizer},
};
use serde::Serialize;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Model(String),
    #[error(transparent)]
    Run(#[from] RunError),
}

pub struct Model {
    spec: CodecSpec,
    fingerprint: [u8; 16],
}

#[derive(Clone, Debug, Serialize)]
pub struct Bitrate {
    pub codebooks: usize,
    pub kbps: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct ModelInfo {
    pub name: String,
    pub sample_rate: u32,
    pub channels: u32,
    pub hop: u32,
    pub codebook_sizes: Vec<u32>,
    pub bitrates: Vec<Bitrate>,
    pub streamable: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Codes {
    pub codebooks: usize,
    pub data: Vec<u16>,
    pub segments: Vec<Segment>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    pub frames: usize,
    pub scale: f32,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub codebooks: Option<usize>,
    pub beam: usize,
    pub threads: usize,
    pub isa: codec_core::kernel::Isa,
    pub max_memory: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { codebooks: None, beam: 1, threads: 1, isa: codec_core::kernel::Isa::detect(), max_memory: 4 << 30 }
    }
}

impl Codes {
    pub fn new(codebooks: usize) -> Self {
        Self { codebooks, ..Self::default() }
    }

    pub fn frames(&self) -> usize {
        self.data.len() / self.codebooks.max(1)
    }

    pub fn clear(&mut self) {
        self.data.clear();
        self.segments.clear();
    }
}

impl Model {
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let bad = |e: String| Error::Model(format!("{} is not a model: {e}", path.display()));
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
        let texts = metadata.metadata().clone().unwrap_or_default();
        let spec = texts.get("codec.spec").ok_or_else(|| bad("no spec".into()))?;
        let spec: CodecSpec = serde_json::from_str(spec).map_err(|e| bad(e.to_string()))?;
        let mut fingerprint = [7u8; 16];
        for (i, b) in bytes.iter().enumerate() {
            fingerprint[i % 16] = fingerprint[i % 16].wrapping_mul(31) ^ b;
        }
        Ok(Self { spec, fingerprint })
    }

    pub fn spec(&self) -> &CodecSpec {
        &self.spec
    }

    pub fn fingerprint(&self) -> model_file::Fingerprint {
        model_file::Fingerprint(self.fingerprint)
    }

    fn sizes(&self) -> Vec<u32> {
        match &self.spec.quantizer {
            Quantizer::Residual { stages, .. } => {
                stages.iter().map(|s| if let Quantizer::Vq(v) = s { v.size } else { 1 }).collect()
            }
            _ => vec![],
        }
    }

    pub fn info(&self) -> Result<ModelInfo, Error> {
        let rate = f64::from(self.spec.sample_rate) / f64::from(self.spec.hop);
        let mut sum = 0.0;
        let bitrates = self.sizes().into_iter().enumerate().map(|(i, s)| {
            sum += f64::from(s).log2() * rate;
            Bitrate { codebooks: i + 1, kbps: sum / 1e3 }
        });
        Ok(ModelInfo {
            name: self.spec.name.clone(),
            sample_rate: self.spec.sample_rate,
            channels: self.spec.channels,
            hop: self.spec.hop,
            codebook_sizes: self.sizes(),
            bitrates: bitrates.collect(),
            streamable: true,
        })
    }

    fn codebooks(&self, o: &Options) -> Result<usize, Error> {
        let available = self.sizes().len();
        let asked = o.codebooks.unwrap_or(available);
        if asked == 0 || asked > available {
            return Err(RunError::Codebooks { asked, available }.into());
        }
        Ok(asked)
    }

    pub fn encoder(&self, o: &Options) -> Result<Encoder<'_>, Error> {
        Ok(Encoder { model: self, codebooks: self.codebooks(o)?, pending: Vec::new() })
    }

    pub fn decoder(&self, o: &Options) -> Result<Decoder<'_>, Error> {
        self.codebooks(o)?;
        Ok(Decoder { model: self })
    }
}

pub struct Encoder<'a> {
    model: &'a Model,
    codebooks: usize,
    pending: Vec<f32>,
}

impl Encoder<'_> {
    pub fn codebooks(&self) -> usize {
        self.codebooks
    }

    pub fn push(&mut self, pcm: &[f32], out: &mut Codes) -> Result<(), Error> {
        if let Some(index) = pcm.iter().position(|s| !s.is_finite()) {
            return Err(RunError::NotFinite { index }.into());
        }
        out.codebooks = self.codebooks;
        self.pending.extend_from_slice(pcm);
        let frame = (self.model.spec.hop * self.model.spec.channels) as usize;
        let whole = self.pending.len() / frame * frame;
        for frame in self.pending.drain(..whole).as_slice().chunks_exact(frame) {
            let mut rest = frame.iter().sum::<f32>() / frame.len() as f32;
            let mut step = 2.0f32;
            for &size in &self.model.sizes()[..self.codebooks] {
                step /= size as f32;
                let middle = (size - 1) as f32 / 2.0;
                let code = (rest / step + middle).round().clamp(0.0, (size - 1) as f32);
                rest -= (code - middle) * step;
                out.data.push(code as u16);
            }
        }
        Ok(())
    }

    pub fn finish(&mut self, out: &mut Codes) -> Result<(), Error> {
        let frame = (self.model.spec.hop * self.model.spec.channels) as usize;
        let missing = (frame - self.pending.len() % frame) % frame;
        self.push(&vec![0.0; missing], out)
    }

    pub fn reset(&mut self) {
        self.pending.clear();
    }
}

pub struct Decoder<'a> {
    model: &'a Model,
}

impl Decoder<'_> {
    pub fn push(&mut self, codes: &Codes, out: &mut Vec<f32>) -> Result<(), Error> {
        let sizes = self.model.sizes();
        for (f, frame) in codes.data.chunks_exact(codes.codebooks).enumerate() {
            let (mut value, mut step) = (0.0, 2.0f32);
            for (k, (&code, &size)) in frame.iter().zip(&sizes).enumerate() {
                if u32::from(code) >= size {
                    return Err(RunError::CodeOutOfRange { frame: f, codebook: k, code, size }.into());
                }
                step /= size as f32;
                value += (f32::from(code) - (size - 1) as f32 / 2.0) * step;
            }
            out.extend(std::iter::repeat_n(value, (self.model.spec.hop * self.model.spec.channels) as usize));
        }
        Ok(())
    }

    pub fn finish(&mut self, _: &mut Vec<f32>) -> Result<(), Error> {
        Ok(())
    }

    pub fn reset(&mut self) {}
}

pub mod model_file {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Fingerprint(pub [u8; 16]);

    impl std::fmt::Display for Fingerprint {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        }
    }

    #[derive(Clone, Debug, Default)]
    pub struct OwnedTensor(Vec<usize>, Vec<u8>);

    impl OwnedTensor {
        pub fn f32(shape: &[usize], values: &[f32]) -> Self {
            Self(shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
    }

    #[derive(Clone, Debug, Default)]
    pub struct TensorMap(pub BTreeMap<String, OwnedTensor>);

    #[derive(Clone, Debug, Default)]
    pub struct Provenance {
        pub system: Option<String>,
        pub license: Option<String>,
        pub source: Option<String>,
    }

    pub fn write_model(path: &Path, spec: &CodecSpec, tensors: &TensorMap, _: &Provenance) -> Result<(), Error> {
        let text = serde_json::to_string(spec).map_err(|e| Error::Model(e.to_string()))?;
        let metadata = [("codec.format".to_owned(), "1".to_owned()), ("codec.spec".to_owned(), text)].into();
        let views = tensors.0.iter().map(|(name, t)| {
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, t.0.clone(), &t.1);
            (name.clone(), view.unwrap())
        });
        safetensors::serialize_to_file(views, Some(metadata), path).map_err(|e| Error::Model(e.to_string()))
    }
}

pub mod import {
    use super::*;

    #[derive(Clone, Debug, Default)]
    pub struct ImportOptions {
        pub system: Option<String>,
        pub license: Option<String>,
        pub source: Option<String>,
    }

    pub struct Imported {
        pub spec: CodecSpec,
        pub tensors: model_file::TensorMap,
        pub provenance: model_file::Provenance,
    }

    pub fn systems() -> Vec<&'static str> {
        vec![]
    }

    pub fn import(path: impl AsRef<Path>, _: &ImportOptions) -> Result<Imported, Error> {
        let path = path.as_ref().to_owned();
        let source = std::fs::metadata(&path).err().unwrap_or(std::io::ErrorKind::Unsupported.into());
        Err(Error::Io { path, source })
    }
}
