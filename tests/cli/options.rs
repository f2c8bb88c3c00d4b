//! Options that cannot be, and outputs that must not be touched.

use crate::support::*;

#[test]
fn codebooks_and_bandwidths_that_do_not_exist_list_those_that_do() {
    let bench = Bench::new();
    bench.steps("in.wav", 800);
    bench.codec(&["encode", "in.wav", "o.nac", "--codebooks", "0"]).fails(1, &["0 codebooks", "1 to 2"]);
    bench.codec(&["encode", "in.wav", "o.nac", "--codebooks", "3"]).fails(1, &["3 codebooks", "1 to 2"]);
    for kbps in ["0.1", "6", "0", "-1", "NaN"] {
        let arg = format!("--bandwidth={kbps}");
        let run = bench.codec(&["encode", "in.wav", "o.nac", &arg]).fails(1, &["kbps"]);
        run.says(&["0.4 (1 codebooks)", "0.8 (2 codebooks)"]);
    }
    let frames = |kbps: &str| {
        let run = bench.codec(&["encode", "in.wav", "o.nac", "--force", "--json", "--bandwidth", kbps]).ok();
        run.json()["files"][0]["codebooks"].as_u64()
    };
    assert_eq!((frames("0.4"), frames("0.8"), frames("0.5")), (Some(1), Some(2), Some(1)));
    bench.codec(&["encode", "in.wav", "p.nac", "--bandwidth", "0.4", "-n", "1"]).says(&["cannot be used with"]);
}

#[test]
fn outputs_that_exist_stay_unless_forced() {
    let bench = Bench::new();
    bench.steps("in.wav", 800);
    std::fs::write(bench.path("o.nac"), "mine").unwrap();
    bench.codec(&["encode", "in.wav", "o.nac"]).fails(1, &["o.nac exists"]).says(&["--force"]);
    assert_eq!(std::fs::read(bench.path("o.nac")).unwrap(), b"mine");
    bench.codec(&["encode", "in.wav", "o.nac", "--force"]).ok();
    std::fs::write(bench.path("o.wav"), "mine").unwrap();
    bench.codec(&["decode", "o.nac", "o.wav"]).fails(1, &["o.wav exists"]);
    // A failure leaves what was there.
    std::fs::write(bench.path("bad.wav"), "RIFFnothing").unwrap();
    let before = std::fs::read(bench.path("o.nac")).unwrap();
    bench.codec(&["encode", "bad.wav", "o.nac", "--force"]).fails(1, &["bad.wav"]);
    assert_eq!(std::fs::read(bench.path("o.nac")).unwrap(), before);
    bench.assert_only(&["bad.wav", "in.wav", "o.nac", "o.wav"]);
}

#[test]
fn outputs_that_cannot_be_written_say_so() {
    let bench = Bench::new();
    bench.steps("in.wav", 800);
    bench.codec(&["encode", "in.wav", "no/such/o.nac"]).fails(1, &["cannot write no/such/o.nac"]);
    bench.codec(&["encode", "in.wav", "in.wav/o.nac"]).fails(1, &["cannot write"]);
    std::fs::create_dir(bench.path("d.nac")).unwrap();
    bench.codec(&["encode", "in.wav", "d.nac"]).fails(1, &["is a folder"]);
    bench.codec(&["encode", "in.wav", "o.xyz"]).fails(2, &["o.xyz", "extension"]).says(&[".nac", ".jsonl"]);
    bench.codec(&["decode", "in.wav", "o.mp3"]).fails(2, &["o.mp3", "only wav"]);
}

#[cfg(unix)]
#[test]
fn new_files_have_ordinary_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    bench.steps("in.wav", 800);
    bench.codec(&["encode", "in.wav", "o.nac"]).ok();
    let mode = |name: &str| std::fs::metadata(bench.path(name)).unwrap().permissions().mode();
    assert_eq!(mode("o.nac"), mode("in.wav"));
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_nothing_half_written() {
    let bench = Bench::new();
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("codec"))
        .args(["encode", "-", "o.nac", "--model", "model.safetensors"])
        .current_dir(bench.folder.path())
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // An endless wav: the program has begun to write and waits for more.
    let mut stdin = child.stdin.take().unwrap();
    bench.steps("long.wav", 40_000);
    let mut bytes = std::fs::read(bench.path("long.wav")).unwrap();
    let data = bytes.windows(4).position(|w| w == b"data").unwrap();
    bytes[4..8].fill(0xff);
    bytes[data + 4..data + 8].fill(0xff);
    std::io::Write::write_all(&mut stdin, &bytes).unwrap();
    let begun = std::time::Instant::now();
    let partial = || {
        std::fs::read_dir(bench.folder.path())
            .unwrap()
            .any(|e| e.unwrap().file_name().to_string_lossy().ends_with(".part"))
    };
    while !partial() {
        assert!(begun.elapsed().as_secs() < 20, "no temporary file appeared");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdin);
    bench.assert_only(&["long.wav"]);
}

