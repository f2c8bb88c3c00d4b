//! Whole runs: train, stop, go on, export, and run the model with the engine.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use codec::{Model, Options};
use codec_train::{
    Store, TrainError, device,
    recipe::Recipe,
    trainer::{Ended, StepReport, Trainer, export},
};

/// A codec that trains in moments: 8 kHz, a hop of 8, two codebooks.
const SPEC: &str = r#"{
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
const RECIPE: &str = r#"
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

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
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

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn recipe(&self, change: impl Fn(String) -> String) -> Recipe {
        let path = self.path("recipe.toml");
        fs::write(&path, change(RECIPE.to_owned())).unwrap();
        Recipe::load(&path).unwrap()
    }

    fn open(&self, recipe: &Recipe, run: &str) -> Result<Trainer, TrainError> {
        Trainer::open(recipe.clone(), &self.path("recipe.toml"), &self.path("data"), &self.path(run), &device::cpu())
    }
}

fn go(trainer: &mut Trainer) -> Vec<StepReport> {
    let mut reports = Vec::new();
    let ended = trainer.run(&AtomicBool::new(false), |r, _| reports.push(r.clone())).unwrap();
    assert_eq!(ended, Ended::Finished);
    reports
}

fn bits(store: &Store) -> Vec<(String, Vec<u32>)> {
    let of = |t: burn::tensor::Tensor<1>| t.try_into_vec_as::<f32>().unwrap().into_iter().map(f32::to_bits).collect();
    store.iter().map(|(name, e)| (name.to_owned(), of(e.value.clone()))).collect()
}

#[test]
fn going_on_is_never_having_stopped() {
    let bench = Bench::new();
    let recipe = bench.recipe(|r| r);
    let mut whole = bench.open(&recipe, "whole").unwrap();
    let reports = go(&mut whole);
    assert_eq!(reports.len(), 20);

    // Stopped from outside after ten steps, then opened again from its folder alone.
    let mut first = bench.open(&recipe, "parts").unwrap();
    let stop = AtomicBool::new(false);
    let ended = first.run(&stop, |r, _| stop.store(r.step == 9, Ordering::Relaxed)).unwrap();
    assert_eq!((ended, first.step()), (Ended::Stopped, 10));
    drop(first);
    let mut second = bench.open(&recipe, "parts").unwrap();
    assert_eq!(second.step(), 10);
    assert_eq!(go(&mut second), reports[10..]);

    assert!(bits(second.weights()) == bits(whole.weights()));
    assert!(bits(second.judges()) == bits(whole.judges()));
    assert!(bits(second.best()) == bits(whole.best()));
    let read = |run: &str, file: &str| fs::read_to_string(bench.path(run).join(file)).unwrap();
    assert_eq!(read("parts", "metrics.jsonl"), read("whole", "metrics.jsonl"));
    assert_eq!(read("parts", "validation.jsonl"), read("whole", "validation.jsonl"));
    let last = "checkpoints/step-000000020.safetensors";
    assert!(fs::read(bench.path("parts").join(last)).unwrap() == fs::read(bench.path("whole").join(last)).unwrap());

    // The judges began at step 6, and everything is in the report.
    assert!(!reports[5].losses.contains_key("adversarial"));
    for name in ["adversarial", "features", "discriminators", "mel", "stft", "waveform_l1", "commitment"] {
        assert!(reports[6].losses.contains_key(name), "{name}");
    }
    assert!(reports.iter().all(|r| r.perplexity.len() == 2 && r.dead.len() == 2));
}

#[test]
fn a_run_becomes_a_model_that_codes() {
    let bench = Bench::new();
    let recipe = bench.recipe(|r| r.replace("steps = 20", "steps = 4"));
    let mut trainer = bench.open(&recipe, "run").unwrap();
    go(&mut trainer);
    let path = bench.path("model.safetensors");
    let fingerprint = export(&bench.path("run"), &path, Some("CC0".into()), None).unwrap();
    let model = Model::load(&path).unwrap();
    model.verify().unwrap();
    assert_eq!((model.fingerprint(), model.provenance().license.as_deref()), (fingerprint, Some("CC0")));
    let pcm: Vec<f32> = (0..1001).map(|i| (i as f32 * 0.2).sin() * 0.3).collect();
    let codes = model.encode(&pcm, &Options::default()).unwrap();
    assert_eq!(codes.codebooks, 2);
    assert_eq!(model.decode(&codes, Some(1001), &Options::default()).unwrap().len(), 1001);
    // The trainer's own view of the same is the same file.
    let other = bench.path("other.safetensors");
    assert_eq!(trainer.export(&other).unwrap(), fingerprint);
}

/// Without discriminators, a hundred steps lower the loss, whatever the quantizer's rules and without a balancer too.
#[test]
fn losses_fall() {
    let bench = Bench::new();
    let start = RECIPE.find("adversarial = 1.0").unwrap();
    let end = RECIPE.find("[optimizer]").unwrap();
    for (learning, balance) in [("ema", true), ("gradient", false)] {
        let recipe = bench.recipe(|r| {
            let quiet = format!("{}balance = {balance}\n{}", &r[..start], &r[end..]);
            let quiet = quiet.replace("steps = 20", "steps = 100").replace("accumulate = 2", "accumulate = 1");
            quiet.replace("decay = 0.9", &format!("decay = 0.9\nlearning = \"{learning}\""))
        });
        let mut trainer = bench.open(&recipe, learning).unwrap();
        let reports = go(&mut trainer);
        let mean = |r: &[StepReport]| r.iter().map(|r| r.losses["mel"]).sum::<f64>() / r.len() as f64;
        let (first, last) = (mean(&reports[..5]), mean(&reports[95..]));
        assert!(last < 0.8 * first, "{learning}: mel loss from {first} to {last}");
    }
}

