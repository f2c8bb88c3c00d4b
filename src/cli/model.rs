//! The options that name a model and how to run it.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

use codec::{Bitrate, MOST_THREADS, Model, Options};

use super::{Failure, Global};

#[derive(clap::Args, Debug)]
pub struct ModelArgs {
    /// The model file; without one the model in the box, `nano-16k`, for speech at 16 kHz
    #[arg(long, short, env = "CODEC_MODEL", value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Threads to compute with; 0: as many as the machine has
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=MOST_THREADS as u64))]
    pub threads: usize,
    /// Most memory, in MiB, that one signal may take beside the model
    #[arg(long, default_value_t = 4096, value_name = "MIB")]
    pub max_memory: u64,
}

impl ModelArgs {
    /// The model's file, or what to call the model in the box.
    pub fn path(&self) -> Result<&Path, Failure> {
        #[cfg(feature = "default-model")]
        if self.model.is_none() {
            return Ok(Path::new("the model in the box"));
        }
        self.model.as_deref().ok_or_else(|| {
            Failure::usage(
                "no model given",
                "give --model FILE or set CODEC_MODEL; `codec import CHECKPOINT -o MODEL.safetensors` makes a model file of a published checkpoint",
            )
        })
    }

    pub fn load(&self) -> Result<Model, Failure> {
        #[cfg(feature = "default-model")]
        if self.model.is_none() {
            return Model::built_in().map_err(|e| Failure::engine(Path::new("the model in the box"), e));
        }
        let path = self.path()?;
        Model::load(path).map_err(|e| {
            Failure::new(
                e,
                "give a model file, or make one of a published checkpoint with `codec import CHECKPOINT -o MODEL.safetensors`",
            )
        })
    }

    pub fn thread_count(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }

    pub fn options(&self, global: &Global, codebooks: Option<usize>, beam: usize) -> Options {
        Options {
            codebooks,
            first_codebook: 0,
            beam,
            merged_books: 0,
            noise_seed: None,
            threads: self.thread_count(),
            max_memory: self.max_memory.saturating_mul(1 << 20),
            isa: global.isa.map_or_else(codec::core::kernel::Isa::detect, Into::into),
        }
    }
}

/// Neighbouring codes of a frame, `A..B` without B.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Books(pub Range<usize>);

impl FromStr for Books {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, end) =
            text.split_once("..").ok_or("codebooks are given as A..B, `1..8` for all of 8 but the first")?;
        let number =
            |text: &str| text.trim().parse::<usize>().map_err(|_| "A and B of A..B are whole numbers from 0 on");
        let range = number(first)?..number(end)?;
        if range.is_empty() { Err("A..B goes up to B - 1, so B is more than A") } else { Ok(Self(range)) }
    }
}

/// The number of codebooks that fill `kbps`: `floor(bits a second / (bits a second of a codebook))`, which must be
/// one that the publisher offers.
pub fn codebooks_of_bandwidth(bitrates: &[Bitrate], most: usize, kbps: f64) -> Result<usize, Failure> {
    let one = bitrates.first().map_or(f64::INFINITY, |b| b.kbps / b.codebooks as f64);
    // A rate on offer, rounded to three decimals, is that rate.
    let count = ((kbps + 5e-4) / one).floor();
    let chosen = bitrates.iter().find(|b| b.codebooks as f64 == count);
    chosen.map(|b| b.codebooks).ok_or_else(|| {
        let offers: Vec<String> =
            bitrates.iter().map(|b| format!("{} ({} codebooks)", decimals(b.kbps), b.codebooks)).collect();
        Failure::new(
            format_args!("the model has no bandwidth of {kbps} kbps"),
            format_args!("it has {}; --codebooks takes any count up to {}", offers.join(", "), most),
        )
    })
}

/// Up to three decimals.
fn decimals(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