#[test]
fn a_missing_model_says_how_to_get_one() {
    let bench = Bench::new();
    bench.steps("in.wav", 800);
    if cfg!(not(feature = "default-model")) {
        let mut command = bare(&["encode", "in.wav", "o.nac"]);
        command.current_dir(bench.folder.path());
        Run::of(command).fails(2, &["no model given"]).says(&["--model", "CODEC_MODEL", "codec import"]);
    }
    bench.codec(&["encode", "in.wav", "o.nac", "--model", "absent.safetensors"]).fails(1, &["absent.safetensors"]);
    bench.codec(&["encode", "in.wav", "o.nac", "--model", "in.wav"]).fails(1, &["in.wav"]).says(&["codec import"]);
}

#[test]
fn instruction_sets_by_name() {
    let bench = Bench::new();
    bench.steps("in.wav", 800);
    bench.codec(&["encode", "in.wav", "best.npy"]).ok();
    bench.codec(&["--isa", "scalar", "encode", "in.wav", "scalar.npy"]).ok();
    assert_eq!(std::fs::read(bench.path("best.npy")).unwrap(), std::fs::read(bench.path("scalar.npy")).unwrap());
    let run = bench.codec(&["--isa", "z80", "encode", "in.wav", "o.npy"]);
    assert_eq!(run.code, 2);
    run.says(&["z80", "scalar", "avx2"]);
    let mut command = bare(&["encode", "in.wav", "env.npy", "--model", "model.safetensors"]);
    command.current_dir(bench.folder.path()).env("CODEC_ISA", "z80");
    assert_eq!(Run::of(command).code, 2);
}

#[test]
fn usage_errors_are_two() {
    let bench = Bench::new();
    for args in [&[][..], &["encode"], &["encode", "a"], &["nothing"], &["encode", "a", "b", "--threads", "x"]] {
        assert_eq!(bench.codec(args).code, 2, "{args:?}");
    }
    let version = bench.codec(&["--version"]).ok();
    assert_eq!(version.out, format!("codec {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(bench.codec(&["completions", shell]).ok().out).unwrap();
        assert!(script.contains("encode") && script.contains("salvage"), "{shell}");
    }
}

#[test]
fn import_checks_before_it_works() {
    let bench = Bench::new();
    std::fs::write(bench.path("taken.safetensors"), "mine").unwrap();
    bench.codec(&["import", "x.pt", "-o", "taken.safetensors"]).fails(1, &["taken.safetensors exists"]);
    bench.codec(&["import", "x.pt", "-o", "m.bin"]).fails(2, &["m.bin", "safetensors"]);
    bench.codec(&["import", "x.pt", "-o", "no/m.safetensors"]).fails(1, &["no/m.safetensors"]);
    bench.codec(&["import", "absent.pt", "-o", "m.safetensors"]).fails(1, &["absent.pt"]);
    std::fs::write(bench.path("junk.pt"), "junk").unwrap();
    bench.codec(&["import", "junk.pt", "-o", "m.safetensors"]).fails(1, &["junk.pt"]);
    bench.assert_only(&["junk.pt", "taken.safetensors"]);
}

#[test]
fn a_device_without_the_program_that_has_it_says_how_to_get_it() {
    let bench = Bench::new();
    bench.steps("in.wav", 800);
    for (device, feature) in [("gpu", "--features wgpu"), ("cuda:1", "--features cuda")] {
        for command in ["encode", "decode"] {
            let mut program = alone(bench.folder.path());
            program.args([command, "in.wav", "o.wav", "--device", device]);
            Run::of(program.into()).fails(1, &["needs the program `codec-train`"]).says(&[feature]);
        }
    }
    bench.codec(&["encode", "in.wav", "o.nac", "--device", "cpu"]).ok();
    bench.codec(&["encode", "in.wav", "p.nac", "--batch", "0"]).says(&["--batch", "0 is not in 1..=1024"]);
}

#[cfg(unix)]
#[test]
fn a_device_gets_the_whole_command_line() {
    let bench = Bench::new();
    script(&bench.path("codec-train"), "#!/bin/sh\necho \"error: $*\nhelp: it was started\" >&2\nexit 7\n");
    let mut program = alone(bench.folder.path());
    program.args(["--quiet", "encode", "encode", "o.nac", "--device", "gpu:1", "--batch", "3"]);
    Run::of(program.into()).fails(7, &["encode --quiet encode o.nac --device gpu:1 --batch 3"]);
}
