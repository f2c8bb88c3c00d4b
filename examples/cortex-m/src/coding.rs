//! A stream from flash to samples, and samples from flash to codes.

use core::fmt;

use codec_core::{
    RunError,
    bitstream::{self, Event, Reader},
    image::{Image, ImageError},
    kernel::{Compute, Isa},
};
use semihosting::println;

use crate::{counter::count, payload};

pub const CX: Compute<'static> = Compute { isa: Isa::Scalar, pool: None };

/// Room for a stream's header and a chunk of two seconds.
const BUFFER: usize = 4096;
/// Codes and samples of a step, at most.
const MAX_CODES: usize = 256;
#[cfg(feature = "encoder")]
const MAX_SAMPLES: usize = 2048;

#[repr(C, align(64))]
pub struct Memory(pub [u8; payload::MEMORY]);

/// What went wrong; without the details, whose texts would be a fifth of the program.
pub struct Failure(pub &'static str);

impl From<ImageError> for Failure {
    fn from(e: ImageError) -> Self {
        Self(match e {
            ImageError::Inconsistent(what) | ImageError::Missing(what) => what,
            ImageError::Version { .. } => "the image is of another version",
            ImageError::Damaged => "the image is damaged",
            _ => "the image is refused",
        })
    }
}

impl From<RunError> for Failure {
    fn from(_: RunError) -> Self {
        Self("a step is refused")
    }
}

impl From<bitstream::Error> for Failure {
    fn from(_: bitstream::Error) -> Self {
        Self("the stream is damaged, or another model's")
    }
}

const ROOM: Failure = Failure("more codes in a frame, or samples in a step, than there is room for");
const DIFFERS: Failure = Failure("not what the host makes of it");

/// A ratio with two digits. Floating-point formatting would be a third of the program.
pub struct Hundredths(pub u64, pub u64);

impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = (200 * self.0 + self.1) / (2 * self.1).max(1);
        write!(f, "{}.{:02}", n / 100, n % 100)
    }
}

/// Instructions of steps.
#[derive(Default)]
struct Steps {
    count: u64,
    sum: u64,
    most: u64,
}

impl Steps {
    fn add(&mut self, instructions: u64) {
        self.count += 1;
        self.sum += instructions;
        self.most = self.most.max(instructions);
    }

    fn print(&self, what: &str, hop: u32, rate: u32) {
        let mean = self.sum / self.count.max(1);
        let ms = Hundredths(1000 * u64::from(hop), rate.into());
        println!("{what}: {mean} instructions a frame of {ms} ms, at most {}", self.most);
    }
}

/// Decodes the stream and compares the samples' CRC.
pub fn decode(memory: &mut Memory) -> Result<(), Failure> {
    let (opening, image) = count(|| Image::open(payload::MODEL));
    let image = image?;
    let decoder = image.decoder()?;
    let memory = &mut memory.0[..];
    println!("model: {} bytes of image, opened in {opening} instructions", payload::MODEL.len());
    println!("decoder: {} bytes of state and scratch", decoder.state_bytes());

    let mut reader = Reader::new([0; BUFFER]);
    let mut rest = payload::STREAM;
    let mut codes = [0u16; MAX_CODES];
    let books = image.codebooks();
    let codes = codes.get_mut(..books).ok_or(ROOM)?;
    decoder.init(memory, books)?;
    let crc = crc::Crc::<u32, crc::Table<1>>::new(&crc::CRC_32_ISCSI);
    let mut digest = crc.digest();
    let mut note = |pcm: &[f32]| pcm.iter().for_each(|v| digest.update(&v.to_le_bytes()));
    let mut steps = Steps::default();
    loop {
        let taken = reader.feed(rest);
        rest = &rest[taken..];
        if rest.is_empty() {
            reader.end_of_input();
        }
        if reader.open()? {
            let header = reader.header().ok_or(DIFFERS)?;
            header.check_model(&image.meta().fingerprint)?;
        }
        while let Some(event) = reader.next()? {
            let Event::Codes(chunk) = event else { continue };
            for segment in chunk.segments() {
                for frame in 0..segment.frames() {
                    segment.unpack(frame, codes);
                    let (instructions, pcm) = count(|| decoder.step(CX, memory, codes, false));
                    steps.add(instructions);
                    note(pcm?);
                }
            }
        }
        if reader.is_done() {
            break;
        }
    }
    note(decoder.step(CX, memory, &[], true)?);
    steps.print("decode", image.meta().hop, image.meta().sample_rate);
    let sum = digest.finalize();
    println!("decode: {} frames, CRC {sum:08x}, the host's {:08x}", steps.count, payload::STREAM_CRC);
    if sum == payload::STREAM_CRC { Ok(()) } else { Err(DIFFERS) }
}

/// Encodes the signal and compares the codes.
#[cfg(feature = "encoder")]
pub fn encode(memory: &mut Memory) -> Result<(), Failure> {
    let image = Image::open(payload::MODEL)?;
    let encoder = image.encoder()?;
    let memory = &mut memory.0[..];
    println!("encoder: {} bytes of state and scratch", encoder.state_bytes());
    let books = image.codebooks();
    encoder.init(memory, books)?;
    let mut codes = [0u16; MAX_CODES];
    let room = encoder.max_frames() * books;
    let codes = codes.get_mut(..room).ok_or(ROOM)?;
    let mut samples = [0.0f32; MAX_SAMPLES];
    let samples = samples.get_mut(..encoder.max_samples()).ok_or(ROOM)?;
    let (mut pcm, mut expected) = (payload::pcm(), payload::codes());
    let (mut steps, mut same, mut frames) = (Steps::default(), true, 0);
    while pcm.len() > 0 {
        let mut filled = 0;
        for (to, from) in samples.iter_mut().zip(pcm.by_ref().take(encoder.max_samples())) {
            *to = from;
            filled += 1;
        }
        let (instructions, made) = count(|| encoder.step(CX, memory, &samples[..filled], pcm.len() == 0, codes));
        let made = made?;
        steps.add(instructions);
        frames += made;
        same &= codes.iter().take(made * books).all(|code| expected.next() == Some(*code));
    }
    steps.print("encode", image.meta().hop, image.meta().sample_rate);
    same &= expected.len() == 0;
    println!("encode: {frames} frames, {}", if same { "the host's codes" } else { "NOT the host's codes" });
    if same { Ok(()) } else { Err(DIFFERS) }
}
