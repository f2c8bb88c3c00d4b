//! Seconds of compute per second of audio of whole models, encode and decode, as JSON lines: the median of five runs
//! after a warm-up. `compare.py` runs it in turn with the peers.
//!
//! `cargo bench --bench speed -- [--threads N] [--seconds S] [CASE ...]`, cases as in `tests/golden`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use codec::Options;
use support::golden::{self, Case};

fn main() {
    let (mut threads, mut seconds, mut cases) = (1, 10.0, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--threads" => threads = args.next().and_then(|v| v.parse().ok()).expect("--threads N"),
            "--seconds" => seconds = args.next().and_then(|v| v.parse().ok()).expect("--seconds S"),
            // What cargo adds.
            "--bench" => {}
            _ => cases.push(arg),
        }
    }
    if cases.is_empty() {
        cases = ["encodec_24khz", "hificodec_24k_320d", "dac_16khz", "dac_44khz"].map(String::from).to_vec();
    }
    for name in cases {
        let case = Case::load(&golden::committed(), &name);
        let model = support::import_case(&case, &case.tensors());
        let spec = model.spec();
        let samples = (f64::from(spec.sample_rate) * seconds) as usize;
        let noise = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1u32 << 24) as f32 - 0.5;
        let pcm: Vec<f32> =
            (0..samples * spec.channels as usize).map(|i| 0.2 * (i as f32 * 0.0576).sin() + 0.1 * noise(i)).collect();
        // EnCodec at 6 kbit/s, as the peers; the others use all.
        let codebooks = if name.starts_with("encodec_24") { Some(8) } else { None };
        let options = Options { codebooks, threads, max_memory: 16 << 30, ..Options::default() };
        let codes = model.encode(&pcm, &options).unwrap();
        let info = model.info().unwrap();
        let encode = || drop(model.encode(&pcm, &options).unwrap());
        let decode = || drop(model.decode(&codes, None, &options).unwrap());
        let parts: [(&str, &dyn Fn(), f64); 2] = [
            ("encode", &encode, info.encoder.map_or(0.0, |e| e.mmac_per_second)),
            ("decode", &decode, info.decoder.map_or(0.0, |d| d.mmac_per_second)),
        ];
        for (part, run, mmac) in parts {
            run();
            let mut times: Vec<f64> = (0..5)
                .map(|_| {
                    let start = Instant::now();
                    run();
                    start.elapsed().as_secs_f64()
                })
                .collect();
            times.sort_by(f64::total_cmp);
            let rtf = times[2] / seconds;
            let gmac = mmac / 1e3 / rtf;
            println!(
                r#"{{"case":"{name}","part":"{part}","threads":{threads},"rtf":{rtf:.5},"gmac_per_second":{gmac:.2}}}"#
            );
        }
    }
}
