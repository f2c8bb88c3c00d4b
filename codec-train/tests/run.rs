//! Whole runs: train, stop, go on, export, and run the model with the engine.

mod bench;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use bench::{Bench, RECIPE, SPEC, hearing, taught};

use codec::{
    Model, Options,
    core::weights::Dtype,
    model_file::{ModelFile, Provenance},
};
use codec_train::{
    Store, TrainError,
    trainer::{Ended, StepReport, Trainer, export},
};

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
    bench.teacher();
    let recipe = bench.recipe(|r| taught(hearing(r), false));
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
    let provenance = Provenance { license: Some("CC0".into()), ..Provenance::default() };
    let fingerprint = export(&bench.path("run"), &path, Dtype::F32, &provenance).unwrap();
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

/// The encoder comes nearer to the teacher's latents. Where quantizer and decoder get these too, codebooks are found among them, and no
/// loss of the decoded signal moves the encoder.
#[test]
fn a_teacher_s_latents_are_learned() {
    let bench = Bench::new();
    bench.teacher();
    let quiet = |r: &str, waveform: f32| {
        let (start, end) = (r.find("mel = 1.0").unwrap(), r.find("[optimizer]").unwrap());
        let r = format!("{}mel = 0.0\ncommitment = 1.0\n{}", &r[..start], &r[end..]);
        let r = r.replace("waveform_l1 = 0.1", &format!("waveform_l1 = {waveform}"));
        // What encoder and decoder would share.
        r.replace("steps = 20", "steps = 60").replace("clip = 5.0", "")
    };
    let run = |name: &str, forced: bool, waveform: f32| {
        let recipe = bench.recipe(|r| taught(quiet(&r, waveform), forced));
        let mut trainer = bench.open(&recipe, name).unwrap();
        let reports = go(&mut trainer);
        let mean = |name: &str, r: &[StepReport]| r.iter().map(|r| r.losses[name]).sum::<f64>() / r.len() as f64;
        for loss in ["teacher", "waveform_l1"] {
            let (first, last) = (mean(loss, &reports[..5]), mean(loss, &reports[55..]));
            assert!(last < 0.9 * first, "{name}: {loss} from {first} to {last}");
        }
        trainer
    };
    let encoder = |trainer: &Trainer| {
        bits(trainer.weights()).into_iter().filter(|(name, _)| name.starts_with("e.")).collect::<Vec<_>>()
    };
    assert!(encoder(&run("free", false, 1.0)) != encoder(&run("other free", false, 3.0)));
    let forced = run("forced", true, 1.0);
    assert!(encoder(&forced) == encoder(&run("other forced", true, 3.0)));

    let recipe = bench.recipe(|r| taught(quiet(&r, 1.0), true));
    let mut parts = bench.open(&recipe, "parts").unwrap();
    let stop = AtomicBool::new(false);
    parts.run(&stop, |r, _| stop.store(r.step == 9, Ordering::Relaxed)).unwrap();
    let mut parts = bench.open(&recipe, "parts").unwrap();
    go(&mut parts);
    assert!(bits(parts.weights()) == bits(forced.weights()));

    // Codebooks start among the teacher's latents, whose scale is theirs.
    let first = |scale: &str| {
        let recipe = bench
            .recipe(|r| taught(quiet(&r, 1.0), true).replace("scale = 0.5", scale).replace("steps = 60", "steps = 1"));
        go(&mut bench.open(&recipe, scale).unwrap())[0].losses["commitment"]
    };
    let (half, whole) = (first("scale = 0.5"), first("scale = 1.0"));
    assert!((whole / half - 4.0).abs() < 1e-3, "{half} and {whole}");
}

#[test]
fn a_teacher_of_another_shape_is_refused() {
    let bench = Bench::new();
    bench.teacher();
    fs::write(bench.path("tiny.json"), SPEC.replace("\"hop\": 8", "\"hop\": 16")).unwrap();
    let recipe = bench.recipe(|r| taught(r, true));
    let error = bench.open(&recipe, "run").err().unwrap().to_string();
    assert!(error.contains("`teacher.model`, tiny, has a hop of 8, and the model one of 16"), "{error}");
    let unlike = SPEC.replace("\"left\": 8, \"right\": 0, \"complete\": true", "\"left\": 0, \"right\": 0");
    fs::write(bench.path("tiny.json"), unlike).unwrap();
    let mut trainer = bench.open(&bench.recipe(|r| taught(r, false)), "rows").unwrap();
    let error = trainer.run(&AtomicBool::new(false), |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("makes 100 rows of latents of an item, and the model 99"), "{error}");
    let missing = bench.recipe(|r| taught(r, true).replace("teacher.safetensors", "nobody.safetensors"));
    let error = bench.open(&missing, "run").err().unwrap().to_string();
    assert!(error.contains("nobody.safetensors"), "{error}");
}

