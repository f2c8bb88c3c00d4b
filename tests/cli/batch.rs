//! Many files at once.

use crate::support::*;

fn folder(bench: &Bench) {
    std::fs::create_dir_all(bench.path("in/deep/er")).unwrap();
    for (i, name) in ["in/a.wav", "in/deep/b.WAV", "in/deep/er/c.wav"].iter().enumerate() {
        bench.steps(name, 1_000 * (i + 1));
    }
    std::fs::write(bench.path("in/notes.md"), "not audio").unwrap();
}

#[test]
fn a_folder_keeps_its_shape_and_resumes() {
    let bench = Bench::new();
    folder(&bench);
    let run = bench.codec(&["encode", "in", "--out-dir", "out", "--format", "npy", "--json", "--threads", "2"]).ok();
    let json = run.json();
    assert_eq!((json["files"].as_array().unwrap().len(), json["samples"].as_u64()), (3, Some(6_000)));
    for name in ["out/a.npy", "out/deep/b.npy", "out/deep/er/c.npy"] {
        assert!(bench.path(name).is_file(), "{name}");
    }
    // What exists is not made again, what is missing is.
    std::fs::remove_file(bench.path("out/deep/b.npy")).unwrap();
    std::fs::write(bench.path("out/a.npy"), "mine").unwrap();
    let json = bench.codec(&["encode", "in", "--out-dir", "out", "--format", "npy", "--json"]).ok().json();
    assert_eq!((json["files"].as_array().unwrap().len(), json["skipped"].as_array().unwrap().len()), (1, 2));
    assert_eq!(std::fs::read(bench.path("out/a.npy")).unwrap(), b"mine");
    bench.codec(&["encode", "in", "--out-dir", "out", "--format", "npy", "--force"]).ok();
    let one = bench.path("single.npy");
    bench.codec(&["encode", "in/a.wav", "single.npy"]).ok();
    assert_eq!(std::fs::read(one).unwrap(), std::fs::read(bench.path("out/a.npy")).unwrap());

    bench.codec(&["decode", "out", "--out-dir", "back"]).ok();
    assert_eq!(read(&bench.path("back/deep/er/c.wav")).0.len(), 3_040);
}

#[test]
fn a_file_that_fails_does_not_stop_the_rest() {
    let bench = Bench::new();
    folder(&bench);
    std::fs::write(bench.path("in/bad.wav"), "").unwrap();
    bench.wav("in/fast.wav", 16_000, 1, &[0.0; 100]);
    let run = bench.codec(&["encode", "in", "--out-dir", "out", "--json"]);
    let run = run.fails(1, &[]).says(&["in/bad.wav: the file is empty", "16000 Hz", "--resample", "2 file(s) failed"]);
    let json = run.json();
    assert_eq!((json["files"].as_array().unwrap().len(), json["failures"].as_array().unwrap().len()), (3, 2));
    assert!(bench.path("out/deep/er/c.nac").is_file());
    assert!(!bench.path("out/bad.nac").exists());
}

#[test]
fn lists_and_collisions() {
    let bench = Bench::new();
    folder(&bench);
    std::fs::write(bench.path("list.txt"), "in/a.wav\n\nin/deep/er/c.wav\nin/absent.wav\n").unwrap();
    bench.codec(&["encode", "list.txt", "--out-dir", "out"]).fails(1, &["in/absent.wav"]);
    assert!(bench.path("out/in/a.nac").is_file() && bench.path("out/in/deep/er/c.nac").is_file());

    let flac = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tone.flac");
    std::fs::copy(flac, bench.path("in/a.flac")).unwrap();
    let run = bench.codec(&["encode", "in", "--out-dir", "two", "--resample"]);
    run.fails(1, &["a.flac", "a.wav", "both become"]);

    std::fs::create_dir(bench.path("nothing")).unwrap();
    bench.codec(&["encode", "nothing", "--out-dir", "o"]).fails(1, &["no files"]).says(&["wav"]);
    bench.codec(&["encode", "gone", "--out-dir", "o"]).fails(1, &["gone"]);
    assert_eq!(bench.codec(&["encode", "in", "x.nac", "--out-dir", "o"]).code, 2);
}
