//! Seconds of compute per second of audio of whole models, encode and decode, as JSON lines: the median of five runs
//! after a warm-up. `compare.py` runs it in turn with the peers.
//!
//! `cargo bench --bench speed -- [--threads N] [--seconds S] [--frames] [--precision P] [CASE ...]`, cases as in
//! `tests/golden`. `--frames` goes frame by frame, as on a line; `--precision` says how weights are held, `f32` (the default),
//! `f16` or `i8`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use codec::{Codes, Options, core::weights::Precision};
use support::golden::{self, Case};

fn main() {
    let (mut threads, mut seconds, mut by_frame, mut cases) = (1, 10.0, false, Vec::new());
    let mut precision = Precision::F32;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--threads" => threads = args.next().and_then(|v| v.parse().ok()).expect("--threads N"),
            "--seconds" => seconds = args.next().and_then(|v| v.parse().ok()).expect("--seconds S"),
            "--frames" => by_frame = true,
            "--precision" => {
                precision = match args.next().as_deref() {
                    Some("f32") => Precision::F32,
                    Some("f16") => Precision::F16,
                    Some("i8") => Precision::I8,
                    _ => panic!("--precision f32, f16 or i8"),
                }
            }
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
        let model = support::import_case(&case, &case.tensors()).with_precision(precision);
        let spec = model.spec();
        let samples = (f64::from(spec.sample_rate) * seconds) as usize;
        let noise = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1u32 << 24) as f32 - 0.5;
        let pcm: Vec<f32> =
            (0..samples * spec.channels as usize).map(|i| 0.2 * (i as f32 * 0.0576).sin() + 0.1 * noise(i)).collect();
        // EnCodec at 6 kbit/s and Mimi as Moshi has it, as the peers; the others use all.
        let codebooks = if name.starts_with("encodec_24") || name.starts_with("mimi") { Some(8) } else { None };
        let options = Options { codebooks, threads, max_memory: 16 << 30, ..Options::default() };
        let codes = model.encode(&pcm, &options).unwrap();
        let info = model.info().unwrap();
        let encode = || {
            if !by_frame {
                return drop(model.encode(&pcm, &options).unwrap());
            }
            let mut encoder = model.encoder(&options).unwrap();
            let mut out = Codes::new(encoder.codebooks());
            for frame in pcm.chunks((spec.hop * spec.channels) as usize) {
                encoder.push(frame, &mut out).unwrap();
            }
            encoder.finish(&mut out).unwrap();
        };
        let decode = || {
            if !by_frame {
                return drop(model.decode(&codes, None, &options).unwrap());
            }
            let decoding = Options { codebooks: Some(codes.codebooks), ..options.clone() };
            let (mut decoder, mut out) = (model.decoder(&decoding).unwrap(), Vec::new());
            for frame in codes.data.chunks(codes.codebooks) {
                let frame = Codes { codebooks: codes.codebooks, data: frame.to_vec(), segments: vec![] };
                decoder.push(&frame, &mut out).unwrap();
            }
            decoder.finish(&mut out).unwrap();
        };
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
                r#"{{"case":"{name}","part":"{part}","precision":"{precision:?}","threads":{threads},"rtf":{rtf:.5},"gmac_per_second":{gmac:.2}}}"#
            );
        }
    }
}
