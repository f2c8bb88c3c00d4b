//! The command line of the `codec` program: one file a command. A program that can compute elsewhere than the engine does
//! calls [`main_on`] and gets the same `encode` and `decode`.

mod batch;
mod completions;
mod decode;
mod device;
mod encode;
mod eval;
mod failure;
mod import;
mod info;
mod model;
mod output;
mod pack;
mod progress;
mod report;
mod run_report;
mod shape;
mod train;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

pub use device::{Coded, Coder, Half, Open};
pub use failure::Failure;
pub use import::StoredType;

/// Neural audio codecs: sound into tokens and back.
#[derive(Parser)]
#[command(name = "codec", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(clap::Args, Clone, Debug)]
pub struct Global {
    /// Compute with this instruction set instead of the best one of this machine
    #[arg(long, global = true, value_name = "NAME", env = "CODEC_ISA", help_heading = "Global options")]
    isa: Option<Isa>,
    /// Print one JSON report on standard output at the end
    #[arg(long, global = true, help_heading = "Global options")]
    json: bool,
    /// Print nothing but errors and warnings
    #[arg(long, short, global = true, help_heading = "Global options")]
    quiet: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Isa {
    Scalar,
    Avx2,
    Avx512,
    Neon,
}

impl From<Isa> for codec::core::kernel::Isa {
    fn from(isa: Isa) -> Self {
        match isa {
            Isa::Scalar => Self::Scalar,
            Isa::Avx2 => Self::Avx2,
            Isa::Avx512 => Self::Avx512,
            Isa::Neon => Self::Neon,
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Turn audio into tokens
    Encode(encode::Args),
    /// Turn tokens into audio
    Decode(decode::Args),
    /// Tell what a model, token file or audio file holds
    Info(info::Args),
    /// Make a model file from a published checkpoint
    Import(import::Args),
    /// Make a deploy image of a model: planned, packed, ready to run where it lies
    Pack(pack::Args),
    /// Score decoded audio against its original, or a model on a folder of audio
    Eval(Box<eval::Args>),
    /// Write a page of a training run: curves, spectrograms, players
    Report(run_report::Args),
    /// Train a codec by a recipe; starts `codec-train`, which is built by itself
    Train(train::Args),
    /// Write a model file from a training run; starts `codec-train`
    Export(train::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

/// Parses the command line and runs the command. 0: done; 1: an input or the processing failed; 2: wrong usage.
pub fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    // The options of these are another program's, which `help` here does not know.
    if let [_, help, command] = arguments.as_mut_slice()
        && help == "help"
        && (command == "train" || command == "export")
    {
        *help = std::mem::replace(command, "--help".into());
    }
    run(Cli::parse_from(arguments), None)
}

/// As [`main`], for a program that has devices: `open` opens what `--device` names, where [`main`] starts `codec-train`.
/// `arguments` begin with the name of the program.
pub fn main_on(arguments: impl IntoIterator<Item = OsString>, open: &Open<'_>) -> ExitCode {
    run(Cli::parse_from(arguments), Some(open))
}

fn run(cli: Cli, open: Option<&Open<'_>>) -> ExitCode {
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Those become errors, which say which file it was.
        if !codec::audio::in_guarded_reader() {
            default_hook(info);
        }
    }));
    output::remove_temporaries_on_interrupt();
    let Cli { global, command } = cli;
    let result = match command {
        Command::Encode(args) => encode::run(args, &global, open),
        Command::Decode(args) => decode::run(args, &global, open),
        Command::Info(args) => info::run(&args, &global),
        Command::Import(args) => import::run(args, &global),
        Command::Pack(args) => pack::run(&args, &global),
        Command::Eval(args) => eval::run(&args, &global),
        Command::Report(args) => run_report::run(&args, &global),
        Command::Train(args) => train::run("train", args, &global),
        Command::Export(args) => train::run("export", args, &global),
        Command::Completions(args) => completions::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}
