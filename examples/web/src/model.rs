//! A model from its deploy image (`docs/image.md`).

use std::sync::Arc;

use codec_core::{
    image::{self, Cut, Image, SharedBytes},
    pipeline::{Decoder, Encoder},
    quantizer::Quantizer,
};
use serde_json::{Value, json};

/// A codec that is ready to run.
pub struct Model {
    pub name: String,
    pub sample_rate: u32,
    pub channels: u32,
    pub hop: u32,
    pub fingerprint: [u8; 16],
    codebook_choices: Vec<usize>,
    license: Option<String>,
    /// `Err` says why there is none.
    pub encoder: Result<Encoder, String>,
    pub decoder: Result<Decoder, String>,
}

impl Model {
    /// Opens an image; it runs where it lies.
    pub fn open(bytes: Vec<u8>) -> Result<Self, String> {
        if !bytes.starts_with(b"CODECIMG") {
            return Err("this is no deploy image: make one with `codec pack MODEL -o image.bin`".into());
        }
        let owner: SharedBytes = Arc::new(bytes);
        let image = Image::open((*owner).as_ref()).map_err(|e| e.to_string())?;
        let meta = *image.meta();
        if meta.cut != Cut::Stream {
            return Err("the model cuts signals into segments or windows, which this page does not do".into());
        }
        let about: Value = image.spec_json().and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
        let choices = about["spec"]["codebook_choices"].as_array().into_iter().flatten();
        let choices = choices.filter_map(|n| n.as_u64()?.try_into().ok()).collect();
        let (encoder, decoder) = image::load(&owner).map_err(|e| e.to_string())?;
        let none = |what| format!("the image has no {what}: pack the model with it");
        if encoder.is_none() && decoder.is_none() {
            return Err(none("network"));
        }
        Ok(Self {
            name: about["spec"]["name"].as_str().unwrap_or("unnamed model").to_owned(),
            sample_rate: meta.sample_rate,
            channels: meta.channels,
            hop: meta.hop,
            fingerprint: meta.fingerprint,
            codebook_choices: choices,
            license: about["license"].as_str().map(str::to_owned),
            encoder: encoder.ok_or_else(|| none("encoder")),
            decoder: decoder.ok_or_else(|| none("decoder")),
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
        let all: Vec<usize> = (1..=quantizer.codebooks()).collect();
        let choices = if self.codebook_choices.is_empty() { &all } else { &self.codebook_choices };
        let choices = choices.iter().filter(|n| quantizer.check_codebooks(0, **n).is_ok());
        let kbps = |n: usize| f64::from(quantizer.bits_per_frame(n)) * self.frame_rate() / 1000.0;
        let bitrates: Vec<Value> = choices.map(|&n| json!({"codebooks": n, "kbps": kbps(n)})).collect();
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
