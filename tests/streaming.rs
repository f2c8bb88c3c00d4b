//! Every system through the facade: pieces of any size give what one piece gives, to the bit, a reset forgets
//! everything, and a deploy image runs alike.

mod support;

use std::sync::Arc;

use codec::{
    Codes, Model, Options, PackOptions,
    core::{
        image::Image,
        kernel::{Compute, Isa},
        spec::Framing,
    },
};
use support::{
    golden::{self, Case},
    import_case, import_changed,
};

/// Sizes of pieces, from a linear congruential generator: mostly small, now and then large.
struct Pieces(u64);

impl Pieces {
    fn next(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let most = if (self.0 >> 60) == 0 { most } else { most / 16 + 1 };
        (self.0 >> 33) as usize % (most + 1)
    }
}

fn encode_in_pieces(encoder: &mut codec::Encoder<'_>, pcm: &[f32], channels: usize, seed: u64) -> Codes {
    let (mut pieces, mut out, mut rest) = (Pieces(seed), Codes::new(encoder.codebooks()), pcm);
    while !rest.is_empty() {
        let (now, later) = rest.split_at((pieces.next(8000) * channels).min(rest.len()));
        encoder.push(now, &mut out).unwrap();
        rest = later;
    }
    encoder.finish(&mut out).unwrap();
    out
}

fn decode_in_pieces(decoder: &mut codec::Decoder<'_>, codes: &Codes, seed: u64) -> Vec<f32> {
    let (mut pieces, mut out, mut rest) = (Pieces(seed), Vec::new(), &codes.data[..]);
    while !rest.is_empty() {
        let (now, later) = rest.split_at((pieces.next(12) * codes.codebooks).min(rest.len()));
        decoder.push(&Codes { codebooks: codes.codebooks, data: now.to_vec(), segments: vec![] }, &mut out).unwrap();
        rest = later;
    }
    decoder.finish(&mut out).unwrap();
    out
}

/// Both directions: at several cuts, and after signals that were ended and that were not.
fn check(model: &Model, pcm: &[f32], books: Option<usize>) {
    let options = Options { codebooks: books, threads: 1, ..Options::default() };
    let channels = model.spec().channels as usize;
    let (first, second) = pcm.split_at(pcm.len() * 2 / 5 / channels * channels);
    let whole = model.encode(second, &options).unwrap();
    assert!(whole.frames() > 0);
    let mut encoder = model.encoder(&options).unwrap();
    for seed in [1, 2] {
        assert!(encode_in_pieces(&mut encoder, second, channels, seed) == whole, "encode, pieces {seed}");
        encoder.reset();
    }
    // A signal that was broken off.
    encoder.push(first, &mut Codes::new(encoder.codebooks())).unwrap();
    encoder.reset();
    assert!(encode_in_pieces(&mut encoder, second, channels, 3) == whole, "encode after a reset");

    if model.spec().decoder.is_none() {
        check_packed(model, second, &options, &whole, None);
        return;
    }
    let before = model.encode(first, &options).unwrap();
    let expected = model.decode(&whole, None, &options).unwrap();
    let bits = |pcm: &[f32]| pcm.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let mut decoder = model.decoder(&options).unwrap();
    for seed in [4, 5] {
        assert!(bits(&decode_in_pieces(&mut decoder, &whole, seed)) == bits(&expected), "decode, pieces {seed}");
        decoder.reset();
    }
    decoder.push(&before, &mut Vec::new()).unwrap();
    decoder.reset();
    assert!(bits(&decode_in_pieces(&mut decoder, &whole, 6)) == bits(&expected), "decode after a reset");
    check_packed(model, second, &options, &whole, Some(&expected));
}

