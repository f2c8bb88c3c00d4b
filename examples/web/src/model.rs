//! A model from the bytes of its file (`docs/model-file.md`).

use codec_core::{
    pipeline::{Decoder, Encoder},
    quantizer::Quantizer,
    spec::{CodecSpec, Framing, SPEC_VERSION},
    weights::{Dtype, TensorView, Tensors},
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// A codec that is ready to run.
pub struct Model {
    pub spec: CodecSpec,
    pub fingerprint: [u8; 16],
    pub license: Option<String>,
    /// `Err` says why there is none.
    pub encoder: Result<Encoder, String>,
    pub decoder: Result<Decoder, String>,
}

/// The tensors of a file, in place.
struct File<'a>(Vec<(String, Dtype, Vec<usize>, &'a [u8])>);

impl Tensors for File<'_> {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let (_, dtype, shape, bytes) = self.0.iter().find(|tensor| tensor.0 == name)?;
        Some(TensorView { dtype: *dtype, shape, bytes })
    }
}

impl Model {
    /// Reads a model file and packs its weights.
    pub fn load(bytes: &[u8]) -> Result<Self, String> {
        let invalid = |e| format!("this is no model file: {e}");
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
            return Err(format!("{} cuts signals into segments, which this page does not do", spec.name));
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
        let encoder = Encoder::new(&spec, &file).map_err(|e| e.to_string());
        let decoder = Decoder::new(&spec, &file).map_err(|e| e.to_string());
        if let (Err(e), Err(_)) = (&encoder, &decoder) {
            return Err(e.clone());
        }
        Ok(Self { spec, fingerprint, license: text("codec.license"), encoder, decoder })
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
        f64::from(self.spec.sample_rate) / f64::from(self.spec.hop)
    }

    /// What a page shows of the model.
    pub fn info(&self) -> Result<Value, String> {
        let quantizer = self.quantizer()?;
        let choices: Vec<usize> = if self.spec.codebook_choices.is_empty() {
            (1..=quantizer.codebooks()).filter(|&n| quantizer.check_codebooks(0, n).is_ok()).collect()
        } else {
            self.spec.codebook_choices.iter().map(|&n| n as usize).collect()
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
        let encoder = self.encoder.as_ref().ok().map(|e| part(e.chain(), f64::from(self.spec.sample_rate)));
        let decoder = self.decoder.as_ref().ok().filter(|_| quantizer.can_decode());
        Ok(json!({
            "name": self.spec.name,
            "sample_rate": self.spec.sample_rate,
            "channels": self.spec.channels,
            "hop": self.spec.hop,
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
