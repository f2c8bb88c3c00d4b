//! Tokens in the shapes that language models want.

use crate::support::*;

/// The ids of an npy file that `codec` wrote, and its header.
fn npy(bench: &Bench, name: &str) -> (Vec<i32>, String) {
    let bytes = std::fs::read(bench.path(name)).unwrap();
    let ids = bytes[128..].chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
    (ids, String::from_utf8_lossy(&bytes[..128]).into_owned())
}

/// An npy file of one axis.
fn sequence(bench: &Bench, name: &str, ids: &[i32]) {
    let header = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': ({},), }}", ids.len());
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(format!("{header:<117}\n").bytes());
    bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    std::fs::write(bench.path(name), bytes).unwrap();
}

const SHAPES: &[&[&str]] = &[
    &[],
    &["--offsets"],
    &["--shape", "grid"],
    &["--shape", "flat"],
    &["--shape", "flat", "--offsets"],
    &["--shape", "tree", "--offsets"],
    &["--shape", "delay"],
    &["--shape", "delay", "--pad", "2048"],
    &["--shape", "delay", "--delays", "3,1", "--offsets"],
];

#[test]
fn every_shape_comes_back_from_every_kind_of_file() {
    let bench = Bench::new();
    bench.steps("in.wav", 9_999);
    levels_model(&bench.path("levels.safetensors"));
    for (model, codes) in [("model.safetensors", 2), ("levels.safetensors", 7)] {
        let codec = |args: &[&str], more: &[&str]| bench.codec(&[args, more, &["--model", model, "--force"]].concat());
        codec(&["encode", "in.wav", "plain.nac"], &[]).ok();
        codec(&["decode", "plain.nac", "plain.wav"], &[]).ok();
        let plain = read(&bench.path("plain.wav")).0;
        for &shape in SHAPES {
            if codes == 7 && shape.contains(&"--delays") {
                let text = codec(&["encode", "in.wav", "t.npy"], shape).fails(2, &["2 delays", "7 codes"]);
                text.says(&["--delays"]);
                continue;
            }
            for kind in ["npy", "safetensors", "jsonl"] {
                let tokens = format!("t.{kind}");
                codec(&["encode", "in.wav", &tokens], shape).ok();
                // Only npy does not say what it holds.
                let given = if kind == "npy" { shape } else { &[] };
                codec(&["decode", &tokens, "out.wav"], given).ok();
                let out = read(&bench.path("out.wav")).0;
                assert_eq!(out[..9_999], plain[..], "{model}, {kind}, {shape:?}");
                codec(&["decode", &tokens, "out.wav"], shape).ok();
            }
        }
    }
}

#[test]
fn ids_are_where_they_should_be() {
    let bench = Bench::new();
    bench.steps("in.wav", 800);
    bench.codec(&["encode", "in.wav", "grid.npy"]).ok();
    let (grid, head) = npy(&bench, "grid.npy");
    assert!(head.contains("'shape': (2, 10)"), "{head}");
    bench.codec(&["encode", "in.wav", "flat.npy", "--shape", "flat", "--offsets"]).ok();
    let (flat, head) = npy(&bench, "flat.npy");
    assert!(head.contains("'shape': (20,)"), "{head}");
    let expected: Vec<i32> = grid.iter().enumerate().map(|(i, code)| code + 16 * (i as i32 % 2)).collect();
    assert_eq!(flat, expected);
    bench.codec(&["encode", "in.wav", "delay.npy", "--shape", "delay", "--pad", "99"]).ok();
    let (delay, head) = npy(&bench, "delay.npy");
    assert!(head.contains("'shape': (2, 11)"), "{head}");
    let rows = |i: usize| delay.iter().skip(i).step_by(2).copied().collect::<Vec<_>>();
    let row = |i: usize| grid.iter().skip(i).step_by(2).copied();
    assert_eq!(rows(0), row(0).chain([99]).collect::<Vec<_>>());
    assert_eq!(rows(1), [99].into_iter().chain(row(1)).collect::<Vec<_>>());

    levels_model(&bench.path("levels.safetensors"));
    bench.codec(&["encode", "in.wav", "grid.npy", "-m", "levels.safetensors", "--force"]).ok();
    bench.codec(&["encode", "in.wav", "tree.npy", "-m", "levels.safetensors", "--shape", "tree", "--offsets"]).ok();
    let (grid, tree) = (npy(&bench, "grid.npy").0, npy(&bench, "tree.npy").0);
    assert_eq!(tree.len(), 21);
    for (frame, ids) in grid.chunks(7).zip(tree.chunks(7)) {
        let ordered: Vec<i32> =
            [0, 1, 3, 4, 2, 5, 6].iter().enumerate().map(|(slot, &code)| frame[code] + 16 * slot as i32).collect();
        assert_eq!(ids, ordered);
    }
    let info = bench.codec(&["encode", "in.wav", "t.jsonl", "-m", "levels.safetensors", "--shape", "tree"]).ok();
    drop(info);
    let info = bench.codec(&["info", "t.jsonl", "--json"]).ok().json();
    assert_eq!(info["shape"], "tree");
    assert_eq!(info["levels"], "1 book of 16 × 1, 1 book of 16 × 2, 1 book of 16 × 4");
}

