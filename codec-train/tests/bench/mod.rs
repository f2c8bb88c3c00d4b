//! A small model, a recipe that uses everything, and some audio.

// Each test program uses a part.
#![allow(dead_code)]

use std::{fs, path::PathBuf};

use burn::tensor::Device;
use codec_train::{TrainError, device, recipe::Recipe, trainer::Trainer};

/// A codec that trains in moments: 8 kHz, a hop of 8, two codebooks.
pub const SPEC: &str = r#"{
    "version": 1, "name": "tiny", "sample_rate": 8000, "channels": 1, "hop": 8, "latent": 6,
    "framing": {"type": "stream"}, "codebook_choices": [1, 2],
    "encoder": [
        {"type": "conv", "name": "e.in", "input": 1, "output": 8, "kernel": 7, "bias": true,
         "padding": {"mode": "reflect", "left": 6, "right": 0}},
        {"type": "activation", "function": "elu", "alpha": 1.0},
        {"type": "conv", "name": "e.down", "input": 8, "output": 6, "kernel": 16, "stride": 8, "bias": true,
         "padding": {"mode": "zero", "left": 8, "right": 0, "complete": true}},
        {"type": "lstm", "name": "e.lstm", "input": 6, "hidden": 6, "layers": 1, "bidirectional": false, "skip": true}
    ],
    "quantizer": {"type": "residual", "stages": [
        {"type": "vq", "name": "q.0", "size": 16, "dim": 6}, {"type": "vq", "name": "q.1", "size": 16, "dim": 6}]},
    "decoder": [
        {"type": "conv-transpose", "name": "d.up", "input": 6, "output": 8, "kernel": 16, "stride": 8, "bias": true,
         "trim_left": 0, "trim_right": 8},
        {"type": "activation", "function": "snake", "name": "d.snake"},
        {"type": "conv", "name": "d.out", "input": 8, "output": 1, "kernel": 7, "bias": true,
         "padding": {"mode": "zero", "left": 6, "right": 0}}
    ]
}"#;

/// Everything that has a state of its own: weight norm, averages of codebooks and of weights, dropout, restarts, a balancer,
/// discriminators that begin on the way, accumulation, schedules.
pub const RECIPE: &str = r#"
seed = 4
[model]
spec = "tiny.json"
weight_norm = true
[data]
segment = 0.1
batch = 3
gain_db = [-6.0, 3.0]
[quantizer]
decay = 0.9
restart = 0.3
dropout = 0.5
[loss]
waveform_l1 = 0.1
mel = 1.0
mel_scales = [{ window = 64, hop = 16, mels = 8 }, { window = 256, hop = 64, mels = 16 }]
stft = 0.5
stft_scales = [{ n_fft = 128, hop = 30, window = 100 }]
adversarial = 1.0
features = 1.0
balance = true
[[discriminators]]
type = "multi-stft"
windows = [128]
channels = 4
[[discriminators]]
type = "multi-period"
periods = [3]
channels = 2
[[discriminators]]
type = "multi-scale"
scales = 2
channels = 4
[optimizer]
rate = 2e-3
clip = 5.0
warmup = 3
schedule = { type = "cosine", floor = 0.1 }
[discriminator_optimizer]
rate = 1e-3
schedule = { type = "exponential", factor = 0.99 }
[run]
steps = 20
accumulate = 2
discriminator_start = 6
average = 0.9
checkpoint_every = 10
validate_every = 10
validation_items = 2
"#;

/// A recipe with the losses that hear as well, which need items of 120 ms.
pub fn hearing(recipe: String) -> String {
    let heard = recipe.replace("stft = 0.5\n", "stft = 0.5\nloudness = 0.5\nsimilarity = 0.5\n");
    heard.replace("segment = 0.1\n", "segment = 0.125\n")
}

/// A recipe with [`Bench::teacher`]'s.
pub fn taught(recipe: String, forced: bool) -> String {
    let teacher = format!("[teacher]\nmodel = \"teacher.safetensors\"\nscale = 0.5\nforced = {forced}\n[loss]\n");
    recipe.replace("[loss]\n", &teacher)
}

pub struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tiny.json"), SPEC).unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        for file in 0..4 {
            let spec = hound::WavSpec {
                channels: 1,
                sample_rate: 8000,
                bits_per_sample: 16,
                sample_format: hound::SampleFormat::Int,
            };
            let mut writer = hound::WavWriter::create(data.join(format!("{file}.wav")), spec).unwrap();
            for i in 0..8000 {
                let t = i as f32 / 8000.0;
                let v = (t * 700.0 * (file + 1) as f32).sin() * 0.3 + (t * 5000.0 * (1.0 + t)).sin() * 0.2;
                writer.write_sample((v * 32767.0) as i16).unwrap();
            }
            writer.finalize().unwrap();
        }
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn recipe(&self, change: impl Fn(String) -> String) -> Recipe {
        let path = self.path("recipe.toml");
        fs::write(&path, change(RECIPE.to_owned())).unwrap();
        Recipe::load(&path).unwrap()
    }

    /// Writes the model of `tiny.json` with other first values.
    pub fn teacher(&self) {
        let recipe = self.recipe(|r| r.replace("seed = 4", "seed = 5"));
        self.open(&recipe, "teacher").unwrap().export(&self.path("teacher.safetensors")).unwrap();
    }

    pub fn open(&self, recipe: &Recipe, run: &str) -> Result<Trainer, TrainError> {
        self.open_on(&device::cpu(), recipe, run)
    }

    pub fn open_on(&self, device: &Device, recipe: &Recipe, run: &str) -> Result<Trainer, TrainError> {
        Trainer::open(recipe.clone(), &self.path("recipe.toml"), &self.path("data"), &self.path(run), device)
    }
}
