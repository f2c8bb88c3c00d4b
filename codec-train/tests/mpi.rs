//! Several processes by MPI. Run where the feature is built in and `mpirun` is there; skipped elsewhere, with a line that says so.

mod bench;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use bench::{Bench, SPEC, hearing, taught};
use safetensors::SafeTensors;
use serde_json::Value;

/// Two groups in each of two stages: as HiFi-Codec's.
fn grouped() -> String {
    let start = SPEC.find("\"quantizer\"").unwrap();
    let end = SPEC.find("\"decoder\"").unwrap();
    let book = |name: &str| format!(r#"{{"type": "vq", "name": "{name}", "size": 16, "dim": 3}}"#);
    let stage = |i: usize| {
        let groups = [book(&format!("q.{i}.0")), book(&format!("q.{i}.1"))].join(", ");
        format!(r#"{{"type": "grouped", "groups": [{groups}]}}"#)
    };
    let stages = [stage(0), stage(1)].join(", ");
    let quantizer = format!(r#""quantizer": {{"type": "residual", "stages": [{stages}]}}, "#);
    format!("{}{quantizer}{}", &SPEC[..start], &SPEC[end..]).replace("[1, 2]", "[2, 4]")
}

fn mpi() -> bool {
    let there = Command::new("mpirun").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let reason = match there {
        _ if !cfg!(feature = "mpi") => "the feature `mpi` is off",
        Ok(status) if status.success() => return true,
        _ => "there is no mpirun",
    };
    eprintln!("SKIPPED: {reason}");
    false
}

/// A recipe with so many items a process and steps.
fn recipe(bench: &Bench, batch: usize, steps: usize) {
    fs::write(bench.path("tiny.json"), grouped()).unwrap();
    bench.recipe(|r| {
        let r = hearing(r);
        let r = r.replace("batch = 3", &format!("batch = {batch}")).replace("steps = 20", &format!("steps = {steps}"));
        let r =
            r.replace("discriminator_start = 6", "discriminator_start = 2").replace("decay = 0.9\n", "decay = 0.7\n");
        // The rate must not depend on the number of steps, for runs that go on.
        let r = r.replace("schedule = { type = \"cosine\", floor = 0.1 }", "");
        // As Adam divides by the root of it, what rounding leaves of a gradient that is zero would move a weight at full rate.
        r.replace("clip = 5.0", "clip = 5.0\nepsilon = 1e-4").replace("rate = 1e-3", "rate = 1e-3\nepsilon = 1e-4")
    });
}

/// The program, with options beside the usual or in their place, and `RANK_` in an argument replaced by the number of the process. `$DIR/pid.RANK` gets its number in the system.
fn program(bench: &Bench, processes: usize, run: &str, extra: &str) -> Command {
    let path = |p: std::path::PathBuf| p.display().to_string();
    let usual = |option: &str, value: &str| {
        if extra.contains(option) { String::new() } else { format!("{option} '{}'", path(bench.path(value))) }
    };
    let arguments = [
        path(assert_cmd::cargo::cargo_bin("codec-train")),
        "train".into(),
        if extra.contains(".toml") { String::new() } else { path(bench.path("recipe.toml")) },
        usual("--data", "data"),
        usual("--out", run),
        extra.into(),
    ];
    let rank = "${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-0}}";
    let line = format!("echo $$ > '{}'.{rank}; exec {}", path(bench.path("pid")), arguments.join(" "));
    let line = line.replace("RANK_", rank);
    let mut command = if processes == 1 {
        Command::new("sh")
    } else {
        let mut command = Command::new("mpirun");
        command.args(["--allow-run-as-root", "--oversubscribe", "-n", &processes.to_string(), "sh"]);
        command
    };
    command.arg("-c").arg(line).env("RAYON_NUM_THREADS", "1").stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn train(bench: &Bench, processes: usize, run: &str) {
    let output = program(bench, processes, run, "").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

/// Tensors of a checkpoint, and its other state.
fn state(run: &Path, step: usize) -> (BTreeMap<String, Vec<f32>>, Value) {
    let bytes = fs::read(run.join(format!("checkpoints/step-{step:09}.safetensors"))).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let text = metadata.metadata().as_ref().unwrap()["codec-train.checkpoint"].clone();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let tensors = file.tensors().into_iter().map(|(name, view)| (name, values(view.data()))).collect();
    (tensors, serde_json::from_str(&text).unwrap())
}

/// The greatest difference of a tensor's elements over its greatest element, and of which tensor.
fn difference(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> (f32, String) {
    assert!(a.keys().eq(b.keys()));
    let of = |name: &String| {
        let (a, b) = (&a[name], &b[name]);
        let scale = a.iter().fold(1e-6_f32, |m, v| m.max(v.abs()));
        let most = a.iter().zip(b).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
        (most / scale, name.clone())
    };
    a.keys().map(of).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

fn lines(run: &Path, name: &str) -> Vec<Value> {
    fs::read_to_string(run.join(name)).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Eight steps with all that has statistics over a batch: averages of grouped and residual codebooks, restarts, dropout, k-means,
/// a balancer, relative features, spectral convergence, discriminators, accumulation. Two processes are one with batches twice as
/// large, and either goes on where the other stopped.
#[test]
fn two_processes_are_one_with_twice_the_batch() {
    if !mpi() {
        return;
    }
    let bench = Bench::new();
    let run = |name: &str, parts: &[(usize, usize)]| {
        for (processes, steps) in parts {
            recipe(&bench, 6 / processes, *steps);
            train(&bench, *processes, name);
        }
        bench.path(name)
    };
    let one = run("one", &[(1, 8)]);
    let (expected, expected_state) = state(&one, 8);
    for (name, parts) in [("two", &[(2, 8)][..]), ("one-two", &[(1, 4), (2, 8)]), ("two-one", &[(2, 4), (1, 8)])] {
        let other = run(name, parts);
        let (got, got_state) = state(&other, 8);
        // Sums of f32 in another order, after eight steps of two optimisers.
        let (most, tensor) = difference(&expected, &got);
        eprintln!("{name}: the greatest difference is {most:e} of the greatest element, in {tensor}");
        assert!(most < 2e-3, "{name}: {tensor} differs by {most}");
        // Which entry codes a row is the same everywhere: counts are sums of whole numbers, averaged the same way.
        for (tensor, values) in expected.iter().filter(|(name, _)| name.ends_with(".ema_count")) {
            assert_eq!(values, &got[tensor], "{name}: {tensor}");
        }
        for key in ["step", "times", "trained", "spec"] {
            assert_eq!(expected_state[key], got_state[key], "{key}");
        }
        let (a, b) = (lines(&one, "metrics.jsonl"), lines(&other, "metrics.jsonl"));
        assert_eq!((a.len(), b.len()), (8, 8), "one process writes the log");
        let mut restarts = 0;
        for (step, (a, b)) in a.iter().zip(&b).enumerate() {
            assert_eq!((&a["dead"], &a["perplexity"]), (&b["dead"], &b["perplexity"]), "{name}");
            restarts += a["dead"].as_array().unwrap().iter().filter(|d| d.as_f64() != Some(0.0)).count();
            // The gradient of an absolute difference jumps where it is zero, so that by and by its norm tells rounding (in six
            // steps from 2e-8 to 2e-4 of it): only the first ones are compared.
            let parts = [("losses", 2e-3), ("gradient_norms", 1e-3)];
            for (part, tolerance) in parts.into_iter().filter(|(part, _)| *part == "losses" || step < 6) {
                let (a, b) = (a[part].as_object().unwrap(), b[part].as_object().unwrap());
                assert!(a.keys().eq(b.keys()));
                for (key, value) in a {
                    let (value, other) = (value.as_f64().unwrap(), b[key].as_f64().unwrap());
                    assert!(
                        (value - other).abs() <= tolerance * value.abs(),
                        "{name}, step {step}: {key} is {other} for {value}"
                    );
                }
            }
        }
        assert!(restarts > 0, "entries died on the way");
    }
    // The comparison sees what it should: half of the batch is another run.
    recipe(&bench, 3, 8);
    train(&bench, 1, "half");
    assert!(difference(&expected, &state(&bench.path("half"), 8).0).0 > 0.05);
}

fn pid(bench: &Bench, rank: usize) -> String {
    fs::read_to_string(bench.path(&format!("pid.{rank}"))).unwrap().trim().to_owned()
}

fn wait_for(what: &str, limit: u64, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(limit), "{what} took longer than {limit} s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends a signal to a process once there is a checkpoint; how the run ended, and how long that took.
fn signalled(bench: &Bench, signal: &str) -> (Output, Duration) {
    recipe(bench, 3, 1_000_000);
    let path = bench.path("recipe.toml");
    let often = fs::read_to_string(&path).unwrap().replace("checkpoint_every = 10", "checkpoint_every = 2");
    fs::write(&path, often).unwrap();
    let child = program(bench, 2, "run", "").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let last = bench.path("run/checkpoints");
    wait_for("the first checkpoint", 120, || fs::read_dir(&last).is_ok_and(|mut d| d.next().is_some()));
    let sent = Instant::now();
    assert!(Command::new("kill").args([signal, &pid(bench, 1)]).status().unwrap().success());
    (child.wait_with_output().unwrap(), sent.elapsed())
}

fn last_step(bench: &Bench) -> usize {
    let names = fs::read_dir(bench.path("run/checkpoints")).unwrap().map(|e| e.unwrap().file_name());
    let steps = names.filter_map(|n| n.to_str()?.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok());
    steps.max().expect("a checkpoint stands")
}

#[test]
fn a_process_that_dies_ends_the_others() {
    if !mpi() {
        return;
    }
    let bench = Bench::new();
    let (output, time) = signalled(&bench, "-KILL");
    assert!(!output.status.success());
    assert!(time < Duration::from_secs(20), "it took {time:?}");
    let gone = || {
        let alive = Command::new("kill").args(["-0", &pid(&bench, 0)]).stderr(Stdio::null()).status();
        alive.is_ok_and(|status| !status.success())
    };
    wait_for("process 0", 20, gone);
    // The last checkpoint is whole, and one process goes on from it.
    let step = last_step(&bench);
    recipe(&bench, 6, step + 1);
    train(&bench, 1, "run");
    assert_eq!(last_step(&bench), step + 1);
}

#[test]
fn all_stop_when_one_is_asked_to() {
    if !mpi() {
        return;
    }
    let bench = Bench::new();
    let (output, _) = signalled(&bench, "-TERM");
    let step = last_step(&bench);
    let said = text(&output);
    assert_eq!(said.matches("stopped after step").count(), 1, "{said}");
    assert!(said.contains(&format!("stopped after step {step};")), "{step}: {said}");
    assert_eq!(lines(&bench.path("run"), "metrics.jsonl").len(), step);
}

#[test]
fn what_one_process_finds_wrong_ends_all() {
    if !mpi() {
        return;
    }
    let bench = Bench::new();
    recipe(&bench, 3, 2);
    let fails = |run: &str, extra: &str| {
        let started = Instant::now();
        let output = program(&bench, 2, run, extra).output().unwrap();
        assert!(!output.status.success());
        assert!(started.elapsed() < Duration::from_secs(60));
        let said = text(&output);
        assert_eq!(said.matches("error: process").count(), 1, "{said}");
        said
    };
    // No device of its number, on the second process alone.
    let said = fails("a", "--device cpu$(test RANK_ = 0 || echo :9)");
    assert!(said.contains("process 1 of 2: device `cpu:9`"), "{said}");
    // Audio of its own.
    fs::create_dir(bench.path("other")).unwrap();
    fs::copy(bench.path("data/0.wav"), bench.path("other/0.wav")).unwrap();
    let data = |folder: &str| bench.path(folder).display().to_string();
    let said =
        fails("b", &format!("--quiet --data $(test RANK_ = 0 && echo '{}' || echo '{}')", data("data"), data("other")));
    assert!(said.contains("the audio of process 1"), "{said}");
    // A folder that the other does not see.
    train(&bench, 2, "c");
    let said = fails("c", &format!("--out '{}'$(test RANK_ = 0 || echo elsewhere)", data("c")));
    assert!(said.contains("process 1 cannot read it"), "{said}");
    // A teacher of its own.
    bench.recipe(|r| taught(r, true));
    let folders = ["0", "1"].map(|rank| bench.path(rank));
    for folder in &folders {
        fs::create_dir(folder).unwrap();
        for file in ["recipe.toml", "tiny.json"] {
            fs::copy(bench.path(file), folder.join(file)).unwrap();
        }
    }
    for (folder, seed) in folders.iter().zip(["seed = 5", "seed = 6"]) {
        let other = bench.recipe(|r| r.replace("seed = 4", seed));
        bench.open(&other, &format!("run of {seed}")).unwrap().export(&folder.join("teacher.safetensors")).unwrap();
    }
    let said = fails("e", &format!("'{}'/RANK_/recipe.toml", bench.path("").display()));
    assert!(said.contains("the teacher of process 1"), "{said}");
    // What is wrong for all is said once.
    fs::write(bench.path("recipe.toml"), "[model]\nsystm = \"a\"\n").unwrap();
    assert!(fails("d", "").contains("line 2"));
}

/// A teacher's latents, in which codebooks start, and the distance from them.
#[test]
fn a_teacher_teaches_two_processes_as_one() {
    if !mpi() {
        return;
    }
    let bench = Bench::new();
    bench.teacher();
    let run = |processes: usize, name: &str| {
        bench.recipe(|r| {
            let r = taught(r, true).replace("batch = 3", &format!("batch = {}", 6 / processes));
            r.replace("steps = 20", "steps = 4").replace("clip = 5.0", "epsilon = 1e-4")
        });
        train(&bench, processes, name);
        let losses = lines(&bench.path(name), "metrics.jsonl").into_iter().map(|l| l["losses"]["teacher"].as_f64());
        (state(&bench.path(name), 4).0, losses.map(Option::unwrap).collect::<Vec<_>>())
    };
    let ((one, expected), (two, losses)) = (run(1, "one"), run(2, "two"));
    let (most, tensor) = difference(&one, &two);
    assert!(most < 2e-3, "{tensor} differs by {most}");
    assert!(expected.iter().zip(&losses).all(|(a, b)| (a / b - 1.0).abs() < 1e-4), "{expected:?} {losses:?}");
}

/// Built without MPI, the processes would know nothing of each other and write the same files.
#[test]
fn without_mpi_several_processes_are_an_error() {
    if cfg!(feature = "mpi") {
        return;
    }
    let bench = Bench::new();
    recipe(&bench, 3, 1);
    let output = program(&bench, 1, "run", "").env("OMPI_COMM_WORLD_SIZE", "2").output().unwrap();
    assert!(!output.status.success() && text(&output).contains("--features mpi"), "{}", text(&output));
}
