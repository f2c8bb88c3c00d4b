use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use codec::{core::weights::Dtype, import, model_file};

use super::{Failure, Global, output::check_free, report};

#[derive(clap::Args)]
pub struct Args {
    /// Checkpoint as published: a file, or a folder with one
    source_path: PathBuf,
    /// Model file to write
    #[arg(long, short, value_name = "MODEL.safetensors")]
    output: PathBuf,
    /// The published system, if it is not recognised
    #[arg(long, value_name = "NAME")]
    system: Option<String>,
    /// Licence of the weights, to note in the model file
    #[arg(long, value_name = "TEXT")]
    license: Option<String>,
    /// Where the weights were published, to note in the model file
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Type to store weights and codebooks in; a model of f16 also runs from half the memory. Rounding makes other tokens
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
    dtype: StoredType,
    /// Replace the model file if it exists
    #[arg(long, short)]
    force: bool,
}

/// `--dtype` of what writes model files.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum StoredType {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
}

impl From<StoredType> for Dtype {
    fn from(stored: StoredType) -> Self {
        match stored {
            StoredType::F32 => Self::F32,
            StoredType::F16 => Self::F16,
            StoredType::Bf16 => Self::Bf16,
        }
    }
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    check_free(&args.output, args.force)?;
    if !args.output.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors")) {
        let text = format!("{}: a model is a safetensors file", args.output.display());
        return Err(Failure::usage(text, "name it .safetensors"));
    }
    let folder = args.output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(Failure::write(&args.output, &std::io::ErrorKind::NotFound.into()));
    }
    let options = import::ImportOptions { system: args.system, license: args.license, source: args.source };
    let mut imported = import::import(&args.source_path, &options).map_err(|e| {
        Failure::lines(e, format_args!("the systems that --system can name: {}", import::systems().join(", ")))
    })?;
    imported.tensors.store_as(args.dtype.into()).map_err(|e| Failure::new(e, "ask for another --dtype"))?;
    model_file::write_model(&args.output, &imported.spec, &imported.tensors, &imported.provenance)
        .map_err(|e| Failure::new(e, "check that the disk is not full and that you may write to the folder"))?;
    let model = codec::Model::load(&args.output).map_err(|e| Failure::engine(&args.output, e))?;
    let info = model.info().map_err(|e| Failure::engine(&args.output, e))?;
    if global.json {
        return report::print_json(&info).map(|()| ExitCode::SUCCESS);
    }
    if !global.quiet {
        report::say(&format!("{}: {}, fingerprint {}", args.output.display(), info.name, model.fingerprint()));
    }
    Ok(ExitCode::SUCCESS)
}
