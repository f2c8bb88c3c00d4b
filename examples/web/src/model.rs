//! A model from the bytes of its file (`docs/model-file.md`) or of its deploy image (`docs/image.md`).

use std::sync::Arc;

use codec_core::{
    image::{self, Image, SharedBytes},
    pipeline::{Decoder, Encoder},
    quantizer::Quantizer,
    spec::{CodecSpec, Framing, SPEC_VERSION},
    weights::{Dtype, TensorView, Tensors},
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// A codec that is ready to run.
pub struct Model {
    pub name: String,
    pub sample_rate: u32,
    pub channels: u32,
    pub hop: u32,
    pub fingerprint: [u8; 16],
    codebook_choices: Vec<u32>,
    license: Option<String>,
    /// `Err` says why there is none.
    pub encoder: Result<Encoder, String>,
    pub decoder: Result<Decoder, String>,
}

const SEGMENTS: &str = "the model cuts signals into segments, which this page does not do";

/// The tensors of a file, in place.
struct File<'a>(Vec<(String, Dtype, Vec<usize>, &'a [u8])>);

impl Tensors for File<'_> {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (_, dtype, shape, bytes) = self.0.iter().find(|tensor| tensor.0 == name)?;
        Some(TensorView { dtype: *dtype, shape, bytes })
    }
}

impl Model {
    /// Reads a model: an image, which runs where it lies, or a model file, whose weights are packed.
    pub fn load(bytes: Vec<u8>) -> Result<Self, String> {
        let model = if bytes.starts_with(b"CODECIMG") { Self::image(bytes)? } else { Self::file(&bytes)? };
        if let (Err(e), Err(_)) = (&model.encoder, &model.decoder) {
            return Err(e.clone());
        }
        Ok(model)
    }

    fn image(bytes: Vec<u8>) -> Result<Self, String> {
        let owner: SharedBytes = Arc::new(bytes);
        let image = Image::open((*owner).as_ref()).map_err(|e| e.to_string())?;
        let meta = *image.meta();
        if meta.segments.is_some() {
            return Err(SEGMENTS.into());
        }
        let spec: Value = image.spec_json().and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
        let choices = spec["codebook_choices"].as_array().into_iter().flatten();
        let (encoder, decoder) = image::load(&owner).map_err(|e| e.to_string())?;
        Ok(Self {
            name: spec["name"].as_str().unwrap_or("unnamed").to_owned(),
            sample_rate: meta.sample_rate,
            channels: meta.channels,
            hop: meta.hop,
            fingerprint: meta.fingerprint,
            codebook_choices: choices.filter_map(|n| n.as_u64()?.try_into().ok()).collect(),
            license: None,
            encoder: encoder.ok_or_else(|| "the image has no encoder".to_owned()),
            decoder: decoder.ok_or_else(|| "the image has no decoder".to_owned()),
        })
    }

    fn file(bytes: &[u8]) -> Result<Self, String> {
        let invalid = |e| format!("this is no model: {e}");
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
        let text = |key: &str| metadata.metadata().as_ref()?.get(key).cloned();
        let need = |key| text(key).ok_or_else(|| format!("no `{key}` in the metadata: import the checkpoint first"));
        let format = need("codec.format")?;
        if format != "1" {
            return Err(format!("a model file of format {format}; this page reads format 1"));
        }
        let spec = need("codec.spec")?;
        let wrong = |e| format!("`codec.spec` is not valid: {e}");
        let outline: Value = serde_json::from_str(&spec).map_err(wrong)?;
        if let Some(version) = outline["version"].as_u64().filter(|v| *v > u64::from(SPEC_VERSION)) {
            return Err(format!("a spec of version {version}; this page reads up to {SPEC_VERSION}"));
        }
        let spec: CodecSpec = serde_json::from_str(&spec).map_err(wrong)?;
        if let Framing::Segments { .. } = spec.framing {
            return Err(SEGMENTS.into());
        }
        if spec.sample_rate == 0 || spec.channels == 0 || spec.hop == 0 {
            return Err("a spec without a rate, channels or a hop".into());
        }
        let fingerprint = fingerprint(&need("codec.fingerprint")?).ok_or("`codec.fingerprint` is not valid")?;
        let file = SafeTensors::deserialize(bytes).map_err(invalid)?;
        let mut tensors = Vec::new();
        for (name, view) in file.iter() {
            let dtype = match view.dtype() {
                safetensors::Dtype::F32 => Dtype::F32,
                safetensors::Dtype::F16 => Dtype::F16,
                safetensors::Dtype::BF16 => Dtype::Bf16,
                safetensors::Dtype::I8 => Dtype::I8,
                safetensors::Dtype::I32 => Dtype::I32,
                other => return Err(format!("tensor `{name}` is of type {other:?}, which models do not have")),
            };
            tensors.push((name.to_owned(), dtype, view.shape().to_vec(), view.data()));
        }
        let file = File(tensors);
        Ok(Self {
            encoder: Encoder::new(&spec, &file).map_err(|e| e.to_string()),
            decoder: Decoder::new(&spec, &file).map_err(|e| e.to_string()),
            name: spec.name,
            sample_rate: spec.sample_rate,
            channels: spec.channels,
            hop: spec.hop,
            fingerprint,
            codebook_choices: spec.codebook_choices,
            license: text("codec.license"),
        })
    }

    /// The quantizer of whichever of encoder and decoder is there.
    pub fn quantizer(&self) -> Result<&Quantizer, String> {
        match (&self.decoder, &self.encoder) {
            (Ok(decoder), _) => Ok(decoder.quantizer()),
            (_, Ok(encoder)) => Ok(encoder.quantizer()),
            (Err(e), _) => Err(e.clone()),
        }
    }

    /// Frames a second.
    pub fn frame_rate(&self) -> f64 {
        f64::from(self.sample_rate) / f64::from(self.hop)
    }

    /// What a page shows of the model.
    pub fn info(&self) -> Result<Value, String> {
        let quantizer = self.quantizer()?;
        let choices: Vec<usize> = if self.codebook_choices.is_empty() {
            (1..=quantizer.codebooks()).filter(|&n| quantizer.check_codebooks(0, n).is_ok()).collect()
        } else {
            self.codebook_choices.iter().map(|&n| n as usize).collect()
        };
        let kbps = |n: usize| f64::from(quantizer.bits_per_frame(n)) * self.frame_rate() / 1000.0;
        let bitrates: Vec<Value> = choices.iter().map(|&n| json!({"codebooks": n, "kbps": kbps(n)})).collect();
        let part = |chain: &codec_core::pipeline::Chain, rows_a_second: f64| {
            let plan = chain.plan();
            json!({
                "mmac_per_second": plan.macs_per_row * rows_a_second / 1e6,
                "parameters": plan.parameters,
                "whole": plan.whole,
            })
        };
        let latent_rate = self.frame_rate() * quantizer.rows_per_frame() as f64;
        let encoder = self.encoder.as_ref().ok().map(|e| part(e.chain(), f64::from(self.sample_rate)));
        let decoder = self.decoder.as_ref().ok().filter(|_| quantizer.can_decode());
        Ok(json!({
            "name": self.name,
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "hop": self.hop,
            "frame_rate": self.frame_rate(),
            "codebook_sizes": quantizer.sizes(),
            "bitrates": bitrates,
            "fingerprint": hex(&self.fingerprint),
            "license": self.license,
            "encoder": encoder,
            "decoder": decoder.map(|d| part(d.chain(), latent_rate)),
        }))
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fingerprint(text: &str) -> Option<[u8; 16]> {
    let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    digits.then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)).flatten()
}
