//! Sound into tokens and back, through every kind of file.

use crate::support::*;

#[test]
fn every_kind_of_token_file_gives_the_same_sound_of_exact_length() {
    let bench = Bench::new();
    // Not a whole number of hops.
    let pcm = bench.steps("in.wav", 9_999);
    for kind in ["nac", "safetensors", "jsonl", "npy"] {
        let tokens = format!("t.{kind}");
        let report = bench.codec(&["encode", "in.wav", &tokens, "--json"]).ok().json();
        let file = &report["files"][0];
        assert_eq!((file["samples"].as_u64(), file["frames"].as_u64()), (Some(9_999), Some(125)));
        let bytes = std::fs::metadata(bench.path(&tokens)).unwrap().len();
        assert_eq!(file["bytes"].as_u64(), Some(bytes));
        let kbps = bytes as f64 * 8e-3 / (9_999.0 / 8_000.0);
        assert!((file["kbps"].as_f64().unwrap() - kbps).abs() < 1e-9);
        bench.codec(&["decode", &tokens, "out.wav", "--force", "--sample-format", "f32"]).ok();
        let (out, rate) = read(&bench.path("out.wav"));
        assert_eq!(rate, RATE);
        // npy has no place for the number of samples.
        assert_eq!(out.len(), if kind == "npy" { 10_000 } else { 9_999 }, "{kind}");
        for (n, (a, b)) in pcm.iter().zip(&out).enumerate().take(9_900) {
            assert!((a - b).abs() < 0.005, "{kind}, sample {n}: {a} became {b}");
        }
    }
}

