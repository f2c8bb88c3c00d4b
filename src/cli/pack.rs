use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use codec::{Model, PackOptions, Parts, core::weights::Precision};
use serde_json::json;

use super::{Failure, Global, output::Output, report};

#[derive(clap::Args)]
pub struct Args {
    /// Model file
    model: PathBuf,
    /// Image to write
    #[arg(long, short, value_name = "IMAGE.bin")]
    output: Option<PathBuf>,
    /// Precision of the networks' weights, instead of the model file's. It makes other tokens and samples
    #[arg(long, value_enum, value_name = "TYPE")]
    dtype: Option<PackedType>,
    /// Leave the encoder out
    #[arg(long, conflicts_with = "encoder_only")]
    decoder_only: bool,
    /// Leave the decoder out
    #[arg(long)]
    encoder_only: bool,
    /// Frames of one step where the image runs without a heap
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    frames: u32,
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

/// What weights are packed in.
#[derive(Clone, Copy, clap::ValueEnum)]
enum PackedType {
    F32,
    F16,
    I8,
}

pub fn run(args: &Args, global: &Global) -> Result<ExitCode, Failure> {
    if args.output.is_none() && args.rust.is_none() && args.c.is_none() {
        return Err(Failure::usage("nothing to write", "give -o IMAGE.bin, --rust FILE.rs or --c FILE.c"));
    }
    let outputs = [(&args.output, Form::Image), (&args.rust, Form::Rust), (&args.c, Form::C)];
    let outputs = outputs.into_iter().filter_map(|(path, form)| path.as_ref().map(|p| (p, form)));
    let outputs: Vec<_> = outputs
        .map(|(path, form)| Ok((path, form, Output::create(path, args.force)?)))
        .collect::<Result<_, Failure>>()?;
    let model = Model::load(&args.model).map_err(|e| Failure::engine(&args.model, e))?;
    let model = match args.dtype {
        Some(_) if Model::is_image(&args.model) => {
            let text = format!("{} is an image, whose weights are packed already", args.model.display());
            return Err(Failure::usage(text, "give the model file that it was packed from"));
        }
        Some(PackedType::F32) => model.with_precision(Precision::F32),
        Some(PackedType::F16) => model.with_precision(Precision::F16),
        Some(PackedType::I8) => model.with_precision(Precision::I8),
        None => model,
    };
    let parts = match (args.decoder_only, args.encoder_only) {
        (true, _) => Parts::Decoder,
        (_, true) => Parts::Encoder,
        _ => Parts::All,
    };
    let image = model.pack(&PackOptions { parts, frames: args.frames }).map_err(|e| Failure::engine(&args.model, e))?;
    for (path, form, output) in outputs {
        let mut out = BufWriter::new(output.file()?);
        form.write(&image, path, &mut out).and_then(|()| out.flush()).map_err(|e| Failure::write(path, &e))?;
        drop(out);
        output.commit()?;
    }
    if global.json {
        report::print_json(&json!({
            "bytes": image.len(),
            "fingerprint": model.fingerprint().to_string(),
            "frames": args.frames,
        }))?;
    } else if !global.quiet {
        let name = &model.spec().name;
        report::say(&format!("{name}: {} bytes, fingerprint {}", image.len(), model.fingerprint()));
    }
    Ok(ExitCode::SUCCESS)
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
                    write!(out, "\\\n")?;
                    line.iter().try_for_each(|b| write!(out, "\\x{b:02x}"))?;
                }
                writeln!(out, "\");")
            }
            Self::C => {
                let name = name(path).to_lowercase();
                writeln!(out, "/* A model image, made by `codec pack`. */\n#include <stddef.h>\n")?;
                writeln!(out, "const size_t {name}_len = {};", image.len())?;
                write!(out, "_Alignas(64) const unsigned char {name}[{}] = {{", image.len())?;
                for line in image.chunks(24) {
                    write!(out, "\n    ")?;
                    line.iter().try_for_each(|b| write!(out, "{b},"))?;
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
