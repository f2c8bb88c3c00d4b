//! The options that say how codes lie in a token file.

use codec::tokens::{Pattern, Shape};

use super::Failure;

#[derive(clap::Args, Clone, Debug, Default)]
pub struct ShapeArgs {
    /// How codes lie in .npy, .safetensors and .jsonl files
    #[arg(long, value_name = "SHAPE", help_heading = "Shape of the tokens")]
    shape: Option<Name>,
    /// Frames that each code of a frame is delayed by, as in `0,1,1,1`; by default 0,1,2,…
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = "Shape of the tokens")]
    delays: Vec<u32>,
    /// Id of the cells without a code in the delay pattern; by default the first that no code has
    #[arg(long, value_name = "ID", help_heading = "Shape of the tokens")]
    pad: Option<u32>,
    /// Give each code of a frame ids of its own, one range after the other
    #[arg(long, help_heading = "Shape of the tokens")]
    offsets: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// Rows of codes, columns of frames
    Grid,
    /// One sequence, frame by frame
    Flat,
    /// Each row later than the one before, as MusicGen and Moshi take them
    Delay,
    /// One sequence, the levels of a frame depth first, as Orpheus takes SNAC's
    Tree,
}

impl ShapeArgs {
    /// The shape asked for, if one is.
    pub fn shape(&self) -> Result<Option<Shape>, Failure> {
        let Self { shape, ref delays, pad, offsets } = *self;
        if !delays.is_empty() && shape != Some(Name::Delay) {
            return Err(Failure::usage(
                "--delays is of the delay pattern only",
                "give --shape delay too, or leave it away",
            ));
        }
        if shape.is_none() && pad.is_none() && !offsets {
            return Ok(None);
        }
        let pattern = match shape.unwrap_or(Name::Grid) {
            Name::Grid => Pattern::Grid,
            Name::Flat => Pattern::Flat,
            Name::Delay => Pattern::Delay(delays.clone()),
            Name::Tree => Pattern::Tree,
        };
        Ok(Some(Shape { pattern, offsets, pad }))
    }
}
