//! Some of the codebooks by themselves.

use crate::support::*;

const KINDS: [&str; 4] = ["nac", "npy", "safetensors", "jsonl"];

fn decoded(bench: &Bench, tokens: &str, more: &[&str]) -> Vec<f32> {
    let mut args = vec!["decode", tokens, "out.wav", "--force", "--sample-format", "f32"];
    args.extend(more);
    bench.codec(&args).ok();
    read(&bench.path("out.wav")).0
}

/// The decoder is linear, so what the codebooks make by themselves adds up to what they make together.
#[test]
fn parts_add_up_to_the_whole() {
    let bench = Bench::new();
    bench.steps("in.wav", 8_000);
    for kind in KINDS {
        let tokens = format!("all.{kind}");
        bench.codec(&["encode", "in.wav", &tokens]).ok();
        let whole = decoded(&bench, &tokens, &[]);
        let (first, second) =
            (decoded(&bench, &tokens, &["--books", "0..1"]), decoded(&bench, &tokens, &["--books", "1..2"]));
        assert!(first != whole && second.iter().any(|v| *v != 0.0), "{kind}");
        for ((a, b), whole) in first.iter().zip(&second).zip(&whole) {
            assert!((a + b - whole).abs() < 1e-6, "{kind}: {a} + {b} for {whole}");
        }
        assert_eq!(decoded(&bench, &tokens, &["--books", "0..2"]), whole, "{kind}");
    }
}

#[test]
fn a_file_of_some_codebooks_says_which_they_are() {
    let bench = Bench::new();
    bench.steps("in.wav", 8_000);
    bench.codec(&["encode", "in.wav", "all.jsonl"]).ok();
    let second = decoded(&bench, "all.jsonl", &["--books", "1..2"]);
    for kind in KINDS {
        let tokens = format!("second.{kind}");
        bench.codec(&["encode", "in.wav", &tokens, "--books", "1..2"]).ok();
        let info = bench.codec(&["info", &tokens, "--json"]).ok().json();
        assert_eq!(info["codebooks"], 1, "{kind}");
        if kind == "npy" {
            // It says nothing: without the option these would be codes of the first codebook.
            assert_ne!(decoded(&bench, &tokens, &[]), second);
        } else {
            assert!(info["levels"].as_str().unwrap().contains("from book 1 on"), "{info}");
            assert_eq!(decoded(&bench, &tokens, &[]), second, "{kind}");
            let asked = bench.codec(&["decode", &tokens, "no.wav", "--books", "0..1"]);
            asked.fails(1, &["codebooks 0 to 0 are asked for", "it has 1 to 1"]);
        }
        assert_eq!(decoded(&bench, &tokens, &["--books", "1..2"]), second, "{kind}");
    }
    // In the shapes that files do not state, with ids of their own for the codes.
    for (shape, more) in [("flat", &["--codebooks", "1"][..]), ("delay", &[])] {
        bench.codec(&["encode", "in.wav", "ids.npy", "--force", "--books", "1..2", "--shape", shape, "--offsets"]).ok();
        let options = ["--books", "1..2", "--shape", shape, "--offsets"];
        assert_eq!(decoded(&bench, "ids.npy", &[&options, more].concat()), second, "{shape}");
    }
}

#[test]
fn levels_are_not_cut() {
    let bench = Bench::new();
    levels_model(&bench.path("model.safetensors"));
    bench.steps("in.wav", 8_000);
    // Frames of 1 + 2 + 4 codes.
    for books in ["0..2", "2..7", "1..5"] {
        bench.codec(&["encode", "in.wav", "t.nac", "--books", books]).fails(1, &[]);
    }
    bench.codec(&["encode", "in.wav", "all.nac"]).ok();
    for (books, from) in [("1..3", "from book 1 on"), ("3..7", "from book 2 on"), ("1..7", "from book 1 on")] {
        for kind in ["nac", "safetensors", "jsonl"] {
            let tokens = format!("part.{kind}");
            bench.codec(&["encode", "in.wav", &tokens, "--force", "--books", books]).ok();
            let info = bench.codec(&["info", &tokens, "--json"]).ok().json();
            assert!(info["levels"].as_str().unwrap().contains(from), "{info}");
            assert_eq!(
                decoded(&bench, &tokens, &[]),
                decoded(&bench, "all.nac", &["--books", books]),
                "{books} {kind}"
            );
        }
    }
    bench.codec(&["decode", "all.nac", "no.wav", "--books", "1..2"]).fails(1, &[]);
}

#[test]
fn wrong_ranges_are_refused() {
    let bench = Bench::new();
    bench.steps("in.wav", 800);
    for books in ["1..1", "2..1", "1", "..2", "a..b", "-1..2"] {
        assert_eq!(bench.codec(&["encode", "in.wav", "t.nac", &format!("--books={books}")]).code, 2, "{books}");
    }
    assert_eq!(bench.codec(&["encode", "in.wav", "t.nac", "--books", "0..1", "--codebooks", "1"]).code, 2);
    bench.codec(&["encode", "in.wav", "t.nac", "--books", "1..3"]).fails(1, &["3 codebooks", "1 to 2"]);
    bench.codec(&["encode", "in.wav", "t.nac"]).ok();
    bench.codec(&["decode", "t.nac", "o.wav", "--books", "1..3"]).fails(1, &["3"]);
    // A seed for a decoder without noise.
    bench.codec(&["decode", "t.nac", "o.wav", "--noise-seed", "1"]).fails(1, &["noise"]);
    bench.assert_only(&["in.wav", "t.nac"]);
}