/// Products in half precision, with accumulation, a balancer and discriminators, train as those in single precision do.
#[test]
fn half_precision_trains_as_single_precision_does() {
    let bench = Bench::new();
    bench.teacher();
    let run = |precision: &str| {
        let recipe = bench
            .recipe(|r| taught(r, false).replace("steps = 20", &format!("steps = 20\nprecision = \"{precision}\"")));
        go(&mut bench.open(&recipe, precision).unwrap())
    };
    let single = run("f32");
    assert_eq!(single[0].loss_scale, None);
    for (precision, loss_scale) in [("f16", Some(65_536.0)), ("bf16", None)] {
        let reports = run(precision);
        assert_eq!(reports[0].loss_scale, loss_scale);
        assert_ne!(reports[0].losses, single[0].losses, "{precision} rounds nothing");
        let applied = reports.iter().filter(|r| r.gradient_norms.contains_key("codec")).count();
        assert!(applied >= if loss_scale.is_some() { 12 } else { 20 }, "{precision}: {applied} steps of 20");
        let near = |name: &str, half: f64, single: f64, part: f64| {
            assert!((half / single - 1.0).abs() < part, "{precision} {name}: {half} for {single}");
        };
        // Until the discriminators begin, which soon go their own way.
        for (half, single) in reports.iter().zip(&single).take(6) {
            for name in ["mel", "stft", "waveform_l1"] {
                near(name, half.losses[name], single.losses[name], 0.05);
            }
        }
        // The teacher's latents are single in any precision, so that the codec's are all that differs.
        near("teacher", reports[0].losses["teacher"], single[0].losses["teacher"], 0.02);
        // Unscaled, and accumulated: as long as in single precision.
        near("gradient", reports[1].gradient_norms["codec"], single[1].gradient_norms["codec"], 0.05);
    }
}

/// Gradients that overflow: weights stay, the scale falls until it fits, and all of that is in a checkpoint.
#[test]
fn an_overflow_halves_the_scale_and_leaves_weights() {
    let bench = Bench::new();
    let recipe = |precision: &str| {
        bench.recipe(|r| {
            let r = r.replace("balance = true", "balance = false").replace("mel = 1.0", "mel = 1e3");
            r.replace("steps = 20", &format!("steps = 20\nprecision = \"{precision}\""))
        })
    };
    let whole = go(&mut bench.open(&recipe("f16"), "whole").unwrap());
    let applied = |r: &StepReport| r.gradient_norms.contains_key("codec");
    let first = whole.iter().position(applied).expect("the scale comes down to what fits");
    assert!(first > 2, "nothing overflowed");
    for (i, report) in whole[..=first].iter().enumerate() {
        assert_eq!(report.loss_scale, Some(65_536.0 / f64::from(1_u32 << i)));
    }
    let stopped = |run: &str, precision: &str, at: u64| {
        let mut trainer = bench.open(&recipe(precision), run).unwrap();
        let stop = AtomicBool::new(false);
        trainer.run(&stop, |r, _| stop.store(r.step + 1 == at, Ordering::Relaxed)).unwrap();
        trainer
    };
    let start = bits(bench.open(&recipe("f16"), "none").unwrap().weights());
    let trained = |all: Vec<(String, Vec<u32>)>| -> Vec<_> {
        all.into_iter().filter(|(name, _)| !name.starts_with("q.")).collect()
    };
    let parts = stopped("parts", "f16", 2);
    assert!(trained(bits(parts.weights())) == trained(start), "weights moved by gradients that are no numbers");
    drop(parts);
    assert_eq!(go(&mut bench.open(&recipe("f16"), "parts").unwrap()), whole[2..]);

    // The same run in another precision, and back: no scale, then the first one again.
    drop(stopped("mixed", "f16", 2));
    let mut reports = Vec::new();
    for (precision, at) in [("f32", 4), ("f16", 5)] {
        let mut trainer = bench.open(&recipe(precision), "mixed").unwrap();
        let stop = AtomicBool::new(false);
        let note = |r: &StepReport, _| {
            reports.push(r.clone());
            stop.store(r.step + 1 == at, Ordering::Relaxed);
        };
        trainer.run(&stop, note).unwrap();
    }
    let scales: Vec<_> = reports.iter().map(|r| r.loss_scale).collect();
    assert_eq!(scales, [None, None, Some(65_536.0)]);
    assert!(reports[..2].iter().all(applied));
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
    let error = trainer.write_checkpoint().unwrap_err();
    assert!(
        matches!(&error, TrainError::Checkpoint { reason, .. } if reason.contains("step-000000001.safetensors stands")),
        "{error}"
    );
    // Nothing half written stays behind.
    assert_eq!(before(&checkpoints), names);
    fs::remove_dir_all(&taken).unwrap();
    assert_eq!(bench.open(&recipe, "run").unwrap().step(), 1);
}