#[test]
fn codes_agree_between_kinds_and_with_what_is_asked_for() {
    let bench = Bench::new();
    bench.steps("in.wav", 4_000);
    bench.codec(&["encode", "in.wav", "a.npy", "--codebooks", "1"]).ok();
    bench.codec(&["encode", "in.wav", "a.jsonl", "--bandwidth", "0.4"]).ok();
    let npy = std::fs::read(bench.path("a.npy")).unwrap();
    let codes: Vec<i32> = npy[128..].chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
    assert!(String::from_utf8_lossy(&npy[..128]).contains("'shape': (1, 50)"));
    let text = std::fs::read_to_string(bench.path("a.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("\"codebooks\":1"));
    assert_eq!(lines.len(), 52);
    for (line, code) in lines[1..51].iter().zip(&codes) {
        assert_eq!(*line, format!("[{code}]"));
    }
    assert_eq!(lines[51], r#"{"end":{"frames":50,"samples":4000}}"#);
}

#[test]
fn one_sample_goes_through() {
    let bench = Bench::new();
    bench.wav("one.wav", RATE, 1, &[0.5]);
    bench.codec(&["encode", "one.wav", "one.nac"]).ok();
    bench.codec(&["decode", "one.nac", "back.wav"]).ok();
    assert_eq!(read(&bench.path("back.wav")).0.len(), 1);
}

#[test]
fn pipes_in_and_out() {
    let bench = Bench::new();
    let pcm = bench.steps("in.wav", 8_000);
    let mut whole = bare(&["encode", "-", "piped.nac", "--model", "model.safetensors"]);
    // A header as programs write it that do not know the length.
    let mut bytes = std::fs::read(bench.path("in.wav")).unwrap();
    let data = bytes.windows(4).position(|w| w == b"data").unwrap();
    bytes[4..8].fill(0xff);
    bytes[data + 4..data + 8].fill(0xff);
    whole.current_dir(bench.folder.path()).write_stdin(bytes);
    Run::of(whole).ok();
    bench.codec(&["encode", "in.wav", "file.nac"]).ok();
    assert_eq!(std::fs::read(bench.path("piped.nac")).unwrap(), std::fs::read(bench.path("file.nac")).unwrap());

    let out = bench.codec(&["decode", "file.nac", "-"]).ok().out;
    std::fs::write(bench.path("from_pipe.wav"), out).unwrap();
    bench.codec(&["decode", "file.nac", "file.wav"]).ok();
    let (piped, _) = read(&bench.path("from_pipe.wav"));
    assert_eq!(piped, read(&bench.path("file.wav")).0);
    assert_eq!(piped.len(), pcm.len());
    bench.codec(&["decode", "file.nac", "-", "--json"]).fails(2, &["--json"]);
    Run::of({
        let mut command = bare(&["encode", "-", "none.nac", "--model", "model.safetensors"]);
        command.current_dir(bench.folder.path()).write_stdin("");
        command
    })
    .fails(1, &["empty"]);
}

#[test]
fn compressed_and_stereo_audio_is_encoded_when_its_changes_are_asked_for() {
    let bench = Bench::new();
    for (name, samples) in [("tone.mp3", 4_000), ("tone.ogg", 4_000), ("tone.flac", 2_000)] {
        let from = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
        std::fs::copy(from, bench.path(name)).unwrap();
        let run = bench.codec(&["encode", name, "t.nac", "--resample", "--downmix", "--force", "--json"]).ok();
        assert_eq!(run.json()["files"][0]["samples"].as_u64(), Some(samples), "{name}");
    }
}

#[test]
fn samples_are_stored_as_asked_and_clipping_is_told() {
    let bench = Bench::new();
    model(&bench.path("loud.safetensors"), 2.0);
    bench.wav("in.wav", RATE, 1, &vec![0.75; 800]);
    bench.codec(&["encode", "in.wav", "t.nac", "--model", "loud.safetensors"]).ok();
    for (format, bytes) in [("i16", 2), ("i24", 3), ("f32", 4)] {
        let args = ["decode", "t.nac", "o.wav", "--force", "--model", "loud.safetensors", "--sample-format", format];
        let run = bench.codec(&args).ok();
        assert_eq!(std::fs::metadata(bench.path("o.wav")).unwrap().len(), 80 + 800 * bytes);
        let (out, _) = read(&bench.path("o.wav"));
        if format == "f32" {
            assert!(run.err.is_empty(), "{}", run.err);
            assert!((out[0] - 1.5).abs() < 0.01);
        } else {
            run.says(&["warning: o.wav: 800 sample(s) clipped", "help: --sample-format f32"]);
            assert!(out.iter().all(|&s| s > 0.9999));
        }
    }
}

#[test]
fn nothing_is_printed_when_quiet_and_json_is_one_document() {
    let bench = Bench::new();
    bench.steps("in.wav", 800);
    let run = bench.codec(&["encode", "in.wav", "a.nac", "--quiet"]).ok();
    assert!(run.out.is_empty() && run.err.is_empty());
    let run = bench.codec(&["--json", "decode", "a.nac", "a.wav"]).ok();
    assert!(run.err.is_empty(), "{}", run.err);
    let json = run.json();
    assert_eq!(json["command"], "decode");
    assert_eq!(json["files"][0]["codebooks"], 2);
    let run = bench.codec(&["encode", "in.wav", "b.nac"]).ok();
    let line = String::from_utf8(run.out).unwrap();
    assert!(line.contains("in.wav -> b.nac: 0.10 s, 10 frames of 2 codebook(s)"), "{line}");
}

#[test]
fn segments_keep_their_scales_in_every_kind_of_file_that_has_a_place_for_them() {
    let bench = Bench::new();
    segmented_model(&bench.path("segments.safetensors"));
    let with = |args: &[&str]| bench.codec(&[args, &["--model", "segments.safetensors"]].concat());
    // Quiet, so that only the scales bring it into the codebooks' range and back.
    let pcm: Vec<f32> = (0..20_001).map(|n| 0.004 * (1.0 + (n / 4_000) as f32)).collect();
    bench.wav("in.wav", RATE, 1, &pcm);
    let mut sounds = Vec::new();
    for kind in ["nac", "safetensors", "jsonl"] {
        let tokens = format!("t.{kind}");
        with(&["encode", "in.wav", &tokens]).ok();
        with(&["decode", &tokens, "o.wav", "--force", "--sample-format", "f32"]).ok();
        let json = bench.codec(&["info", &tokens, "--json"]).ok().json();
        assert_eq!((json["segments"].as_u64(), json["samples"].as_u64()), (Some(28), Some(20_001)), "{kind}");
        sounds.push(read(&bench.path("o.wav")).0);
    }
    assert_eq!(sounds[0].len(), 20_001);
    assert!(sounds[0] == sounds[1] && sounds[1] == sounds[2]);
    // A constant segment has loudness 1 after its scale is taken off: the codebooks' last entry.
    let inside = |n: usize| (sounds[0][n] - pcm[n]).abs() < 0.05 * pcm[n];
    assert!((0..20_000).filter(|n| n % 4_000 > 800 && n % 4_000 < 3_200).all(inside));

    with(&["encode", "in.wav", "t.npy"]).fails(1, &["t.npy", "no place for the scales"]).says(&[".jsonl"]);
    bench.codec(&["encode", "in.wav", "plain.npy"]).ok();
    with(&["decode", "plain.npy", "p.wav"]).fails(1, &["plain.npy", "no segments"]);
}