/// As a deploy image, `expected` are the same bits: behind the library, and frame by frame without a heap.
fn check_packed(model: &Model, pcm: &[f32], options: &Options, codes: &Codes, expected: Option<&[f32]>) {
    let bytes = model.pack(&PackOptions::default()).unwrap();
    let packed = Model::from_image(Arc::new(AlignedBytes::new(&bytes))).unwrap();
    assert_eq!((packed.spec(), packed.fingerprint()), (model.spec(), model.fingerprint()));
    assert!(packed.encode(pcm, options).unwrap() == *codes, "an image's codes");
    if let Some(expected) = expected {
        let options = Options { codebooks: None, ..options.clone() };
        assert!(packed.decode(codes, None, &options).unwrap() == expected, "an image's samples");
    }
    drop(packed);

    let bytes = AlignedBytes::new(&bytes);
    let image = Image::open(bytes.as_ref()).unwrap();
    let cx = Compute { isa: Isa::detect(), pool: None };
    let books = codes.codebooks;
    let (encodes, decodes) = streamable(model);
    if encodes {
        let encoder = image.encoder().unwrap();
        let mut state = vec![0u64; encoder.state_bytes() / 8];
        let state = bytemuck::cast_slice_mut(&mut state);
        encoder.init(state, books).unwrap();
        let mut room = vec![0; encoder.max_frames() * books];
        let mut made = Vec::new();
        let pieces = pcm.chunks(encoder.max_samples() * model.spec().channels as usize);
        let last = pieces.len();
        for (i, piece) in pieces.enumerate() {
            let frames = encoder.step(cx, state, piece, i + 1 == last, &mut room).unwrap();
            made.extend_from_slice(&room[..frames * books]);
        }
        assert!(made == codes.data, "codes without a heap");
    }
    if let Some(expected) = expected.filter(|_| decodes) {
        let decoder = image.decoder().unwrap();
        let mut state = vec![0u64; decoder.state_bytes() / 8];
        let state = bytemuck::cast_slice_mut(&mut state);
        decoder.init(state, books).unwrap();
        let mut made = Vec::new();
        let pieces = codes.data.chunks(books);
        let last = pieces.len();
        for (i, piece) in pieces.enumerate() {
            made.extend_from_slice(decoder.step(cx, state, piece, i + 1 == last).unwrap());
        }
        assert!(made == expected, "samples without a heap");
    }
}

/// Bytes on a 64-byte boundary.
struct AlignedBytes(Vec<[u64; 8]>, usize);

impl AlignedBytes {
    fn new(bytes: &[u8]) -> Self {
        let mut lines = vec![[0; 8]; bytes.len().div_ceil(64)];
        bytemuck::cast_slice_mut(&mut lines)[..bytes.len()].copy_from_slice(bytes);
        Self(lines, bytes.len())
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[..self.1]
    }
}

/// Whether encoder and decoder run in constant memory.
fn streamable(model: &Model) -> (bool, bool) {
    let info = model.info().unwrap();
    let part = |part: &Option<codec::NetworkInfo>| part.as_ref().is_some_and(|part| part.streamable);
    (part(&info.encoder), part(&info.decoder))
}

fn case(name: &str, books: Option<usize>, expected: (bool, bool)) {
    let folder = golden::committed();
    let case = Case::load(&folder, name);
    let model = import_case(&case, &case.tensors());
    assert_eq!(streamable(&model), expected);
    // The native Mimi shares its arrays with the other.
    let other = case.manifest["same_arrays_as"].as_str().map(|name| Case::load(&folder, name));
    let pcm = other.as_ref().unwrap_or(&case).array("pcm");
    let pcm = if pcm.shape.len() == 1 { pcm.f32().to_vec() } else { pcm.channels_last() };
    check(&model, &pcm, books);
}

#[test]
fn encodec_24khz() {
    case("encodec_24khz", Some(8), (true, true));
}

#[test]
fn academicodec_soundstream_24k_240d() {
    case("academicodec_soundstream_24k_240d", None, (true, true));
}

#[test]
fn dac_16khz() {
    case("dac_16khz", None, (true, true));
}

#[test]
fn hificodec_16k_320d() {
    case("hificodec_16k_320d", None, (false, true));
}

#[test]
fn speechtokenizer() {
    case("speechtokenizer_hubert_avg", None, (false, true));
}

#[test]
fn mimi() {
    case("mimi", Some(8), (true, true));
}

#[test]
fn mimi_native() {
    case("mimi_native", None, (true, true));
}

/// Noise of a seed: that of a spec with the seed, in pieces of any size, and again after a reset.
#[test]
fn snac_noise() {
    let folder = golden::committed();
    let case = Case::load(&folder, "snac_24khz");
    let tensors = case.tensors();
    let model = import_case(&case, &tensors);
    let seeded = import_changed(&case, &tensors, |spec| {
        for layer in spec.decoder.iter_mut().flatten() {
            if let codec::core::spec::Layer::Noise(noise) = layer {
                noise.seed = Some(7);
            }
        }
    });
    let codes = model.encode(&case.array("pcm").channels_last(), &Options::default()).unwrap();
    let bits = |pcm: &[f32]| pcm.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let expected = bits(&seeded.decode(&codes, None, &Options::default()).unwrap());
    let with = |noise_seed| Options { noise_seed, ..Options::default() };
    let of = |options: &Options| bits(&model.decode(&codes, None, options).unwrap());
    assert!(of(&with(Some(7))) == expected);
    assert!(of(&with(None)) != expected && of(&with(Some(8))) != expected && of(&with(None)) != of(&with(Some(8))));
    let other = bits(&seeded.decode(&codes, None, &with(Some(8))).unwrap());
    assert!(other == of(&with(Some(8))), "the signal's seed goes before the spec's");
    let mut decoder = model.decoder(&with(Some(7))).unwrap();
    for seed in [1, 2, 3] {
        assert!(bits(&decode_in_pieces(&mut decoder, &codes, seed)) == expected, "pieces {seed}");
        decoder.reset();
    }
    decoder.push(&codes, &mut Vec::new()).unwrap();
    decoder.reset();
    assert!(bits(&decode_in_pieces(&mut decoder, &codes, 4)) == expected, "after a signal that was broken off");
}

