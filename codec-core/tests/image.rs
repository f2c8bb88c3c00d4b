//! Deploy images: they run where they lie as the model runs that was packed, on memory of the caller's, and bytes that
//! are no image are errors.

#[path = "support/tensors.rs"]
mod tensors;

use std::sync::Arc;

use codec_core::{
    RunError,
    image::{Cut, Image, ImageError, Meta, load, pack},
    kernel::{Compute, Isa},
    pipeline::{Decoder, Encoder},
    spec::CodecSpec,
    weights::Precision,
};
use proptest::prelude::*;
use tensors::MapTensors;

const FRAMES: usize = 3;
const HOP: usize = 8;

fn cx() -> Compute<'static> {
    Compute { isa: Isa::detect(), pool: None }
}

/// Most kinds of layers, and quantizers side by side.
fn spec() -> CodecSpec {
    let conv = |name: &str, input: u32, output: u32, kernel: u32, stride: u32| {
        format!(
            r#"{{"type":"conv","name":"{name}","input":{input},"output":{output},"kernel":{kernel},"stride":{stride},
            "dilation":1,"groups":1,"bias":true,
            "padding":{{"mode":"zero","left":{},"right":0,"complete":false}}}}"#,
            kernel - stride
        )
    };
    let vq = |name: &str| format!(r#"{{"type":"vq","name":"{name}","size":16,"dim":6}}"#);
    let text = format!(
        r#"{{"version":1,"name":"small","sample_rate":800,"channels":1,"hop":8,"latent":12,"framing":{{"type":"stream"}},
        "codebook_choices":[4],
        "encoder":[{{"type":"stft","n_fft":8,"hop":2,"floor":0.01,"power":0.3}},{},{{"type":"activation","function":"elu","alpha":1.0}},{},{{"type":"activation","function":"snake","name":"s"}},
            {{"type":"residual","body":[{},{{"type":"activation","function":"gelu"}}]}},
            {{"type":"lstm","name":"l","input":12,"hidden":12,"layers":1,"bidirectional":false,"skip":true}}],
        "quantizer":{{"type":"grouped","groups":[
            {{"type":"residual","stages":[{},{}]}},{{"type":"residual","stages":[{},{}]}}]}},
        "decoder":[{},{{"type":"layer-norm","name":"n","channels":10,"epsilon":1e-5,"affine":true}},
            {{"type":"conv-transpose","name":"up","input":10,"output":10,"kernel":4,"stride":2,"groups":1,"bias":true,
              "trim_left":0,"trim_right":2,"blocks":{{"rows":2}}}},
            {{"type":"istft","n_fft":8,"hop":4}}]}}"#,
        conv("a", 15, 5, 1, 1),
        conv("b", 5, 12, 7, 4),
        conv("c", 12, 12, 3, 1),
        vq("q0"),
        vq("q1"),
        vq("q2"),
        vq("q3"),
        conv("d", 12, 10, 3, 1),
    );
    serde_json::from_str(&text).unwrap()
}

struct Packed {
    encoder: Encoder,
    decoder: Decoder,
    meta: Meta,
    /// On a 64-byte boundary.
    image: Vec<[u64; 8]>,
    len: usize,
}

impl Packed {
    fn new() -> Self {
        Self::held_in(Precision::F32)
    }

    fn held_in(precision: Precision) -> Self {
        let spec = spec();
        let tensors = MapTensors::random(&spec.tensors(), 5);
        let encoder = Encoder::with_precision(&spec, &tensors, precision).unwrap();
        let decoder = Decoder::with_precision(&spec, &tensors, precision).unwrap();
        let meta = Meta {
            sample_rate: spec.sample_rate,
            channels: 1,
            hop: spec.hop,
            frames: FRAMES as u32,
            delay: Some(0),
            cut: Cut::Stream,
            precision: Precision::F32,
            fingerprint: [7; 16],
        };
        let bytes = pack(&meta, Some(b"{}"), Some(&encoder), Some(&decoder)).unwrap();
        let (image, len) = (aligned(&bytes), bytes.len());
        Self { encoder, decoder, meta, image, len }
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.image)[..self.len]
    }
}

fn aligned(bytes: &[u8]) -> Vec<[u64; 8]> {
    let mut image = vec![[0; 8]; bytes.len().div_ceil(64)];
    bytemuck::cast_slice_mut(&mut image)[..bytes.len()].copy_from_slice(bytes);
    image
}

fn noise(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5).collect()
}