/// A disk that is full in the middle of a checkpoint, by a limit on the size of files that the program may write.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_checkpoint_before() {
    let bench = Bench::new();
    let run = bench.path("run");
    let train = |steps: usize, blocks: &str| {
        bench.recipe(|r| {
            let r = r
                .replace("steps = 20", &format!("steps = {steps}"))
                .replace("validate_every = 10", "validate_every = 0");
            r.replace("checkpoint_every = 10", "checkpoint_every = 1")
        });
        let mut shell = assert_cmd::Command::new("bash");
        // The signal of such a limit would end the program; a full disk sends none.
        shell.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""));
        shell.arg(assert_cmd::cargo::cargo_bin("codec-train")).arg("train").arg(bench.path("recipe.toml"));
        shell.arg("--data").arg(bench.path("data")).arg("--out").arg(&run).arg("--quiet").assert()
    };
    train(1, "unlimited").success();
    let first = run.join("checkpoints/step-000000001.safetensors");
    let before = fs::read(&first).unwrap();
    // Blocks of 1024 bytes.
    assert!(before.len() > 16 * 1024);
    let output = train(3, "8").code(1).get_output().stderr.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(text.contains("step-000000002") && text.contains("step-000000001.safetensors stands"), "{text}");
    assert_eq!(fs::read_dir(run.join("checkpoints")).unwrap().count(), 1, "nothing half written stays behind");
    assert!(fs::read(&first).unwrap() == before);
    train(3, "unlimited").success();
    assert!(run.join("checkpoints/step-000000003.safetensors").exists());
}

/// Batches of one item have too few rows for the codebooks; k-means looks at as many batches as it needs.
#[test]
fn a_start_by_kmeans_uses_all_entries() {
    let bench = Bench::new();
    let spec = SPEC.replace("\"size\": 16", "\"size\": 128");
    fs::write(bench.path("tiny.json"), spec).unwrap();
    let used = |batches: u64, run: &str| {
        let recipe = bench.recipe(|r| {
            // The step changes next to nothing.
            let r = r
                .replace("batch = 3", "batch = 1")
                .replace("steps = 20", "steps = 1")
                .replace("rate = ", "rate = 1e-9 # ");
            let r = r.replace("decay = 0.9\n", &format!("decay = 0.9999\nkmeans_batches = {batches}\n"));
            r.replace("restart = 0.3", "restart = 0.0").replace("average = 0.9\n", "")
        });
        let mut trainer = bench.open(&recipe, run).unwrap();
        go(&mut trainer);
        let path = bench.path("model.safetensors");
        trainer.export(&path).unwrap();
        let model = Model::load(&path).unwrap();
        let mut used = [[false; 128]; 2];
        for file in 0..4 {
            let mut reader = hound::WavReader::open(bench.path(&format!("data/{file}.wav"))).unwrap();
            let pcm: Vec<f32> = reader.samples::<i16>().map(|v| f32::from(v.unwrap()) / 32768.0).collect();
            let codes = model.encode(&pcm, &Options::default()).unwrap();
            for frame in codes.data.chunks(2) {
                frame.iter().zip(&mut used).for_each(|(code, book)| book[usize::from(*code)] = true);
            }
        }
        used.map(|book| book.iter().filter(|u| **u).count())
    };
    let (one, enough) = (used(1, "one"), used(0, "enough"));
    assert!(enough.iter().all(|n| *n >= 120), "{enough:?} of 128 entries are used");
    assert!(one[0] + one[1] < enough[0] + enough[1], "{one:?} with one batch, {enough:?}");
    assert_eq!(used(0, "again"), enough);
}

