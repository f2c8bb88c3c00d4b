//! Any bytes as a model file, any text as a spec, and specs grown from bytes, with whatever tensors they ask for: no
//! panic, no hang, no more memory than allowed, no internal error, and the same result however the signal is cut.
#![no_main]

#[path = "support/spec.rs"]
mod spec;
#[path = "support/mod.rs"]
mod support;

use arbitrary::Unstructured;
use codec::{
    Codes, Error, Model, Options, Segment,
    core::{
        RunError,
        spec::{CodecSpec, Framing},
        weights::Dtype,
    },
    model_file::{OwnedTensor, Provenance, TensorMap, write_model},
};
use libfuzzer_sys::fuzz_target;

/// Values of all tensors of a spec, and tensors; what is over is missing.
const MOST_VALUES: usize = 1 << 14;
const MOST_TENSORS: usize = 256;
const MEMORY: u64 = 32 << 20;

/// Rows and codes that are run, at most.
const MOST_SAMPLES: usize = 600;
const MOST_CODES: usize = 200;

fn random(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    (*state >> 33) as u32
}

/// The tensors that a spec asks for, small or not at all; `how` says of which type and whether some are no numbers.
fn tensors(spec: &CodecSpec, how: u8) -> TensorMap {
    let mut map = TensorMap::default();
    let (mut left, mut state) = (MOST_VALUES, u64::from(how));
    for wanted in spec.tensors().into_iter().take(MOST_TENSORS) {
        let len = wanted.shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d));
        let Some(rest) = len.and_then(|len| left.checked_sub(len)) else { continue };
        let len = left - rest;
        left = rest;
        let dtype = match how & 7 {
            0 => Dtype::F16,
            1 => Dtype::Bf16,
            2 => Dtype::I8,
            3 => Dtype::I32,
            _ => Dtype::F32,
        };
        let mut bytes = Vec::new();
        for _ in 0..len {
            let bits = random(&mut state);
            let value = bits as f32 / (1_u64 << 30) as f32 - 1.0;
            match dtype {
                Dtype::F32 if how & 0x18 == 0x18 => bytes.extend((bits << 1).to_le_bytes()),
                Dtype::F32 => bytes.extend(value.to_le_bytes()),
                _ => bytes.extend(&bits.to_le_bytes()[..dtype.size()]),
            }
        }
        map.0.insert(wanted.name, OwnedTensor { dtype, shape: wanted.shape, bytes });
    }
    map
}

/// Errors that no input may cause.
fn check<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Run(e @ (RunError::Internal(_) | RunError::BufferTooShort { .. } | RunError::TooLong { .. }))) => {
            panic!("{e:?}")
        }
        Err(_) => None,
    }
}

fn exercise(model: &Model, how: u8) {
    let spec = model.spec();
    let _ = check(model.info());
    let mut state = u64::from(how);
    let options = Options {
        max_memory: MEMORY,
        beam: if how & 0x60 == 0x60 { 3 } else { 1 },
        codebooks: (how & 0x80 != 0).then_some(1 + usize::from(how & 3)),
        ..Options::default()
    };
    let channels = (spec.channels as usize).max(1);
    let rows = MOST_SAMPLES / channels;
    let pcm: Vec<f32> = (0..rows * channels).map(|_| random(&mut state) as f32 / (1_u64 << 30) as f32 - 1.0).collect();
    if let Some(mut encoder) = check(model.encoder(&options)) {
        let mut whole = Codes::new(encoder.codebooks());
        let done = check(encoder.push(&pcm, &mut whole)).and_then(|()| check(encoder.finish(&mut whole)));
        encoder.reset();
        let mut pieces = Codes::new(encoder.codebooks());
        let mut rest = &pcm[..];
        let mut ok = done.is_some();
        while ok && !rest.is_empty() {
            let n = (1 + random(&mut state) as usize % 90).min(rest.len() / channels).max(1) * channels;
            let (now, later) = rest.split_at(n.min(rest.len()));
            rest = later;
            ok = check(encoder.push(now, &mut pieces)).is_some();
        }
        if ok && check(encoder.finish(&mut pieces)).is_some() {
            assert!(whole == pieces, "codes depend on how the signal is cut");
        }
    }
    if let Some(mut decoder) = check(model.decoder(&options)) {
        let count = decoder.codebooks();
        let Ok(plan) = model.decoder_plan() else { return };
        let hop = plan.hop().max(1) * channels;
        let frames = (MOST_CODES / count).min(16 * MOST_SAMPLES / hop);
        let sizes = plan.quantizer().sizes();
        let mut codes = Codes::new(count);
        codes.data = (0..frames * count).map(|i| (random(&mut state) % sizes[i % count]) as u16).collect();
        if let Framing::Segments { length, .. } = spec.framing {
            let most = (length as usize).div_ceil(spec.hop as usize);
            let n = frames.min(most);
            codes.data.truncate(n * count);
            codes.segments = vec![Segment { frames: n, scale: 1.5 }];
        }
        let mut whole = Vec::new();
        let done = check(decoder.push(&codes, &mut whole)).and_then(|()| check(decoder.finish(&mut whole)));
        decoder.reset();
        if done.is_none() || !codes.segments.is_empty() {
            return;
        }
        let mut pieces = Vec::new();
        for piece in codes.data.chunks((1 + random(&mut state) as usize % 5) * count) {
            let mut part = Codes::new(count);
            part.data = piece.to_vec();
            if check(decoder.push(&part, &mut pieces)).is_none() {
                return;
            }
        }
        if check(decoder.finish(&mut pieces)).is_some() {
            let bits = |x: &[f32]| x.iter().map(|v| if v.is_nan() { 1 } else { v.to_bits() }).collect::<Vec<_>>();
            assert!(bits(&whole) == bits(&pieces), "samples depend on how the codes are cut");
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let [kind, how, bytes @ ..] = input else { return };
    let spec = match kind {
        b'f' => {
            support::with_file(bytes, |path, _| {
                if let Ok(model) = Model::load(path) {
                    let _ = model.verify();
                    exercise(&model, *how);
                }
            });
            return;
        }
        b's' => serde_json::from_slice::<CodecSpec>(bytes).ok(),
        _ => spec::grow(&mut Unstructured::new(bytes)).ok(),
    };
    let Some(spec) = spec else { return };
    let path = support::folder().join("model");
    // A spec with numbers that JSON has not cannot be written.
    if write_model(&path, &spec, &tensors(&spec, *how), &Provenance::default()).is_err() {
        return;
    }
    let Ok(model) = Model::load(&path) else { return };
    model.verify().unwrap();
    exercise(&model, *how);
});