#[test]
fn files_of_language_models_that_are_wrong_say_where() {
    let bench = Bench::new();
    let decode = |name: &str, shape: &[&str]| bench.codec(&[&["decode", name, "o.wav", "--force"], shape].concat());
    sequence(&bench, "a.npy", &[1, 18, 3, 20]);
    let flat = ["--shape", "flat", "--offsets"];
    decode("a.npy", &flat).ok();
    assert_eq!(read(&bench.path("o.wav")).0.len(), 160);
    decode("a.npy", &["--shape", "flat", "--codebooks", "1"]).fails(1, &["code 18", "frame 1", "0 to 15"]);
    sequence(&bench, "b.npy", &[1, 18, 3]);
    decode("b.npy", &flat).fails(1, &["b.npy", "3 ids", "frames of 2", "last 1"]).says(&["--codebooks"]);
    sequence(&bench, "c.npy", &[1, 18, 3, 5]);
    decode("c.npy", &flat).fails(1, &["code 5", "frame 1", "codebook 1", "16 to 31"]);
    sequence(&bench, "d.npy", &[1, -18]);
    decode("d.npy", &flat).fails(1, &["code -18", "frame 0", "codebook 1"]);
    decode("a.npy", &["--shape", "flat", "--codebooks", "3"]).fails(1, &["3 codebooks", "1 to 2"]);
    bench.steps("in.wav", 800);
    bench.codec(&["encode", "in.wav", "grid.npy"]).ok();
    decode("grid.npy", &flat).fails(1, &["one sequence", "[2, 10]"]);

    bench.codec(&["encode", "in.wav", "t.jsonl", "--shape", "delay"]).ok();
    let text = std::fs::read_to_string(bench.path("t.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 13);
    let put = |lines: &[&str]| std::fs::write(bench.path("u.jsonl"), lines.join("\n")).unwrap();
    // Without its last column.
    put(&[&lines[..11], &lines[12..]].concat());
    decode("u.jsonl", &[]).fails(1, &["of 10 columns", "column 9, row 0", "not the pad 16", "cut short"]);
    // Without its end.
    put(&lines[..12]);
    decode("u.jsonl", &[]).fails(1, &["cut off"]);
    let pad = lines[1].replace("16", "17");
    put(&[&[lines[0], &pad], &lines[2..]].concat());
    decode("u.jsonl", &[]).fails(1, &["column 0, row 1", "holds 17", "pad 16"]).says(&["--pad"]);
    decode("t.jsonl", &["--shape", "flat"]).fails(1, &["its shape is delay [0, 1] with pad 16, and not flat"]);
    decode("t.jsonl", &["--shape", "delay", "--pad", "20"]).fails(1, &["with pad 16, and not", "pad 20"]);
}

#[test]
fn shapes_that_cannot_be_are_refused_before_anything_is_written() {
    let bench = Bench::new();
    bench.steps("in.wav", 800);
    let encode = |name: &str, shape: &[&str]| bench.codec(&[&["encode", "in.wav", name], shape].concat());
    encode("t.nac", &["--shape", "flat"]).fails(2, &[".nac", "shape"]).says(&["--shape"]);
    encode("t.npy", &["--pad", "20"]).fails(2, &["pad of 20", "only a delay pattern"]);
    encode("t.npy", &["--shape", "delay", "--pad", "15"]).fails(2, &["pad of 15", "from 16"]);
    encode("t.npy", &["--shape", "flat", "--delays", "0,1"]).fails(2, &["--delays"]);
    encode("t.npy", &["--shape", "delay", "--delays", "0,1,2"]).fails(2, &["3 delays", "2 codes"]);
    encode("t.npy", &["--shape", "delay", "--delays", "0,9999"]).fails(2, &["9999"]);
    encode("t.npy", &["--shape", "ring"]).says(&["grid", "flat", "delay", "tree"]);
    let out = ["encode", "in.wav", "--out-dir", "o", "--shape", "flat"];
    bench.codec(&out).fails(2, &[".nac"]);
    segmented_model(&bench.path("segmented.safetensors"));
    encode("t.jsonl", &["-m", "segmented.safetensors", "--shape", "delay"]).fails(2, &["segments"]);
    bench.assert_only(&["in.wav", "segmented.safetensors"]);
    for kind in ["jsonl", "safetensors"] {
        let name = format!("t.{kind}");
        encode(&name, &["-m", "segmented.safetensors", "--shape", "flat", "--offsets"]).ok();
        bench.codec(&["decode", &name, "o.wav", "-m", "segmented.safetensors", "--force"]).ok();
        assert_eq!(read(&bench.path("o.wav")).0.len(), 800);
    }
    bench.codec(&["encode", "in.wav", "--out-dir", "o", "--format", "npy", "--shape", "flat"]).ok();
    bench.codec(&["encode", "in.wav", "t.nac"]).ok();
    bench.codec(&["decode", "t.nac", "p.wav", "--shape", "flat"]).fails(1, &["t.nac", "no shape"]);
}

#[test]
fn levels_that_are_not_the_models_are_named() {
    let bench = Bench::new();
    let text = |levels: &str| {
        let head = format!(r#"{{"format":"codec-tokens","version":1,"codebooks":2,"levels":[{levels}]}}"#);
        std::fs::write(bench.path("t.jsonl"), format!("{head}\n[1,2]\n{{\"end\":{{}}}}\n")).unwrap();
        bench.codec(&["decode", "t.jsonl", "o.wav", "--force"])
    };
    text(r#"{"first_book":0,"books":2,"steps":1,"size":16}"#).ok();
    text(r#"{"first_book":0,"books":1,"steps":1,"size":16},{"first_book":1,"books":1,"steps":1,"size":16}"#).ok();
    text(r#"{"first_book":0,"books":1,"steps":2,"size":16}"#)
        .fails(1, &["levels of its codes are 1 book of 16 × 2", "mean of a hop", "2 books of 16 × 1"]);
    text(r#"{"first_book":0,"books":2,"steps":1,"size":32}"#).fails(1, &["2 books of 32 × 1"]);
    text(r#"{"first_book":0,"books":3,"steps":1,"size":16}"#).fails(1, &["2 codes a frame", "3 books of 16 × 1"]);
    bench.steps("in.wav", 800);
    levels_model(&bench.path("levels.safetensors"));
    bench.codec(&["encode", "in.wav", "l.npy", "-m", "levels.safetensors", "-n", "2"]).fails(1, &["cut a level"]);
    bench.codec(&["encode", "in.wav", "l.npy", "-m", "levels.safetensors", "-n", "3", "--shape", "tree"]).ok();
    bench.codec(&["decode", "l.npy", "l.wav", "-m", "levels.safetensors", "-n", "3", "--shape", "tree"]).ok();
}

#[test]
fn merged_books_are_the_same_in_pairs_of_frames_and_decode_as_ever() {
    let bench = Bench::new();
    let pcm: Vec<f32> = (0..8_040).map(|n| (n as f32 * 0.004).sin() * 0.7).collect();
    bench.wav("in.wav", RATE, 1, &pcm);
    bench.codec(&["encode", "in.wav", "a.npy", "--merge-books", "1"]).ok();
    let (codes, _) = npy(&bench, "a.npy");
    assert_eq!(codes.len(), 2 * 101);
    for pair in codes.chunks_exact(4) {
        assert_eq!(pair[0], pair[2]);
    }
    assert!(codes.chunks_exact(4).any(|pair| pair[1] != pair[3]));
    bench.codec(&["encode", "in.wav", "b.npy"]).ok();
    assert_ne!(npy(&bench, "b.npy").0, codes);
    bench.codec(&["encode", "in.wav", "a.nac", "--merge-books", "1", "--beam", "4"]).ok();
    bench.codec(&["decode", "a.nac", "a.wav"]).ok();
    let out = read(&bench.path("a.wav")).0;
    assert_eq!(out.len(), pcm.len());
    // Half the rate costs something; but it is still the signal.
    let power = |x: &mut dyn Iterator<Item = f32>| x.map(|v| v * v).sum::<f32>();
    let error = power(&mut pcm.iter().zip(&out).map(|(a, b)| a - b));
    assert!(error < 0.05 * power(&mut pcm.iter().copied()), "{error}");
    bench.codec(&["encode", "in.wav", "c.npy", "--merge-books", "3"]).fails(1, &["3 codebooks", "1 to 2"]);
    levels_model(&bench.path("levels.safetensors"));
    bench.codec(&["encode", "in.wav", "c.npy", "--merge-books", "1", "-m", "levels.safetensors"]).fails(1, &["merged"]);
}