/// What is left out is counted, and what is wrong is said before anything is computed.
#[test]
fn the_program_says_what_is_wrong() {
    let bench = Bench::new();
    bench.recipe(|r| r.replace("steps = 20", "steps = 1"));
    let train = |extra: &[&str], data: &str| {
        let mut program = assert_cmd::Command::cargo_bin("codec-train").unwrap();
        program.arg("train").arg(bench.path("recipe.toml")).arg("--data").arg(bench.path(data)).arg("--out");
        program.arg(bench.path("run")).args(extra).assert()
    };
    let said = |assert: assert_cmd::assert::Assert| String::from_utf8(assert.get_output().stderr.clone()).unwrap();
    fs::create_dir(bench.path("empty")).unwrap();
    let text = said(train(&[], "empty").code(1));
    assert!(text.contains("no wav or flac files"), "{text}");
    let text = said(train(&["--device", "gpu:99"], "data").code(1));
    assert!(text.contains("gpu:99"), "{text}");
    fs::write(bench.path("data/broken.flac"), b"fLaC").unwrap();
    let spec = hound::WavReader::open(bench.path("data/0.wav")).unwrap().spec();
    let mut short = hound::WavWriter::create(bench.path("data/short.wav"), spec).unwrap();
    (0..100).for_each(|i| short.write_sample(i as i16).unwrap());
    short.finalize().unwrap();
    let text = said(train(&[], "data").success());
    assert!(
        text.contains("4 files") && text.contains("1 files are too short") && text.contains("broken.flac"),
        "{text}"
    );
    // A model file, and a recipe that wants what it has not.
    let mut export = assert_cmd::Command::cargo_bin("codec-train").unwrap();
    export.arg("export").arg(bench.path("run")).arg("-o").arg(bench.path("model.safetensors")).assert().success();
    bench.recipe(|r| r.replace("spec = \"tiny.json\"", "model = \"model.safetensors\"\nstages = 9"));
    let text = said(train(&[], "data").code(1));
    assert!(text.contains("recipe.toml") && text.contains("`model.stages` is 9"), "{text}");
    bench.recipe(|r| r.replace("dropout = 0.5", "dropout = 0.5\nchoices = [1, 5]"));
    let text = said(train(&[], "data").code(1));
    assert!(text.contains("`quantizer.choices` has 5"), "{text}");
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
    let train = |run: &str| {
        let mut c = program();
        c.arg("train")
            .arg(bench.path("recipe.toml"))
            .arg("--data")
            .arg(bench.path("data"))
            .arg("--out")
            .arg(bench.path(run));
        c
    };
    train("run").assert().success();
    // Nothing is left to do, and that is no failure.
    train("run").assert().success();
    let model = bench.path("model.safetensors");
    program().arg("export").arg(&run).arg("-o").arg(&model).assert().success();
    program().arg("export").arg(&run).arg("-o").arg(&model).assert().code(2);
    assert!(Model::load(&model).is_ok());
    // Half the bytes, and a start for training.
    let half = bench.path("half.safetensors");
    program().arg("export").arg(&run).arg("-o").arg(&half).args(["--dtype", "f16"]).assert().success();
    let [single, half] = [model, half].map(|path| ModelFile::open(path).unwrap());
    for (name, tensor) in half.tensors() {
        let weight = tensor.shape.len() > 1;
        assert_eq!(tensor.dtype, if weight { Dtype::F16 } else { Dtype::F32 }, "{name}");
        let exact = single.tensors().find(|(n, _)| *n == name).unwrap().1;
        assert!(
            (0..tensor.len()).all(|i| (tensor.get(i) - exact.get(i)).abs() <= exact.get(i).abs() / 2000.0 + 1e-7),
            "{name}"
        );
    }
    bench.recipe(|r| {
        r.replace("steps = 20", "steps = 2").replace("spec = \"tiny.json\"", "model = \"half.safetensors\"")
    });
    train("on").assert().success();
    train("run").arg("--device").arg("nowhere").assert().code(1);
    fs::write(bench.path("recipe.toml"), "[model]\nsystm = \"a\"\n").unwrap();
    let output = train("run").assert().code(1).get_output().stderr.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(text.contains("line 2") && text.contains("systm"), "{text}");
}