/// Codes and samples by the image, its state moved to another place before every step.
fn run(image: &Image<'_>, pcm: &[f32]) -> Result<(Vec<u16>, Vec<f32>), RunError> {
    let (encoder, decoder) = (image.encoder().unwrap(), image.decoder().unwrap());
    let mut state = vec![0u64; encoder.state_bytes() / 8];
    encoder.init(bytemuck::cast_slice_mut(&mut state), image.codebooks())?;
    let mut codes = Vec::new();
    let mut room = vec![0; encoder.max_frames() * image.codebooks()];
    let pieces = pcm.chunks(encoder.max_samples());
    let last = pieces.len();
    for (i, piece) in pieces.enumerate() {
        state = state.clone();
        let frames = encoder.step(cx(), bytemuck::cast_slice_mut(&mut state), piece, i + 1 == last, &mut room)?;
        codes.extend_from_slice(&room[..frames * image.codebooks()]);
    }
    let mut state = vec![0u64; decoder.state_bytes() / 8];
    decoder.init(bytemuck::cast_slice_mut(&mut state), image.codebooks())?;
    let mut samples = Vec::new();
    let pieces = codes.chunks(decoder.max_frames() * image.codebooks());
    let last = pieces.len();
    for (i, piece) in pieces.enumerate() {
        state = state.clone();
        samples.extend_from_slice(decoder.step(cx(), bytemuck::cast_slice_mut(&mut state), piece, i + 1 == last)?);
    }
    Ok((codes, samples))
}

#[test]
fn an_image_runs_as_its_model() {
    let sizes = [Precision::F32, Precision::F16, Precision::I8].map(runs_as_its_model);
    assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2], "{sizes:?}");
}

/// The image's bytes.
fn runs_as_its_model(precision: Precision) -> usize {
    let packed = Packed::held_in(precision);
    let pcm = noise(40 * HOP);
    let Packed { encoder, decoder, .. } = &packed;
    let mut state = encoder.state(40, 4, 1).unwrap();
    let mut codes = vec![0; encoder.max_frames(pcm.len()) * 4];
    let frames = encoder.step(cx(), &mut state, &pcm, true, &mut codes).unwrap();
    assert_eq!(frames, 40);
    codes.truncate(frames * 4);
    let mut state = decoder.state(40, 4).unwrap();
    let samples = decoder.step(cx(), &mut state, &codes, true).unwrap();
    assert_eq!(samples.len(), pcm.len());
    assert!(samples.iter().any(|v| v.abs() > 1e-3));

    let image = Image::open(packed.bytes()).unwrap();
    assert_eq!(image.meta(), &packed.meta);
    assert_eq!(image.spec_json(), Some(&b"{}"[..]));
    assert_eq!(image.sizes(), [16; 4]);
    assert_eq!(run(&image, &pcm).unwrap(), (codes.clone(), samples.to_vec()));

    // And behind the engine with a heap, in steps of any size.
    let owner: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(Shared(packed.image.clone()));
    let (loaded_encoder, loaded_decoder) = load(&owner).unwrap();
    let (loaded_encoder, loaded_decoder) = (loaded_encoder.unwrap(), loaded_decoder.unwrap());
    let mut state = loaded_encoder.state(40, 4, 1).unwrap();
    let mut again = vec![0; encoder.max_frames(pcm.len()) * 4];
    let frames = loaded_encoder.step(cx(), &mut state, &pcm, true, &mut again).unwrap();
    assert_eq!(&again[..frames * 4], &codes);
    let mut state = loaded_decoder.state(40, 4).unwrap();
    assert_eq!(loaded_decoder.step(cx(), &mut state, &codes, true).unwrap(), samples);
    assert_eq!(loaded_decoder.chain().plan().parameters, decoder.chain().plan().parameters);
    packed.len
}