/// Windows put together by hand from signals that are one window each.
#[test]
fn windows_of_an_encoder_that_needs_the_whole_signal() {
    let folder = golden::committed();
    let case = Case::load(&folder, "s3tokenizer_v2_25hz");
    let tensors = case.tensors();
    const HOP: usize = 640;
    let (length, stride, half) = (40 * HOP, 28 * HOP, 6);
    let framing = Framing::Windows { length: length as u32, stride: stride as u32 };
    let model = import_changed(&case, &tensors, |spec| spec.framing = framing.clone());
    let single = import_changed(&case, &tensors, |spec| spec.framing = Framing::Stream);
    let speech = case.array("pcm").f32();
    let long: Vec<f32> = (0..3 * length).map(|i| speech[i % speech.len()] * (1.0 + i as f32 / 1e5)).collect();
    let options = Options::default();
    // Shorter than a window, a window, one sample more, windows that fill the last one and that do not.
    for n in [5000, length, length + 1, length + stride, 2 * stride + 13 * HOP + 77] {
        let pcm = &long[..n];
        let mut expected: Vec<u16> = Vec::new();
        let mut start = 0;
        loop {
            let end = n.min(start + length);
            let codes = single.encode(&pcm[start..end], &options).unwrap().data;
            let first = if start == 0 { 0 } else { half };
            if end == n {
                expected.extend(&codes[first..]);
                break;
            }
            assert_eq!(codes.len(), length / HOP);
            expected.extend(&codes[first..codes.len() - half]);
            start += stride;
        }
        let got = model.encode(pcm, &options).unwrap();
        assert!(got.data == expected, "{n} samples");
        assert_eq!(got.frames(), single.encode(pcm, &options).unwrap().frames(), "{n} samples");
        let mut encoder = model.encoder(&options).unwrap();
        encoder.push(&long[..length + stride / 2], &mut Codes::new(1)).unwrap();
        encoder.reset();
        assert!(encode_in_pieces(&mut encoder, pcm, 1, n as u64) == got, "{n} samples in pieces");
    }
    // What is held does not grow with the signal: the limit that a window needs is enough for any length.
    let mut enough = 1 << 20;
    let fits = |model: &Model, pcm: &[f32], max_memory| {
        model.encode(pcm, &Options { max_memory, ..Options::default() }).is_ok()
    };
    while !fits(&model, &long[..length], enough) {
        enough += enough / 8;
    }
    assert!(fits(&model, &long, enough) && !fits(&single, &long, enough));
}

#[test]
fn snac_24khz() {
    case("snac_24khz", None, (true, true));
}

#[test]
fn snac_44khz() {
    case("snac_44khz", None, (true, true));
}

#[test]
fn wavtokenizer_75() {
    case("wavtokenizer_75", None, (true, false));
}

#[test]
fn s3tokenizer_v2_25hz() {
    case("s3tokenizer_v2_25hz", None, (false, false));
}

/// Step by step, segment by segment and whole: what comes after the end is an error, until a reset.
#[test]
fn a_finished_signal_takes_no_more() {
    for name in ["encodec_24khz", "encodec_48khz", "hificodec_16k_320d"] {
        let case = Case::load(&golden::committed(), name);
        let model = import_case(&case, &case.tensors());
        let options = Options::default();
        let pcm = vec![0.1; 9600 * model.spec().channels as usize];
        let mut encoder = model.encoder(&options).unwrap();
        let mut codes = Codes::new(encoder.codebooks());
        encoder.push(&pcm, &mut codes).unwrap();
        encoder.finish(&mut codes).unwrap();
        let finished = codec::Error::Run(codec::core::RunError::Finished).to_string();
        assert_eq!(encoder.push(&pcm, &mut codes).unwrap_err().to_string(), finished, "{name}");
        assert_eq!(encoder.finish(&mut codes).unwrap_err().to_string(), finished, "{name}");
        encoder.reset();
        let mut again = Codes::new(encoder.codebooks());
        encoder.push(&pcm, &mut again).unwrap();
        encoder.finish(&mut again).unwrap();
        assert_eq!(again, codes, "{name}");

        let (mut decoder, mut out) = (model.decoder(&options).unwrap(), Vec::new());
        decoder.push(&codes, &mut out).unwrap();
        decoder.finish(&mut out).unwrap();
        assert_eq!(decoder.push(&codes, &mut out).unwrap_err().to_string(), finished, "{name}");
        assert!(model.decode(&codes, Some(u64::MAX), &options).is_err(), "{name}");
    }
}
