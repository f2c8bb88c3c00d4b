//! `codec eval` and `codec report`.

use crate::support::*;

#[path = "../eval/made.rs"]
mod made;

/// Half a second of silence between syllables of a buzz, in 16-bit steps.
fn voice(rate: u32, seconds: usize) -> Vec<f32> {
    (0..rate as usize * seconds)
        .map(|n| {
            let t = n as f64 / f64::from(rate);
            let buzz: f64 = (1..20).map(|k| (t * 760.0 * f64::from(k)).sin() / f64::from(k)).sum();
            ((t * 8.0).sin().max(0.0) * buzz * 0.3 * 32768.0).round() as f32 / 32768.0
        })
        .collect()
}

fn soft(pcm: &[f32]) -> Vec<f32> {
    pcm.windows(3).map(|w| (w[0] + w[1] + w[2]) / 3.0).collect()
}

#[test]
fn two_files_are_scored() {
    let bench = Bench::new();
    let pcm = voice(16_000, 3);
    bench.wav("a.wav", 16_000, 1, &pcm);
    bench.wav("b.wav", 16_000, 1, &soft(&pcm));
    let run = bench.codec(&["eval", "a.wav", "b.wav", "--json"]).ok();
    let json = run.json();
    let file = &json["groups"][0]["files"][0];
    for key in ["stoi", "estoi", "si_sdr", "mel", "mr_stft", "lsd", "nsim"] {
        assert!(file[key].is_f64(), "{key}: {file}");
        assert_eq!(json["groups"][0]["mean"][key]["n"], 1);
    }
    assert!(file.get("visqol").is_none() && json["groups"][0]["mean"].get("visqol").is_none());
    assert_eq!(file["aligned_by"], "waveform");
    let out = String::from_utf8(bench.codec(&["eval", "a.wav", "b.wav"]).ok().out).unwrap();
    assert!(
        out.contains("ESTOI") && out.contains("NSIM") && !out.contains("ViSQOL") && out.contains("mean of 1"),
        "{out}"
    );
    let same = bench.codec(&["eval", "a.wav", "a.wav", "--no-visqol", "--json"]).ok().json();
    assert_eq!(same["groups"][0]["files"][0]["lsd"], 0.0);
    assert!(same["groups"][0]["files"][0].get("nsim").is_none());
}

#[test]
fn a_lattice_makes_an_opinion_score() {
    let bench = Bench::new();
    let pcm = voice(16_000, 2);
    bench.wav("a.wav", 16_000, 1, &pcm);
    bench.wav("b.wav", 16_000, 1, &soft(&pcm));
    std::fs::write(bench.path("lattice"), made::lattice()).unwrap();
    let args = ["eval", "a.wav", "b.wav", "--visqol", "lattice", "--json", "--report", "page.html"];
    let json = bench.codec(&args).ok().json();
    let file = &json["groups"][0]["files"][0];
    let score = file["visqol"].as_f64().unwrap();
    assert!(file["nsim"].is_f64() && (1.0..=5.0).contains(&score), "{file}");
    assert_eq!(json["groups"][0]["mean"]["visqol"]["mean"], score);
    let html = std::fs::read_to_string(bench.path("page.html")).unwrap();
    assert!(html.contains(">ViSQOL</th>") && html.contains(&format!("ViSQOL {score:.2}")), "{html}");
    // The variable does the same, and `--no-visqol` is stronger than both.
    let with = |args: &[&str]| {
        let mut command = bare(args);
        command.current_dir(bench.path("")).env("CODEC_VISQOL", "lattice");
        Run::of(command).ok()
    };
    let out = String::from_utf8(with(&["eval", "a.wav", "b.wav"]).out).unwrap();
    assert!(out.contains("NSIM") && out.contains("ViSQOL") && out.contains(&format!("{score:.3}")), "{out}");
    let json = with(&["eval", "a.wav", "b.wav", "--no-visqol", "--json"]).json();
    assert!(json["groups"][0]["files"][0].get("nsim").is_none(), "{json}");
    std::fs::write(bench.path("lattice"), &made::lattice()[..5000]).unwrap();
    bench.codec(&args[..5]).fails(1, &["lattice", "5000 bytes"]).says(&["visqol_lattice.py"]);
    bench.codec(&["eval", "a.wav", "b.wav", "--visqol", "nothing"]).fails(1, &["cannot read nothing"]);
}

