//! What `examples/cortex-m` runs on: the deploy image of a model, a `.nac` stream and a short signal, with what the host
//! makes of them. Both are of `examples/speech.wav`.
//!
//! `cargo run --release --example firmware_payload -- FOLDER [PRECISION [MODEL.safetensors]]`; the precision of the weights
//! is `i8`, `f16` or `f32`. Without a model `i8` is the model in the box, and the others are the same spec with random
//! weights: it has none in floating point.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use codec::{
    Model, PackOptions,
    audio::{Allow, AudioReader, Conform},
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

const SPEECH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/speech.wav");
/// Its beginning, in seconds: what is decoded, and what is encoded on the device.
const DECODED: f32 = 2.0;
const ENCODED: f32 = 0.4;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = args.next().ok_or("usage: firmware_payload FOLDER [i8|f16|f32 [MODEL.safetensors]]")?;
    fs::create_dir_all(&folder)?;
    let precision = match args.next().as_deref().and_then(Path::to_str) {
        None | Some("i8") => Precision::I8,
        Some("f16") => Precision::F16,
        Some("f32") => Precision::F32,
        Some(other) => return Err(format!("no precision {other}").into()),
    };
    let model = match args.next() {
        Some(path) => Model::load(path)?.with_precision(precision),
        None if precision == Precision::I8 => return payload(&Model::built_in()?, Model::built_in_image(), &folder),
        None => {
            let path = folder.join("random.safetensors");
            let spec = nano::spec();
            write_model(&path, &spec, &nano::random_tensors(&spec, 1), &Provenance::default())?;
            Model::load(path)?.with_precision(precision)
        }
    };
    payload(&model, &model.pack(&PackOptions::default())?, &folder)
}

fn payload(model: &Model, image: &[u8], folder: &Path) -> Result<(), Box<dyn Error>> {
    let spec = model.spec();
    let rate = spec.sample_rate as f32;
    let pcm = speech(spec.sample_rate, spec.channels as usize, (DECODED * rate) as usize)?;
    let short = pcm.get(..(ENCODED * rate) as usize).unwrap_or(&pcm);
    let (codes, _, encoder_state) = encode(image, &pcm)?;
    let (short_codes, codebooks, _) = encode(image, short)?;
    let (samples, decoder_state) = decode(image, &codes)?;

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
    fs::write(folder.join("model.bin"), image)?;
    fs::write(folder.join("stream.nac"), &stream)?;
    fs::write(folder.join("pcm.s16"), bytemuck::cast_slice(&levels))?;
    fs::write(folder.join("codes.u16"), bytemuck::cast_slice(&short_codes))?;
    fs::write(folder.join("crc.u32"), crc.to_le_bytes())?;
    // What this machine needs: one with shorter words needs no more.
    fs::write(folder.join("state.u32"), u32::try_from(decoder_state.max(encoder_state))?.to_le_bytes())?;
    println!(
        "{}: {} bytes, {} frames of {codebooks} codes, CRC of {} samples {crc:08x}",
        spec.name,
        image.len(),
        codes.len() / codebooks,
        samples.len(),
    );
    Ok(())
}

/// The first `frames` of the sample, as a model takes it; whole 16-bit levels, so that they are the same from a file.
fn speech(rate: u32, channels: usize, frames: usize) -> Result<Vec<f32>, Box<dyn Error>> {
    let mut reader = AudioReader::open(Path::new(SPEECH))?;
    let from = (reader.info().sample_rate, reader.info().channels);
    let mut conform = Conform::new(from, (rate, channels), Allow { resample: true, upmix: true, downmix: true })?;
    let mut pcm = Vec::new();
    while let Some(block) = reader.next_block()? {
        conform.push(block, &mut pcm);
    }
    conform.finish(&mut pcm);
    pcm.truncate(frames * channels);
    pcm.iter_mut().for_each(|v| *v = (*v * 32768.0).round().clamp(-32768.0, 32767.0) / 32768.0);
    Ok(pcm)
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