#[test]
fn fine_tuning_goes_on_from_a_model_file() {
    let bench = Bench::new();
    let recipe = bench.recipe(|r| r.replace("steps = 20", "steps = 2"));
    let mut trainer = bench.open(&recipe, "run").unwrap();
    go(&mut trainer);
    trainer.export(&bench.path("model.safetensors")).unwrap();
    let tuned = bench.recipe(|r| {
        r.replace("spec = \"tiny.json\"", "model = \"model.safetensors\"").replace("steps = 20", "steps = 1")
    });
    let trainer = bench.open(&tuned, "tuned").unwrap();
    // Nothing has changed before the first step: no k-means, and weight norm changes nothing.
    let fingerprint = trainer.export(&bench.path("again.safetensors")).unwrap();
    assert_eq!(fingerprint, Model::load(bench.path("model.safetensors")).unwrap().fingerprint());
    go(&mut bench.open(&tuned, "tuned").unwrap());
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_says_where() {
    let bench = Bench::new();
    let recipe = bench.recipe(|r| {
        r.replace("rate = 2e-3", "rate = 1e30")
            .replace("clip = 5.0", "clip = 0.0")
            .replace("checkpoint_every = 10", "checkpoint_every = 1")
    });
    let mut trainer = bench.open(&recipe, "run").unwrap();
    let error = trainer.run(&AtomicBool::new(false), |_, _| {}).unwrap_err();
    let TrainError::NotFinite { step, files, checkpoint, .. } = &error else { panic!("{error}") };
    assert!(*step >= 1 && files.len() == 6, "{error}");
    let checkpoint = checkpoint.as_ref().expect("one was written after each step");
    assert!(checkpoint.exists() && error.to_string().contains(".wav"));
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_old_one() {
    let bench = Bench::new();
    let recipe =
        bench.recipe(|r| r.replace("steps = 20", "steps = 2").replace("checkpoint_every = 10", "checkpoint_every = 1"));
    let mut trainer = bench.open(&recipe, "run").unwrap();
    go(&mut trainer);
    let checkpoints = bench.path("run/checkpoints");
    let before = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let names = before(&checkpoints);
    // In the place of the next checkpoint there is a folder with something in it, so that the last step of writing fails.
    let taken = checkpoints.join("step-000000002.safetensors");
    let kept = bench.path("kept");
    fs::rename(&taken, &kept).unwrap();
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("in the way"), "").unwrap();
    assert!(matches!(trainer.write_checkpoint().unwrap_err(), TrainError::Io { .. }));
    // Nothing half written stays behind.
    assert_eq!(before(&checkpoints), names);
    fs::remove_dir_all(&taken).unwrap();
    assert_eq!(bench.open(&recipe, "run").unwrap().step(), 1);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let bench = Bench::new();
    let recipe = bench.recipe(|r| r.replace("steps = 20", "steps = 1"));
    go(&mut bench.open(&recipe, "run").unwrap());
    // Another model in the same folder.
    let other = SPEC.replace("\"size\": 16", "\"size\": 32");
    fs::write(bench.path("tiny.json"), other).unwrap();
    let error = bench.open(&recipe, "run").err().expect("another model").to_string();
    assert!(error.contains("another folder"), "{error}");
    fs::write(bench.path("tiny.json"), SPEC).unwrap();
    // Damage.
    let last = bench.path("run/checkpoints/step-000000001.safetensors");
    let bytes = fs::read(&last).unwrap();
    for keep in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&last, &bytes[..keep]).unwrap();
        let error = bench.open(&recipe, "run").err().expect("a damaged checkpoint");
        assert!(matches!(error, TrainError::Checkpoint { .. }), "{error}");
    }
    // Too short for a loss, and a spec that a codec cannot be.
    let short = bench.recipe(|r| r.replace("segment = 0.1", "segment = 0.01"));
    assert!(bench.open(&short, "short").err().expect("short").to_string().contains("data.segment"));
    fs::write(bench.path("tiny.json"), SPEC.replace("\"stride\": 8", "\"stride\": 4")).unwrap();
    assert!(matches!(bench.open(&recipe, "bad").err().expect("a hop that is none"), TrainError::Codec(_)));
}

#[test]
fn the_program() {
    let bench = Bench::new();
    bench.recipe(|r| r.replace("steps = 20", "steps = 2"));
    let run = bench.path("run");
    let program = || assert_cmd::Command::cargo_bin("codec-train").unwrap();
    let train = || {
        let mut c = program();
        c.arg("train").arg(bench.path("recipe.toml")).arg("--data").arg(bench.path("data")).arg("--out").arg(&run);
        c
    };
    train().assert().success();
    // Nothing is left to do, and that is no failure.
    train().assert().success();
    let model = bench.path("model.safetensors");
    program().arg("export").arg(&run).arg("-o").arg(&model).assert().success();
    program().arg("export").arg(&run).arg("-o").arg(&model).assert().code(2);
    assert!(Model::load(&model).is_ok());
    train().arg("--device").arg("nowhere").assert().code(1);
    fs::write(bench.path("recipe.toml"), "[model]\nsystm = \"a\"\n").unwrap();
    let output = train().assert().code(1).get_output().stderr.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(text.contains("line 2") && text.contains("systm"), "{text}");
}