#[test]
fn folders_are_paired_by_name_and_have_intervals() {
    let bench = Bench::new();
    for folder in ["ref", "deg"] {
        std::fs::create_dir(bench.path(folder)).unwrap();
    }
    for (i, name) in ["x", "y", "z"].iter().enumerate() {
        let pcm = voice(16_000, 1 + i);
        bench.wav(&format!("ref/{name}.wav"), 16_000, 1, &pcm);
        if *name != "z" {
            bench.wav(&format!("deg/{name}.wav"), 16_000, 1, &soft(&pcm));
        }
    }
    let run = bench.codec(&["eval", "ref", "deg", "--no-visqol", "--json"]).ok().says(&["1 original", "z.wav"]);
    let json = run.json();
    let group = &json["groups"][0];
    assert_eq!(group["files"].as_array().unwrap().len(), 2);
    assert_eq!(group["mean"]["mel"]["n"], 2);
    assert!(group["mean"]["mel"]["ci95"].as_f64().unwrap() > 0.0);
    // One bad file among many is named, and the others are scored.
    std::fs::write(bench.path("deg/z.wav"), "RIFFnothing").unwrap();
    let run = bench.codec(&["eval", "ref", "deg", "--no-visqol", "--json"]).fails(1, &["z.wav"]);
    assert_eq!(run.json()["groups"][0]["files"].as_array().unwrap().len(), 2);
    bench.codec(&["eval", "ref", "deg/x.wav"]).fails(2, &["is a folder"]);
    std::fs::create_dir(bench.path("empty")).unwrap();
    bench.codec(&["eval", "ref", "empty"]).fails(1, &["no files"]);
}

#[test]
fn rates_must_agree_unless_resampling_is_asked_for() {
    let bench = Bench::new();
    bench.wav("a.wav", 16_000, 1, &voice(16_000, 1));
    bench.wav("b.wav", 24_000, 1, &voice(24_000, 1));
    bench.codec(&["eval", "a.wav", "b.wav"]).fails(1, &["16000", "24000"]).says(&["--resample"]);
    let json = bench.codec(&["eval", "a.wav", "b.wav", "--resample", "--no-visqol", "--json"]).ok().json();
    assert!(json["groups"][0]["files"][0]["si_sdr"].as_f64().unwrap() > 20.0, "{json}");
    bench.wav("short.wav", 16_000, 1, &[0.1; 50]);
    bench.codec(&["eval", "a.wav", "short.wav"]).fails(1, &["50 samples"]);
    bench.codec(&["eval", "a.wav", "nothing.wav"]).fails(1, &["nothing.wav"]);
    bench.codec(&["eval", "a.wav", "a.wav", "--max-delay", "NaN"]).fails(2, &["delay"]);
    bench.codec(&["eval", "a.wav"]).says(&["required"]);
}

#[test]
fn a_page_needs_nothing_beside_itself() {
    let bench = Bench::new();
    let pcm = voice(16_000, 1);
    bench.wav("<a>.wav", 16_000, 1, &pcm);
    bench.wav("b.wav", 16_000, 1, &soft(&pcm));
    bench.codec(&["eval", "<a>.wav", "b.wav", "--no-visqol", "--report", "page.html"]).ok();
    let html = std::fs::read_to_string(bench.path("page.html")).unwrap();
    assert!(html.contains("&lt;a&gt;") && !html.contains("<a>"));
    assert_eq!(html.matches("data:audio/wav;base64,").count(), 2);
    assert_eq!(html.matches("data:image/png;base64,").count(), 2);
    assert!(!html.contains("http:") && !html.contains("https:"));
    bench.codec(&["eval", "<a>.wav", "b.wav", "--report", "page.html"]).fails(1, &["page.html exists"]);
}

#[test]
fn a_model_is_coded_with_and_scored_in_one_go() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.path("data/deep")).unwrap();
    bench.wav("data/a.wav", RATE, 1, &voice(RATE, 1));
    bench.wav("data/deep/b.wav", RATE, 1, &voice(RATE, 2));
    let args = ["eval", "--data", "data", "--bitrates", "0.4,0.8", "--no-visqol", "--report", "page.html", "--json"];
    let json = bench.codec(&args).ok().json();
    let groups = json["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    for (group, books) in groups.iter().zip([1, 2]) {
        assert_eq!(group["codebooks"], books);
        let uses = group["codebook_use"].as_array().unwrap();
        assert_eq!(uses.len(), books);
        assert!(uses[0]["perplexity"].as_f64().unwrap() > 1.0 && uses[0]["size"] == 16);
        assert!(group["encode_real_time_factor"].as_f64().unwrap() > 0.0);
        let bytes: u64 = group["files"].as_array().unwrap().iter().map(|f| f["bytes"].as_u64().unwrap()).sum();
        assert_eq!(group["bytes"], bytes);
        let kbps = group["kbps"].as_f64().unwrap();
        assert!((kbps - bytes as f64 * 8e-3 / 3.0).abs() < 1e-9, "{kbps}");
    }
    // The bytes are those that `codec encode` writes.
    bench.codec(&["encode", "data/a.wav", "a.nac", "--bandwidth", "0.4"]).ok();
    let size = std::fs::metadata(bench.path("a.nac")).unwrap().len();
    assert_eq!(groups[0]["files"][0]["bytes"], size);
    assert!(groups[1]["mean"]["si_sdr"]["mean"].as_f64() > groups[0]["mean"]["si_sdr"]["mean"].as_f64());
    let html = std::fs::read_to_string(bench.path("page.html")).unwrap();
    assert_eq!(html.matches("data:audio/wav;base64,").count(), 6);
    assert_eq!(html.matches("data:image/png;base64,").count(), 8);
    bench.codec(&["eval", "--data", "data", "--bitrates", "7"]).fails(1, &["7 kbps"]);
    bench.wav("data/c.wav", 16_000, 1, &voice(16_000, 1));
    bench.codec(&["eval", "--data", "data", "--no-visqol"]).fails(1, &["c.wav", "16000"]).says(&["--resample"]);
}

