//! Token files that are not as they should be.

use crate::support::*;

#[test]
fn codes_out_of_range_are_named_with_their_place() {
    let bench = Bench::new();
    bench.steps("in.wav", 240_000);
    bench.codec(&["encode", "in.wav", "a.npy"]).ok();
    let mut bytes = std::fs::read(bench.path("a.npy")).unwrap();
    // Frame 2500, codebook 1, frame by frame after the header; then one that no codebook has.
    let at = 128 + (2500 * 2 + 1) * 4;
    bytes[at..at + 4].copy_from_slice(&16i32.to_le_bytes());
    std::fs::write(bench.path("b.npy"), &bytes).unwrap();
    bench.codec(&["decode", "b.npy", "o.wav"]).fails(1, &["code 16", "frame 2500", "codebook 1"]);
    bytes[at..at + 4].copy_from_slice(&(-5i32).to_le_bytes());
    std::fs::write(bench.path("c.npy"), &bytes).unwrap();
    bench.codec(&["decode", "c.npy", "o.wav"]).fails(1, &["code -5", "frame 2500", "codebook 1"]);

    let text = |codes: &str| {
        let head = r#"{"format":"codec-tokens","version":1,"codebooks":2}"#;
        std::fs::write(bench.path("t.jsonl"), format!("{head}\n[1,2]\n{codes}\n{{\"end\":{{}}}}\n")).unwrap();
        bench.codec(&["decode", "t.jsonl", "t.wav", "--force"])
    };
    text("[3,4]").ok();
    assert_eq!(read(&bench.path("t.wav")).0.len(), 160);
    text("[3,16]").fails(1, &["code 16", "frame 1", "codebook 1"]);
    text("[70000,1]").fails(1, &["code 70000", "frame 1", "codebook 0"]);
    text("[1]").fails(1, &["line 3", "1 codes"]);
    text("[1,2,3]").fails(1, &["line 3", "3 codes"]);
}

#[test]
fn a_model_does_not_decode_another_models_codes() {
    let bench = Bench::new();
    bench.steps("in.wav", 800);
    model(&bench.path("other.safetensors"), 0.5);
    let fingerprint = |file: &str| {
        let json = bench.codec(&["info", file, "--json"]).ok().json();
        json.get("fingerprint").or(json.get("model_fingerprint")).unwrap().as_str().unwrap().to_owned()
    };
    let (ours, other) = (fingerprint("model.safetensors"), fingerprint("other.safetensors"));
    assert_ne!(ours, other);
    for kind in ["nac", "safetensors", "jsonl"] {
        let tokens = format!("t.{kind}");
        bench.codec(&["encode", "in.wav", &tokens]).ok();
        assert_eq!(fingerprint(&tokens), ours);
        let args = ["decode", &tokens, "o.wav", "--model", "other.safetensors"];
        bench.codec(&args).fails(1, &[&ours, &other]);
    }
}

#[test]
fn cut_token_files_are_errors_and_leave_nothing() {
    let bench = Bench::new();
    bench.steps("in.wav", 80_000);
    for kind in ["nac", "npy", "safetensors", "jsonl"] {
        let tokens = format!("t.{kind}");
        bench.codec(&["encode", "in.wav", &tokens]).ok();
        let bytes = std::fs::read(bench.path(&tokens)).unwrap();
        for cut in [0, 1, 7, 20, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(bench.path(&tokens), &bytes[..cut]).unwrap();
            // The line break at the very end says nothing.
            if !(kind == "jsonl" && cut == bytes.len() - 1) {
                bench.codec(&["decode", &tokens, "o.wav"]).fails(1, &[&tokens]);
            }
        }
    }
    bench.assert_only(&["in.wav", "t.jsonl", "t.nac", "t.npy", "t.safetensors"]);
}

#[test]
fn a_sample_count_that_the_frames_do_not_make_is_refused() {
    let bench = Bench::new();
    let text = |samples: u64| {
        let head = r#"{"format":"codec-tokens","version":1,"codebooks":1}"#;
        let end = format!(r#"{{"end":{{"samples":{samples}}}}}"#);
        std::fs::write(bench.path("t.jsonl"), format!("{head}\n[1]\n[2]\n{end}\n")).unwrap();
        bench.codec(&["decode", "t.jsonl", "t.wav", "--force"])
    };
    text(150).ok();
    assert_eq!(read(&bench.path("t.wav")).0.len(), 150);
    text(u64::MAX).fails(1, &["states 18446744073709551615", "2 frames make 160"]);
}

#[test]
fn more_codebooks_than_the_model_has_are_refused() {
    let bench = Bench::new();
    let head = r#"{"format":"codec-tokens","version":1,"codebooks":3}"#;
    std::fs::write(bench.path("t.jsonl"), format!("{head}\n[1,2,3]\n{{\"end\":{{}}}}\n")).unwrap();
    bench.codec(&["decode", "t.jsonl", "t.wav"]).fails(1, &["t.jsonl", "3"]);
    bench.codec(&["decode", "model.safetensors", "t.wav"]).fails(1, &["model.safetensors", "it is a model"]);
}
