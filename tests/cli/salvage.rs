//! Damaged `.nac` files.

use crate::support::*;

#[test]
fn what_is_left_is_decoded_in_place_with_silence_between() {
    let bench = Bench::new();
    bench.steps("in.wav", 160_000);
    bench.codec(&["encode", "in.wav", "t.nac"]).ok();
    bench.codec(&["decode", "t.nac", "whole.wav", "--sample-format", "f32"]).ok();
    let (whole, _) = read(&bench.path("whole.wav"));
    let mut bytes = std::fs::read(bench.path("t.nac")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(bench.path("bad.nac"), &bytes).unwrap();
    bench.codec(&["decode", "bad.nac", "o.wav"]).fails(1, &["bad.nac"]).says(&["--salvage"]);

    let run = bench.codec(&["decode", "bad.nac", "o.wav", "--salvage", "--sample-format", "f32", "--json"]).ok();
    let json = run.json();
    let run = run.says(&["warning: bad.nac", "frame(s) from frame", "silence"]);
    drop(run);
    let lost = &json["files"][0]["lost"][0];
    let (first, frames) = (lost["first_frame"].as_u64().unwrap() as usize, lost["frames"].as_u64().unwrap() as usize);
    assert!(frames > 0 && lost["silence"].as_u64() == Some(frames as u64 * 80));
    let (out, _) = read(&bench.path("o.wav"));
    assert_eq!(out.len(), 160_000);
    let gap = first * 80..(first + frames) * 80;
    assert!(out[gap.clone()].iter().all(|&s| s == 0.0));
    assert_eq!(out[..gap.start], whole[..gap.start]);
    assert_eq!(out[gap.end..], whole[gap.end..]);
}

#[test]
fn a_cut_file_keeps_its_length_if_that_is_known() {
    let bench = Bench::new();
    bench.steps("in.wav", 160_000);
    bench.codec(&["encode", "in.wav", "t.nac"]).ok();
    let bytes = std::fs::read(bench.path("t.nac")).unwrap();
    std::fs::write(bench.path("t.nac"), &bytes[..bytes.len() / 2]).unwrap();
    bench.codec(&["decode", "t.nac", "o.wav"]).fails(1, &["t.nac"]).says(&["--salvage"]);
    let run = bench.codec(&["decode", "t.nac", "o.wav", "--salvage", "--json"]).ok();
    let json = run.json();
    run.says(&["warning", "damaged or missing"]);
    assert!(json["files"][0]["lost"][0]["frames"].is_null());
    let (out, _) = read(&bench.path("o.wav"));
    assert_eq!(out.len(), 160_000);
    assert!(out[..8_000].iter().any(|&s| s != 0.0) && out[159_000..].iter().all(|&s| s == 0.0));
}

#[test]
fn an_undamaged_file_is_the_same_in_salvage() {
    let bench = Bench::new();
    bench.steps("in.wav", 50_001);
    bench.codec(&["encode", "in.wav", "t.nac"]).ok();
    bench.codec(&["decode", "t.nac", "a.wav"]).ok();
    let run = bench.codec(&["decode", "t.nac", "b.wav", "--salvage"]).ok();
    assert!(run.err.is_empty(), "{}", run.err);
    assert_eq!(std::fs::read(bench.path("a.wav")).unwrap(), std::fs::read(bench.path("b.wav")).unwrap());
}

#[test]
fn segments_around_damage_stay_in_their_place() {
    let bench = Bench::new();
    segmented_model(&bench.path("segments.safetensors"));
    let with = |args: &[&str]| bench.codec(&[args, &["--model", "segments.safetensors"]].concat());
    bench.steps("in.wav", 160_001);
    with(&["encode", "in.wav", "t.nac"]).ok();
    with(&["decode", "t.nac", "whole.wav"]).ok();
    let mut bytes = std::fs::read(bench.path("t.nac")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(bench.path("t.nac"), &bytes).unwrap();
    with(&["decode", "t.nac", "o.wav"]).fails(1, &["t.nac"]);
    let json = with(&["decode", "t.nac", "o.wav", "--salvage", "--json"]).ok().json();
    let lost = json["files"][0]["lost"].as_array().unwrap();
    assert!(!lost.is_empty());
    let (whole, out) = (read(&bench.path("whole.wav")).0, read(&bench.path("o.wav")).0);
    assert_eq!(out.len(), 160_001);
    let differ: Vec<usize> = (0..out.len()).filter(|&n| out[n] != whole[n]).collect();
    let (first, last) = (differ[0], differ[differ.len() - 1]);
    // Around the middle, and no further than what was lost and the segments that reach into it.
    let silence: u64 = lost.iter().map(|l| l["silence"].as_u64().unwrap()).sum();
    assert!(
        first > 40_000 && last < 120_000 && last - first < silence as usize + 2 * 800,
        "{first} to {last}: {lost:?}"
    );
}
