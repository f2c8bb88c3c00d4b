//! What `examples/cortex-m` runs on: deploy images of a model, a `.nac` stream and a short signal, with what the host makes
//! of them.
//!
//! `cargo run --release --example firmware_payload -- FOLDER [PRECISION [MODEL.safetensors]]`; the precision of the weights
//! is `f32`, `f16` or `i8`, and without a model it is `nano-16k` with random weights.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use codec::{
    Model, PackOptions, PackParts,
    core::{
        bitstream::{CodeGroup, GROUP_LEN, Header, Layout},
        image::Image,
        kernel::{Aligned, Compute, Isa},
        weights::Precision,
    },
    model_file::{Provenance, write_model},
    nac::{Method, NacWriter},
    nano,
};

/// Signals, in seconds: what is decoded, and what is encoded on the device.
const DECODED: f32 = 2.0;
const ENCODED: f32 = 0.4;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = args.next().ok_or("usage: firmware_payload FOLDER [f32|f16|i8 [MODEL.safetensors]]")?;
    fs::create_dir_all(&folder)?;
    let precision = match args.next().as_deref().and_then(Path::to_str) {
        None | Some("f32") => Precision::F32,
        Some("f16") => Precision::F16,
        Some("i8") => Precision::I8,
        Some(other) => return Err(format!("no precision {other}").into()),
    };
    let model = match args.next() {
        Some(path) => Model::load(path)?,
        None => {
            let path = folder.join("nano.safetensors");
            let spec = nano::spec();
            write_model(&path, &spec, &nano::random_tensors(&spec, 1), &Provenance::default())?;
            Model::load(path)?
        }
    };
    payload(&model.with_precision(precision), &folder)
}

fn payload(model: &Model, folder: &Path) -> Result<(), Box<dyn Error>> {
    let spec = model.spec();
    let encoder = model.pack(&PackOptions { parts: PackParts::Encoder, frames: 1 })?;
    let decoder = model.pack(&PackOptions { parts: PackParts::Decoder, frames: 1 })?;
    let rate = spec.sample_rate as f32;
    let pcm = signal((DECODED * rate) as usize, rate);
    let short = pcm.get(..(ENCODED * rate) as usize).unwrap_or(&pcm);
    let (codes, _, encoder_state) = encode(&encoder, &pcm)?;
    let (short_codes, codebooks, _) = encode(&encoder, short)?;
    let (samples, decoder_state) = decode(&decoder, &codes)?;

    let groups = CodeGroup::of(model.quantizer()?, 0, codebooks)?;
    let mut storage = vec![0; groups.len() * GROUP_LEN];
    let layout = Layout::new(&groups, &mut storage)?;
    let header = Header {
        fingerprint: model.fingerprint().0,
        sample_rate: spec.sample_rate,
        channels: spec.channels.try_into()?,
        hop: spec.hop,
        samples: Some(pcm.len() as u64),
        method: Method::Raw,
        segments: false,
        chunk_frames: Header::default_chunk_frames(spec.sample_rate, spec.hop, false, &layout),
        layout,
    };
    let mut stream = NacWriter::new(Vec::new(), &header)?;
    stream.write(&codes)?;
    let (stream, _) = stream.finish(Some(pcm.len() as u64))?;

    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(bytemuck::cast_slice(&samples));
    let levels: Vec<i16> = short.iter().map(|v| (v * 32768.0) as i16).collect();
    fs::write(folder.join("decoder.bin"), &decoder)?;
    fs::write(folder.join("encoder.bin"), &encoder)?;
    fs::write(folder.join("stream.nac"), &stream)?;
    fs::write(folder.join("pcm.s16"), bytemuck::cast_slice(&levels))?;
    fs::write(folder.join("codes.u16"), bytemuck::cast_slice(&short_codes))?;
    fs::write(folder.join("crc.u32"), crc.to_le_bytes())?;
    // What this machine needs: one with shorter words needs no more.
    fs::write(folder.join("state.u32"), u32::try_from(decoder_state.max(encoder_state))?.to_le_bytes())?;
    println!(
        "{}: decoder {} bytes, encoder {} bytes, {} frames of {codebooks} codes, CRC of {} samples {crc:08x}",
        spec.name,
        decoder.len(),
        encoder.len(),
        codes.len() / codebooks,
        samples.len(),
    );
    Ok(())
}

/// A tone that glides, under noise; whole 16-bit levels, so that they are the same from a file.
fn signal(len: usize, rate: f32) -> Vec<f32> {
    let mut state = 1u32;
    let sample = |i: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let t = i as f32 / rate;
        let tone = (core::f32::consts::TAU * (120.0 + 300.0 * t) * t).sin() * (0.5 - 0.4 * (9.0 * t).cos());
        let noise = (state >> 16) as f32 / 65536.0 - 0.5;
        (12_000.0 * tone + 2_000.0 * noise).round() / 32768.0
    };
    (0..len).map(sample).collect()
}

fn aligned(bytes: &[u8]) -> Aligned {
    let mut memory = Aligned::zeroed(bytes.len().div_ceil(4));
    bytemuck::cast_slice_mut(memory.as_mut())[..bytes.len()].copy_from_slice(bytes);
    memory
}

const CX: fn() -> Compute<'static> = || Compute { isa: Isa::detect(), pool: None };

/// Codes, how many a frame has, and bytes of state.
fn encode(image: &[u8], pcm: &[f32]) -> Result<(Vec<u16>, usize, usize), Box<dyn Error>> {
    let memory = aligned(image);
    let image = Image::open(&bytemuck::cast_slice(memory.as_ref())[..image.len()])?;
    let encoder = image.encoder()?;
    let mut state = Aligned::zeroed(encoder.state_bytes() / 4);
    let state: &mut [u8] = bytemuck::cast_slice_mut(state.as_mut());
    encoder.init(state, image.codebooks())?;
    let mut room = vec![0; encoder.max_frames() * image.codebooks()];
    let mut codes = Vec::new();
    let pieces = pcm.chunks(encoder.max_samples());
    let last = pieces.len();
    for (i, piece) in pieces.enumerate() {
        let frames = encoder.step(CX(), state, piece, i + 1 == last, &mut room)?;
        codes.extend_from_slice(&room[..frames * image.codebooks()]);
    }
    Ok((codes, image.codebooks(), encoder.state_bytes()))
}

/// Samples, and bytes of state.
fn decode(image: &[u8], codes: &[u16]) -> Result<(Vec<f32>, usize), Box<dyn Error>> {
    let memory = aligned(image);
    let image = Image::open(&bytemuck::cast_slice(memory.as_ref())[..image.len()])?;
    let decoder = image.decoder()?;
    let mut state = Aligned::zeroed(decoder.state_bytes() / 4);
    let state: &mut [u8] = bytemuck::cast_slice_mut(state.as_mut());
    decoder.init(state, image.codebooks())?;
    let mut samples = Vec::new();
    for frame in codes.chunks(image.codebooks()) {
        samples.extend_from_slice(decoder.step(CX(), state, frame, false)?);
    }
    samples.extend_from_slice(decoder.step(CX(), state, &[], true)?);
    Ok((samples, decoder.state_bytes()))
}