#[test]
fn codes_of_a_file_are_on_the_page() {
    let bench = Bench::new();
    bench.wav("a.wav", RATE, 1, &voice(RATE, 1));
    bench.codec(&["encode", "a.wav", "a.nac"]).ok();
    bench.codec(&["decode", "a.nac", "b.wav"]).ok();
    bench.codec(&["eval", "a.wav", "b.wav", "--no-visqol", "--codes", "a.nac", "--report", "p.html"]).ok();
    let html = std::fs::read_to_string(bench.path("p.html")).unwrap();
    assert!(html.contains("100 frames of 2"), "codes");
    assert_eq!(html.matches("data:image/png;base64,").count(), 3);
}

fn training_run(bench: &Bench) {
    for folder in ["run/validation/reference", "run/validation/step-000000010", "run/validation/step-000000020"] {
        std::fs::create_dir_all(bench.path(folder)).unwrap();
        bench.wav(&format!("{}/0.wav", folder), 16_000, 1, &voice(16_000, 1));
    }
    let line = |step: u64| {
        let loss = 5.0 / (1.0 + step as f64);
        format!(
            "{{\"step\":{step},\"losses\":{{\"mel\":{loss},\"feature\":null}},\"gradient_norms\":{{\"codec\":1.5}},\
             \"rate\":0.0003,\"perplexity\":[{step}.5,2.0],\"dead\":[0.5,0.25]}}\n"
        )
    };
    let metrics: String = (0..3000).map(line).collect();
    std::fs::write(bench.path("run/metrics.jsonl"), metrics + "{\"step\":3000,\"los").unwrap();
    let validation = "{\"step\":10,\"mel\":3.0,\"si_sdr\":-2.0}\n{\"step\":20,\"mel\":2.0,\"si_sdr\":1.0}\n";
    std::fs::write(bench.path("run/validation.jsonl"), validation).unwrap();
    std::fs::write(bench.path("run/recipe.toml"), "seed = 0 # <b>\n").unwrap();
}

#[test]
fn a_training_run_has_a_page() {
    let bench = Bench::new();
    training_run(&bench);
    let json = bench.codec(&["report", "run", "--json"]).ok().json();
    assert_eq!((json["steps"].as_f64(), json["validations"].as_u64()), (Some(3000.0), Some(2)));
    let html = std::fs::read_to_string(bench.path("run/report.html")).unwrap();
    for part in ["mel", "codec", "Perplexity", "Share of dead entries", "book 2", "After 20 steps", "# &lt;b&gt;"] {
        assert!(html.contains(part), "{part}");
    }
    // Two validation curves, a loss, a norm, perplexities, dead shares, the rate; a loss that never was a number is left out.
    assert_eq!(html.matches("<svg").count(), 7);
    assert_eq!(html.matches("data:audio/wav;base64,").count(), 3);
    bench.codec(&["report", "run"]).fails(1, &["report.html exists"]);
    bench.codec(&["report", "run", "-o", "other.html", "--items", "0"]).ok();
    assert!(!std::fs::read_to_string(bench.path("other.html")).unwrap().contains("data:audio"));
}

#[test]
fn what_is_no_run_is_an_error() {
    let bench = Bench::new();
    bench.codec(&["report", "nowhere"]).fails(1, &["nowhere"]);
    std::fs::create_dir(bench.path("run")).unwrap();
    bench.codec(&["report", "run"]).fails(1, &["metrics.jsonl"]);
    std::fs::write(bench.path("run/metrics.jsonl"), "{\"step\":0}\nnot json\n").unwrap();
    bench.codec(&["report", "run"]).fails(1, &["line 2"]);
    std::fs::write(bench.path("run/metrics.jsonl"), vec![b' '; 3 << 20]).unwrap();
    bench.codec(&["report", "run"]).fails(1, &["line 1"]);
    bench.assert_only(&["run"]);
}
