//! What wider beams buy: squared error and time of encoding latents with widths 1, 2, 4 and 8.
//!
//! `beam QUANTIZER.json TENSORS.safetensors LATENTS.safetensors`: a quantizer's spec, the tensors that it names
//! (f32), and a file with an array `latents`, `[frames, dim]`. Without arguments: the parity case `residual_vq`.

#[path = "../tests/support/golden.rs"]
mod golden;
#[path = "../tests/support/quantizer.rs"]
mod support;

use std::error::Error;
use std::time::Instant;

use codec_core::quantizer::Quantizer;
use codec_core::spec;
use golden::{Case, TensorMap, read_arrays};
use support::{decode, encode, residual_vq};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (spec, tensors, latents) = match args.as_slice() {
        [] => {
            let case = Case::load(&golden::committed(), "residual_vq");
            let mut tensors = case.tensors();
            for i in 0..6 {
                tensors.rename(&format!("layers.{i}._codebook.embed"), &format!("layers.{i}.codebook"), &[256, 64]);
            }
            (residual_vq("layers", 6, 256, 64), tensors, case.array("input").f32().to_vec())
        }
        [spec, tensors, latents] => {
            let spec: spec::Quantizer = serde_json::from_slice(&std::fs::read(spec)?)?;
            let mut map = TensorMap::default();
            for (name, array) in read_arrays(&std::fs::read(tensors)?) {
                map.insert(&name, &array.shape, array.f32());
            }
            let mut arrays = read_arrays(&std::fs::read(latents)?);
            let latents = arrays.remove("latents").ok_or("the file has no array `latents`")?;
            (spec, map, latents.f32().to_vec())
        }
        _ => return Err("usage: beam [QUANTIZER.json TENSORS.safetensors LATENTS.safetensors]".into()),
    };
    let q = Quantizer::new(&spec, &tensors)?;
    let energy: f64 = latents.iter().map(|&v| f64::from(v).powi(2)).sum();
    println!("{} frames of {} channels, {} codebooks", latents.len() / q.dim(), q.dim(), q.codebooks());
    println!("{:>9} {:>5} {:>14} {:>9} {:>12}", "codebooks", "beam", "mean sq. error", "SNR (dB)", "us a frame");
    for codebooks in [q.codebooks().div_ceil(4), q.codebooks().div_ceil(2), q.codebooks()] {
        for beam in [1, 2, 4, 8] {
            let start = Instant::now();
            let codes = encode(&q, &latents, codebooks, beam);
            let time = start.elapsed().as_secs_f64() * 1e6 / (latents.len() / q.dim()) as f64;
            let out = decode(&q, &codes, codebooks);
            let error: f64 = latents.iter().zip(&out).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            let mean = error / latents.len() as f64;
            println!("{codebooks:>9} {beam:>5} {mean:>14.6} {:>9.3} {time:>12.1}", 10.0 * (energy / error).log10());
        }
    }
    Ok(())
}
