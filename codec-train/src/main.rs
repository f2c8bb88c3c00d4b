//! `codec-train`: runs recipes, and codes on devices. `codec train`, `codec export` and, for `--device`, `codec encode` and
//! `codec decode` start it.

use std::{
    ffi::OsString,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::{Parser, Subcommand};
use codec::{cli::StoredType, model_file::Provenance};
use codec_train::{
    TrainError, coder, device,
    group::{self, Group, together},
    recipe::Recipe,
    trainer::{Ended, StepReport, Trainer, export},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Train neural audio codecs.
#[derive(Parser)]
#[command(name = "codec-train", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// `codec encode`, which starts this for --device; its options
    #[command(disable_help_flag = true)]
    Encode {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// `codec decode`, which starts this for --device; its options
    #[command(disable_help_flag = true)]
    Decode {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a recipe, or go on with a run; under `mpirun`, as many processes together, each with batches of the recipe's size
    Train {
        /// The recipe
        #[arg(value_name = "RECIPE.toml")]
        recipe: PathBuf,
        /// Folder of wav and flac files, or a manifest: lines of path, seconds, weight, with tabs between them
        #[arg(long, value_name = "FOLDER|MANIFEST")]
        data: PathBuf,
        /// Folder of the run; if it has checkpoints, the run goes on from the last
        #[arg(long, value_name = "RUN")]
        out: PathBuf,
        /// Where to compute: cpu, gpu, gpu:N, cuda, cuda:N, as far as they are built in; under mpirun gpu:local and cuda:local
        /// give each process of a machine the device of its number
        #[arg(long, default_value = "cpu", value_name = "DEVICE")]
        device: String,
        /// Print nothing but errors
        #[arg(long, short)]
        quiet: bool,
    },
    /// Write a model file from the last checkpoint of a run
    Export {
        /// Folder of the run, or a checkpoint of it
        #[arg(value_name = "RUN")]
        run: PathBuf,
        /// Model file to write
        #[arg(long, short, value_name = "MODEL.safetensors")]
        output: PathBuf,
        /// Licence of the weights, to note in the model file
        #[arg(long, value_name = "TEXT")]
        license: Option<String>,
        /// Where the weights come from, to note in the model file
        #[arg(long, value_name = "TEXT")]
        source: Option<String>,
        /// Type to store weights and codebooks in, as of `codec import`
        #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
        dtype: StoredType,
        /// Replace the model file if it exists
        #[arg(long, short)]
        force: bool,
    },
}

/// Starts a training again with the allocator told to keep what is given back to it, unless it was told otherwise: the next
/// step takes as much again, and the system clears every page that it hands out, for a sixth of a step's time. What the process
/// holds then stays at its peak.
#[cfg(unix)]
fn keep_memory() {
    use std::os::unix::process::CommandExt as _;
    const OPTION: &str = "MIMALLOC_PURGE_DELAY";
    if std::env::var_os(OPTION).is_some() || std::env::args_os().nth(1).is_none_or(|command| command != "train") {
        return;
    }
    if let Ok(own) = std::env::current_exe() {
        // It comes back where the program cannot be started; then the memory is not kept.
        let _ = std::process::Command::new(own).args(std::env::args_os().skip(1)).env(OPTION, "-1").exec();
    }
}

fn main() -> ExitCode {
    #[cfg(unix)]
    keep_memory();
    // On a thread of the pool: work that is handed out by any other thread wakes one up first, which takes longer than most of it.
    rayon::scope(|_| run())
}

fn run() -> ExitCode {
    let code = |command: &str, arguments: Vec<OsString>| {
        let arguments = ["codec", command].map(OsString::from).into_iter().chain(arguments);
        codec::cli::main_on(arguments, &coder::open)
    };
    let result = match Cli::parse().command {
        Command::Encode { arguments } => return code("encode", arguments),
        Command::Decode { arguments } => return code("decode", arguments),
        Command::Train { recipe, data, out, device, quiet } => {
            let group = match group::open() {
                Ok(group) => group,
                Err(e) => {
                    eprintln!("error: {e}");
                    return ExitCode::FAILURE;
                }
            };
            let result = train(&group, &recipe, &data, &out, &device, quiet);
            return result.unwrap_or_else(|e| failed(&*group, &e));
        }
        Command::Export { run, output, license, source, dtype, force } => {
            if output.exists() && !force {
                eprintln!("error: {} exists; --force replaces it", output.display());
                return ExitCode::from(2);
            }
            let provenance = Provenance { system: None, license, source };
            export(&run, &output, dtype.into(), &provenance).map(|fingerprint| {
                println!("{}: fingerprint {fingerprint}", output.display());
                ExitCode::SUCCESS
            })
        }
    };
    result.unwrap_or_else(|e| {
        eprintln!("error: {e}");
        ExitCode::FAILURE
    })
}

/// Says what went wrong, in the words of one process, and ends all.
fn failed(group: &dyn Group, error: &TrainError) -> ExitCode {
    let own = match error {
        TrainError::Elsewhere { .. } => false,
        // All have the same.
        TrainError::NotFinite { .. } => group.rank() == 0,
        _ => true,
    };
    if own {
        match group.size() {
            1 => eprintln!("error: {error}"),
            size => eprintln!("error: process {} of {size}: {error}", group.rank()),
        }
        group.abort();
    }
    ExitCode::FAILURE
}

fn train(
    group: &Rc<dyn Group>,
    recipe: &Path,
    data: &Path,
    out: &Path,
    device: &str,
    quiet: bool,
) -> Result<ExitCode, TrainError> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let alone = group.size() == 1;
    // Without a handler Ctrl-C ends the program as ever, and the last checkpoint stands.
    let _ = ctrlc::set_handler(move || {
        // Of several processes each is told by mpirun, also when another has died.
        let again = asked.swap(true, Ordering::Relaxed);
        if alone && again {
            std::process::exit(130);
        }
        if alone {
            eprintln!("\nstopping after this step; again to stop at once");
        }
    });
    let plan = together(&**group, Recipe::load(recipe))?;
    let device = together(&**group, device::open(&device::of_process(device, group.local_rank())))?;
    let mut trainer = Trainer::open_in(group.clone(), plan, recipe, data, out, &device)?;
    let quiet = quiet || group.rank() > 0;
    let steps = trainer.recipe().run.steps;
    if !quiet {
        let corpus = trainer.corpus();
        if !alone {
            eprintln!(
                "{} processes; batches of {} items together",
                group.size(),
                group.size() * trainer.recipe().data.batch
            );
        }
        eprintln!(
            "{} files, {:.2} h; {} parameters; step {} of {steps}",
            corpus.clips().len(),
            corpus.hours(),
            trainer.weights().parameters(),
            trainer.step()
        );
        if trainer.step() >= steps {
            eprintln!("nothing is left to do: raise `run.steps`, or take another folder for a new run");
        }
        let skipped = corpus.skipped();
        if skipped.short > 0 {
            eprintln!("{} files are too short and left out", skipped.short);
        }
        for (path, why) in &skipped.unreadable {
            eprintln!("left out: {}: {why}", path.display());
        }
    }
    let terminal = std::io::stderr().is_terminal();
    let mut seconds_a_step: Option<f64> = None;
    let progress = |report: &StepReport, seconds: f64| {
        let mean = seconds_a_step.map_or(seconds, |mean| 0.95 * mean + 0.05 * seconds);
        seconds_a_step = Some(mean);
        let done = report.step + 1;
        if quiet || !(terminal || done.is_multiple_of(50) || done == steps) {
            return;
        }
        let losses: Vec<_> = report.losses.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        let left = (steps - done) as f64 * mean;
        let line = format!(
            "step {done}/{steps}  {:.2} steps/s  {:.0} min left  {}",
            1.0 / mean.max(1e-9),
            left / 60.0,
            losses.join("  ")
        );
        if terminal {
            eprint!("\r\x1b[K{line}");
        } else {
            eprintln!("{line}");
        }
    };
    let ended = trainer.run(&stop, progress)?;
    if !quiet {
        if terminal {
            eprintln!();
        }
        match ended {
            Ended::Finished => {
                eprintln!("done; `codec export {} -o MODEL.safetensors` writes the model", out.display())
            }
            Ended::Stopped => eprintln!("stopped after step {}; the same command goes on", trainer.step()),
        }
    }
    Ok(if ended == Ended::Finished { ExitCode::SUCCESS } else { ExitCode::from(130) })
}
