//! What a file is is found from its content.

use crate::support::*;

#[test]
fn models_tokens_and_audio_under_any_name() {
    let bench = Bench::new();
    bench.steps("in.wav", 8_001);
    let info = |from: &str| {
        std::fs::copy(bench.path(from), bench.path("thing")).unwrap();
        bench.codec(&["info", "thing", "--json"]).ok().json()
    };
    let audio = info("in.wav");
    assert_eq!((audio["kind"].as_str(), audio["format"].as_str()), (Some("audio"), Some("wave")));
    assert_eq!((audio["samples"].as_u64(), audio["sample_rate"].as_u64()), (Some(8_001), Some(8_000)));
    let model = info("model.safetensors");
    assert_eq!((model["kind"].as_str(), model["hop"].as_u64()), (Some("model"), Some(80)));
    assert_eq!(model["bitrates"][1]["codebooks"], 2);
    for kind in ["nac", "npy", "safetensors", "jsonl"] {
        let tokens = format!("t.{kind}");
        bench.codec(&["encode", "in.wav", &tokens]).ok();
        let json = info(&tokens);
        assert_eq!((json["kind"].as_str(), json["format"].as_str()), (Some("tokens"), Some(kind)));
        assert_eq!((json["frames"].as_u64(), json["codebooks"].as_u64()), (Some(101), Some(2)), "{kind}");
        if kind != "npy" {
            assert_eq!((json["samples"].as_u64(), &json["model_fingerprint"]), (Some(8_001), &model["fingerprint"]));
        }
    }
    let text = String::from_utf8(bench.codec(&["info", "t.nac"]).ok().out).unwrap();
    assert!(text.contains("codebooks: 2\n") && text.contains("samples: 8001\n"), "{text}");
}

#[test]
fn what_is_nothing_known_is_an_error() {
    let bench = Bench::new();
    std::fs::write(bench.path("junk"), b"junk".repeat(99)).unwrap();
    bench.codec(&["info", "junk"]).fails(1, &["junk"]);
    bench.codec(&["info", "absent"]).fails(1, &["absent"]);
    bench.codec(&["info", "."]).fails(1, &["."]);
    std::fs::write(bench.path("empty"), b"").unwrap();
    bench.codec(&["info", "empty"]).fails(1, &["empty"]);
    std::fs::write(bench.path("model"), &std::fs::read(bench.path("model.safetensors")).unwrap()[..200]).unwrap();
    bench.codec(&["info", "model"]).fails(1, &["model"]);
}

#[test]
fn a_changed_model_is_found_out() {
    let bench = Bench::new();
    let path = bench.path("changed.safetensors");
    model(&path, 1.0);
    let verified = bench.codec(&["info", "changed.safetensors", "--verify", "--json"]).ok().json();
    assert_eq!(verified["verified"].as_bool(), Some(true));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    bench.codec(&["info", "changed.safetensors", "--verify"]).fails(1, &["damaged or was changed"]);
}
