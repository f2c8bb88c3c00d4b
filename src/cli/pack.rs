use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ValueEnum;
use codec::{
    Comparison, Model, Options, PackOptions, PackParts,
    audio::{Allow, AudioReader, Conform},
    core::{pipeline::Coding, weights::Precision},
};
use serde_json::json;

use super::{Failure, Global, output::Output, report};

#[derive(clap::Args)]
pub struct Args {
    /// Model file
    model: PathBuf,
    /// Image to write
    #[arg(long, short, value_name = "IMAGE.bin")]
    output: Option<PathBuf>,
    /// Leave the encoder out
    #[arg(long, conflicts_with = "encoder_only")]
    decoder_only: bool,
    /// Leave the decoder out
    #[arg(long)]
    encoder_only: bool,
    /// Frames of one step where the image runs without a heap
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    frames: u32,
    /// How the networks' weights are held; codebooks stay in f32
    #[arg(long, value_enum, default_value_t = Held::F32, value_name = "TYPE")]
    dtype: Held,
    /// Code these files with the weights as they are and as they are packed, and print the signal-to-noise ratio of every
    /// layer's output
    #[arg(long, num_args = 1.., value_name = "AUDIO")]
    compare: Vec<PathBuf>,
    /// Also write the image as a Rust source file, for firmware without a file system
    #[arg(long, value_name = "FILE.rs")]
    rust: Option<PathBuf>,
    /// Also write the image as a C source file
    #[arg(long, value_name = "FILE.c")]
    c: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long, short)]
    force: bool,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, Failure> {
    if args.output.is_none() && args.rust.is_none() && args.c.is_none() {
        return Err(Failure::usage("nothing to write", "give -o IMAGE.bin, --rust FILE.rs or --c FILE.c"));
    }
    let names: Vec<&PathBuf> = [&args.output, &args.rust, &args.c].into_iter().flatten().collect();
    if (1..names.len()).any(|i| names[..i].contains(&names[i])) {
        return Err(Failure::usage("two outputs have the same name", "give each a file of its own"));
    }
    let outputs = [(&args.output, Form::Image), (&args.rust, Form::Rust), (&args.c, Form::C)];
    let outputs = outputs.into_iter().filter_map(|(path, form)| path.as_ref().map(|p| (p, form)));
    let outputs: Vec<_> = outputs
        .map(|(path, form)| Ok((path, form, Output::create(path, args.force)?)))
        .collect::<Result<_, Failure>>()?;
    let load = || Model::load(&args.model).map_err(|e| Failure::engine(&args.model, e));
    let model = load()?.with_precision(args.dtype.into());
    if model.is_packed() {
        let text = format!("{} is packed already", args.model.display());
        return Err(Failure::new(text, "give the model file that it was made of"));
    }
    let parts = match (args.decoder_only, args.encoder_only) {
        (true, _) => PackParts::Decoder,
        (_, true) => PackParts::Encoder,
        _ => PackParts::All,
    };
    let image = model.pack(&PackOptions { parts, frames: args.frames }).map_err(|e| Failure::engine(&args.model, e))?;
    let mut comparisons = Vec::new();
    if !args.compare.is_empty() {
        let full = load()?;
        for path in &args.compare {
            comparisons.push(compare(&full, &model, path, global)?);
        }
    }
    for (path, form, output) in outputs {
        let mut out = BufWriter::new(output.file()?);
        form.write(&image, path, &mut out).and_then(|()| out.flush()).map_err(|e| Failure::write(path, &e))?;
        drop(out);
        output.commit()?;
    }
    // Words are smaller on a 32-bit machine, and so is the state.
    let frames = args.frames as usize;
    let encoder =
        model.encoder_plan().ok().filter(|_| !args.decoder_only).map(|e| e.state_bytes(frames, &Coding::new(1)));
    let decoder = model.decoder_plan().ok().filter(|_| !args.encoder_only).map(|d| d.state_bytes(frames));
    if global.json {
        report::print_json(&json!({
            "encoder_state_bytes": encoder,
            "decoder_state_bytes": decoder,
            "dtype": args.dtype.to_possible_value().map(|v| v.get_name().to_owned()),
            "comparisons": comparisons,
            "bytes": image.len(),
            "fingerprint": model.fingerprint().to_string(),
            "frames": args.frames,
        }))?;
    } else if !global.quiet {
        let name = &model.spec().name;
        report::say(&format!("{name}: {} bytes, fingerprint {}", image.len(), model.fingerprint()));
        for (part, bytes) in [("encoder", encoder), ("decoder", decoder)] {
            if let Some(bytes) = bytes {
                report::say(&format!("  {part}: {bytes} bytes of state for steps of {frames} frames"));
            }
        }
        for (path, found) in args.compare.iter().zip(&comparisons) {
            print(path, found);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The types that packed weights can be held in.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Held {
    /// As the model file has them: f32, and what it stores as f16 in f16
    F32,
    /// Half precision, rounded to nearest
    F16,
    /// 8-bit integers with a scale for each output channel; LSTMs in half precision
    I8,
}

impl From<Held> for Precision {
    fn from(held: Held) -> Self {
        match held {
            Held::F32 => Self::F32,
            Held::F16 => Self::F16,
            Held::I8 => Self::I8,
        }
    }
}

fn compare(full: &Model, packed: &Model, path: &Path, global: &Global) -> Result<Comparison, Failure> {
    let audio = |e| Failure::audio(path, e);
    let spec = full.spec();
    let mut reader = AudioReader::open(path).map_err(audio)?;
    let info = reader.info();
    let (from, to) = ((info.sample_rate, info.channels), (spec.sample_rate, spec.channels as usize));
    let mut conform = Conform::new(from, to, Allow { resample: false, downmix: false, upmix: false }).map_err(audio)?;
    let mut pcm = Vec::new();
    while let Some(block) = reader.next_block().map_err(audio)? {
        conform.push(block, &mut pcm);
    }
    conform.finish(&mut pcm);
    let options = Options {
        threads: 0,
        isa: global.isa.map_or_else(codec::core::kernel::Isa::detect, Into::into),
        ..Options::default()
    };
    full.compare(packed, &pcm, &options).map_err(|e| Failure::engine(path, e))
}

fn print(path: &Path, found: &Comparison) {
    let db = |snr: Option<f64>| snr.map_or("equal".to_owned(), |db| format!("{db:.1} dB"));
    report::say(&format!("{}, {:.1} s", path.display(), found.seconds));
    for (part, layers) in [("encoder", &found.encoder), ("decoder", &found.decoder)] {
        for layer in layers {
            report::say(&format!("  {part}: {:>9}  {} {}", db(layer.snr_db), layer.kind, layer.name));
        }
    }
    if let Some(equal) = found.equal_codes {
        report::say(&format!("  codes that stay: {:.2} %", 100.0 * equal));
    }
    if !found.decoder.is_empty() {
        report::say(&format!("  decoded: {}", db(found.samples_snr_db)));
    }
}

/// What an image is written as.
#[derive(Clone, Copy)]
enum Form {
    Image,
    Rust,
    C,
}

impl Form {
    fn write(self, image: &[u8], path: &Path, out: &mut impl Write) -> std::io::Result<()> {
        match self {
            Self::Image => out.write_all(image),
            Self::Rust => {
                writeln!(out, "// A model image, made by `codec pack`.\n")?;
                writeln!(out, "/// Bytes at a cache line's start.\n#[repr(C, align(64))]")?;
                writeln!(out, "pub struct Image(pub [u8; {}]);\n", image.len())?;
                write!(
                    out,
                    "/// For `codec_core::image::Image::open(&{0}.0)`.\npub static {0}: Image = Image(*b\"",
                    name(path)
                )?;
                for line in image.chunks(32) {
                    writeln!(out, "\\")?;
                    line.iter().try_for_each(|b| write!(out, "\\x{b:02x}"))?;
                }
                writeln!(out, "\");")
            }
            Self::C => {
                let name = format!("codec_{}", name(path).to_lowercase());
                // Words, for a compiler takes eight times as long over bytes. Images are whole words, and little-endian.
                writeln!(
                    out,
                    "/* A model image, made by `codec pack`: {name}_len bytes, for little-endian machines. */"
                )?;
                writeln!(out, "#include <stddef.h>\n#include <stdint.h>\n")?;
                writeln!(out, "const size_t {name}_len = {};", image.len())?;
                write!(out, "_Alignas(64) const uint64_t {name}[{}] = {{", image.len().div_ceil(8))?;
                for (i, word) in image.chunks(8).enumerate() {
                    let mut bytes = [0; 8];
                    bytes[..word.len()].copy_from_slice(word);
                    write!(out, "{}0x{:x}u,", if i % 8 == 0 { "\n    " } else { "" }, u64::from_le_bytes(bytes))?;
                }
                writeln!(out, "\n}};")
            }
        }
    }
}

/// A constant's name from a file's.
fn name(path: &Path) -> String {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let letters: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    if letters.starts_with(|c: char| c.is_ascii_alphabetic()) { letters } else { format!("IMAGE_{letters}") }
}
