//! Small models with every way to get a signal: in pieces, in segments, whole.

use std::path::Path;

use codec::{
    core::spec::CodecSpec,
    model_file::{OwnedTensor, Provenance, TensorMap, write_model},
};
use serde_json::{Value, json};

/// Names of the models.
pub const MODELS: [&str; 7] = ["stream", "segments", "whole", "windows", "noise", "rates", "encoder-only"];

/// Audio channels of the model of this name.
pub fn channels(name: &str) -> u16 {
    if name == "segments" { 2 } else { 1 }
}

fn conv(name: &str, (input, output): (u32, u32), kernel: u32, stride: u32, mode: &str) -> Value {
    json!({"type": "conv", "name": name, "input": input, "output": output, "kernel": kernel, "stride": stride, "bias": true,
        "padding": {"mode": mode, "left": kernel - stride, "right": 0, "complete": true}})
}

fn up(name: &str, (input, output): (u32, u32), stride: u32) -> Value {
    json!({"type": "conv-transpose", "name": name, "input": input, "output": output, "kernel": 2 * stride,
        "stride": stride, "bias": true, "trim_left": 0, "trim_right": stride})
}

/// A network of the kind that the published systems have, with a hop of 40 samples.
fn spec(name: &str) -> CodecSpec {
    let channels = u32::from(channels(name));
    let elu = json!({"type": "activation", "function": "elu", "alpha": 1.0});
    let residual =
        |name: &str, width| json!({"type": "residual", "body": [elu, conv(name, (width, width), 3, 1, "reflect")]});
    let book =
        |name: &str, size: u32| json!({"type": "vq", "name": name, "size": size, "dim": 6, "metric": "euclidean"});
    let mut middle = json!({"type": "lstm", "name": "e-lstm", "input": 6, "hidden": 6, "layers": 1, "bidirectional": false, "skip": true});
    if name == "whole" {
        middle = json!({"type": "group-norm", "name": "e-norm", "channels": 6, "groups": 1, "epsilon": 1e-5});
    }
    let framing = match name {
        "segments" => json!({"type": "segments", "length": 2000, "stride": 1800, "normalize": true}),
        // As the S3 tokenizer of CosyVoice 2.
        "windows" => json!({"type": "windows", "length": 2000, "stride": 1600}),
        _ => json!({"type": "stream"}),
    };
    let mut spec = json!({
        "version": 1, "name": name, "sample_rate": 8000, "channels": channels, "hop": 40, "latent": 6,
        "framing": framing, "codebook_choices": [1, 3],
        "encoder": [
            conv("e0", (channels, 8), 7, 1, "reflect"), residual("e1", 8), elu,
            conv("e2", (8, 12), 10, 5, "reflect"), elu, conv("e3", (12, 6), 16, 8, "reflect"), middle,
        ],
        "quantizer": {"type": "residual", "stages": [book("q0", 64), book("q1", 64), book("q2", 17)]},
        "decoder": [
            conv("d0", (6, 12), 3, 1, "zero"), elu, up("d1", (12, 8), 8), residual("d2", 8), elu, up("d3", (8, 8), 5), elu,
            conv("d4", (8, channels), 7, 1, "reflect"),
        ],
    });
    if name == "noise" {
        // As SNAC's decoder.
        spec["decoder"]
            .as_array_mut()
            .unwrap()
            .insert(3, json!({"type": "noise", "name": "d-noise", "channels": 8, "index": 0}));
    }
    if name == "rates" {
        // As SNAC's codebooks: 1, 2 and 4 codes of them in a frame.
        let rated = |name, size, stride: u32| json!({"type": "rated", "stride": stride, "inner": book(name, size)});
        spec["hop"] = json!(160);
        spec["codebook_choices"] = json!([1, 3, 7]);
        spec["quantizer"]["stages"] = json!([rated("q0", 64, 4), rated("q1", 64, 2), rated("q2", 17, 1)]);
    }
    if name == "encoder-only" {
        spec["decoder"] = Value::Null;
    }
    serde_json::from_value(spec).unwrap()
}

/// Writes the model of this name.
pub fn write(name: &str, path: &Path) {
    let spec = spec(name);
    let mut tensors = TensorMap::default();
    let mut state = 1u64;
    for wanted in spec.tensors() {
        let len: usize = wanted.shape.iter().product();
        // Outputs of about the size of the inputs.
        let fan = if wanted.shape.len() > 1 { wanted.shape[1..].iter().product::<usize>() } else { 16 };
        let scale = if wanted.name.contains("codebook") { 1.0 } else { (3.0 / fan as f32).sqrt() };
        let values: Vec<f32> = (0..len)
            .map(|_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
            })
            .collect();
        tensors.0.insert(wanted.name, OwnedTensor::f32(&wanted.shape, &values));
    }
    write_model(path, &spec, &tensors, &Provenance::default()).unwrap();
}

/// A signal with some of everything, interleaved.
pub fn signal(samples: usize, channels: usize) -> Vec<f32> {
    let mut state = 7u32;
    (0..samples * channels)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            let t = (i / channels) as f32 / 8000.0;
            0.4 * (t * 2765.0).sin() + 0.2 * (t * t * 900.0).sin() + 0.1 * noise
        })
        .collect()
}
