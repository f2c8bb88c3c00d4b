//! The model in the box: no `--model`.

use std::path::Path;

use crate::support::*;

fn sample() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/speech.wav").to_str().unwrap().to_owned()
}

/// `codec` in the folder, with no model given.
fn codec(bench: &Bench, args: &[&str]) -> Run {
    let mut command = bare(args);
    command.current_dir(bench.folder.path());
    Run::of(command)
}

#[test]
fn speech_into_tokens_and_back_without_a_model() {
    let bench = Bench::new();
    let run = codec(&bench, &["encode", &sample(), "x.nac"]).ok();
    let said = String::from_utf8(run.out).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "model: nano-16k, the model in the box", "{said}");
    assert!(lines[1].contains("8.50 s, 426 frames of 20 codebook(s)") && lines[1].contains(" kbps"), "{said}");

    let run = codec(&bench, &["decode", "x.nac", "x.wav"]).ok();
    assert!(String::from_utf8(run.out).unwrap().starts_with("model: nano-16k, the model in the box\n"));
    let ((given, rate), (made, rate_made)) = (read(Path::new(&sample())), read(&bench.path("x.wav")));
    assert_eq!((made.len(), rate_made), (given.len(), rate));

    let info = codec(&bench, &["info", "x.nac", "--json"]).ok().json();
    assert_eq!(info["samples"].as_u64(), Some(given.len() as u64));
}

#[test]
fn its_bitrates() {
    let bench = Bench::new();
    for (bandwidth, codebooks) in [("1.5", 5), ("3", 10), ("6", 20)] {
        let name = format!("{bandwidth}.nac");
        let json = codec(&bench, &["--json", "encode", &sample(), &name, "--bitrate", bandwidth]).ok().json();
        assert_eq!((json["codec"].as_str(), json["model"].as_str()), (Some("nano-16k"), Some("the model in the box")));
        let file = &json["files"][0];
        assert_eq!((file["codebooks"].as_u64(), file["frames"].as_u64()), (Some(codebooks), Some(426)));
        // What the file takes: the codes, and a little for header, checksums and the end.
        let (wanted, found): (f64, f64) = (bandwidth.parse().unwrap(), file["kbps"].as_f64().unwrap());
        assert!((wanted..wanted + 0.3).contains(&found), "{wanted} kbit/s asked for, {found} in the file");
        codec(&bench, &["decode", &name, &format!("{bandwidth}.wav")]).ok();
        assert_eq!(read(&bench.path(&format!("{bandwidth}.wav"))).0.len(), 136_038);
    }
    codec(&bench, &["encode", &sample(), "4.nac", "--bandwidth", "4"])
        .fails(1, &["4 kbps"])
        .says(&["1.5 (5 codebooks), 3 (10 codebooks), 6 (20 codebooks)"]);
    // A file of this model is not another model's.
    bench.codec(&["decode", "3.nac", "other.wav"]).fails(1, &["3.nac"]);
}