struct Shared(Vec<[u64; 8]>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

#[test]
fn a_part_can_be_left_out() {
    let Packed { decoder, meta, .. } = Packed::new();
    let bytes = pack(&meta, None, None, Some(&decoder)).unwrap();
    let copy = aligned(&bytes);
    let image = Image::open(bytemuck::cast_slice(&copy)).unwrap();
    assert_eq!(image.encoder().unwrap_err(), ImageError::Missing("encoder"));
    assert!(image.decoder().is_ok() && image.spec_json().is_none());
    assert!(pack(&meta, None, None, None).is_err());
}

#[test]
fn damage_is_an_error() {
    let packed = Packed::new();
    let bytes = packed.bytes();
    assert_eq!(Image::open(&[]).unwrap_err(), ImageError::NotAnImage);
    assert_eq!(Image::open(&bytes[..9]).unwrap_err(), ImageError::Truncated { needed: 32, got: 9 });
    for len in [40, 100, bytes.len() - 1] {
        let truncated = ImageError::Truncated { needed: bytes.len() as u64, got: len as u64 };
        assert_eq!(Image::open(&bytes[..len]).unwrap_err(), truncated);
    }
    for at in (16..bytes.len()).step_by(97) {
        let mut copy = packed.image.clone();
        bytemuck::cast_slice_mut::<_, u8>(&mut copy)[at] ^= 0x10;
        let found = Image::open(bytemuck::cast_slice(&copy)).unwrap_err();
        assert!(matches!(found, ImageError::Damaged | ImageError::Truncated { .. }), "{at}: {found}");
    }
    let mut copy = packed.image.clone();
    bytemuck::cast_slice_mut::<_, u8>(&mut copy)[8] = 2;
    assert_eq!(Image::open(bytemuck::cast_slice(&copy)).unwrap_err(), ImageError::Version { found: 2 });
    let mut shifted = vec![0; bytes.len() + 1];
    shifted[1..].copy_from_slice(bytes);
    let odd = shifted.as_ptr().align_offset(8) != 7;
    if odd {
        assert!(matches!(Image::open(&shifted[1..]), Err(ImageError::Misaligned { .. })));
    }
}

#[test]
fn memory_that_does_not_do_is_an_error() {
    let packed = Packed::new();
    let image = Image::open(packed.bytes()).unwrap();
    let decoder = image.decoder().unwrap();
    let mut state = vec![0u64; decoder.state_bytes() / 8];
    let state: &mut [u8] = bytemuck::cast_slice_mut(&mut state);
    assert_eq!(decoder.step(cx(), state, &[0; 4], false).unwrap_err(), RunError::Uninitialized);
    let (needed, got) = (state.len(), state.len() - 8);
    assert_eq!(decoder.init(&mut state[..got], 4).unwrap_err(), RunError::BufferTooShort { needed, got });
    assert_eq!(decoder.init(&mut state[1..], 4).unwrap_err(), RunError::Misaligned { align: 8 });
    assert_eq!(decoder.init(state, 5).unwrap_err(), RunError::Codebooks { asked: 5, available: 4 });
    decoder.init(state, 4).unwrap();
    assert_eq!(decoder.step(cx(), state, &[0; 3], false).unwrap_err(), RunError::PartialRow { values: 3, channels: 4 });
    assert_eq!(decoder.step(cx(), state, &[0; 16], false).unwrap_err(), RunError::TooLong { planned: FRAMES });
    // Another coder's state.
    let encoder = image.encoder().unwrap();
    assert_eq!(encoder.step(cx(), state, &[0.0; 8], false, &mut [0; 64]).unwrap_err(), RunError::Uninitialized);
    let end = decoder.step(cx(), state, &[1; 4], true).unwrap().to_vec();
    assert_eq!(decoder.step(cx(), state, &[1; 4], true).unwrap_err(), RunError::Finished);
    decoder.reset(state).unwrap();
    assert_eq!(decoder.step(cx(), state, &[1; 4], true).unwrap(), end);
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| if c & 1 == 1 { c >> 1 ^ 0x82f6_3b78 } else { c >> 1 })
    })
}

/// Start and length of the list of sections and of each that is not weights, in which any values do.
fn tables(bytes: &[u8]) -> Vec<(usize, usize)> {
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let count = usize::from(bytes[24]);
    let entries = (0..count).map(|i| 32 + 24 * i).filter(|at| ![2, 21, 37, 53].contains(&bytes[*at]));
    let sections = entries.map(|at| (u64_at(at + 8), u64_at(at + 16))).filter(|(_, len)| *len > 0);
    std::iter::once((16, 16 + 24 * count)).chain(sections).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Bytes made up with a right checksum: no panic and no endless run, whatever they say.
    #[test]
    fn made_up_images_do_no_harm(
        changes in prop::collection::vec((any::<usize>(), 0.0f64..1.0, any::<u8>()), 1..4), precision in 0..3usize,
    ) {
        let packed = Packed::held_in([Precision::F32, Precision::F16, Precision::I8][precision]);
        let mut copy = packed.image.clone();
        let bytes: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut copy)[..packed.len];
        let parts = tables(bytes);
        for (part, place, value) in changes {
            let (start, len) = parts[part % parts.len()];
            bytes[start + (place * len as f64) as usize] = value;
        }
        let crc = crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        if let Ok(image) = Image::open(bytes)
            && image.encoder().is_ok_and(|e| e.state_bytes() < 1 << 24)
            && image.decoder().is_ok_and(|d| d.state_bytes() < 1 << 24)
        {
            let _ = run(&image, &noise(7 * HOP));
        }
    }
}
