//! What weights in f16 and int8 cost on published systems: the golden cases beside themselves.

mod support;

use codec::{Comparison, Options, core::weights::Precision};
use support::golden::{self, Case};

/// The case's own signal, by the model and by it in another precision.
fn compare(name: &str, precision: Precision) -> Comparison {
    let case = Case::load(&golden::committed(), name);
    let tensors = case.tensors();
    let [full, lower] = [Precision::F32, precision].map(|p| support::import_case(&case, &tensors).with_precision(p));
    let pcm = case.array("pcm").channels_last();
    let codebooks = Some(8);
    let found = full.compare(&lower, &pcm, &Options { codebooks, threads: 0, ..Options::default() }).unwrap();
    let latent = found.encoder.last().and_then(|l| l.snr_db).unwrap_or(f64::INFINITY);
    let samples = found.samples_snr_db.unwrap_or(f64::INFINITY);
    let equal = 100.0 * found.equal_codes.unwrap();
    println!("{name} {precision:?}: latents {latent:.1} dB, {equal:.1} % equal codes, samples {samples:.1} dB");
    found
}

fn check(name: &str, precision: Precision, latents: f64, samples: f64) {
    let found = compare(name, precision);
    assert!(found.encoder.last().and_then(|l| l.snr_db).is_some_and(|snr| snr > latents));
    assert!(found.samples_snr_db.is_some_and(|snr| snr > samples));
}

#[test]
fn encodec_in_halves() {
    check("encodec_24khz", Precision::F16, 50.0, 50.0);
}

#[test]
fn encodec_in_int8() {
    check("encodec_24khz", Precision::I8, 25.0, 25.0);
}

#[test]
fn mimi_in_halves() {
    check("mimi", Precision::F16, 50.0, 50.0);
}

#[test]
fn mimi_in_int8() {
    check("mimi", Precision::I8, 25.0, 25.0);
}
