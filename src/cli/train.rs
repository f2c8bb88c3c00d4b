//! Training and coding on devices are a program of their own, `codec-train`, so that what it brings with it is not part of
//! this one.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
};

use super::{Failure, Global};

const PROGRAM: &str = "codec-train";

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Handed to `codec-train` as they are; --help lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Starts `codec-train COMMAND ARGUMENTS…`: the one beside this program, or the first on the path.
pub fn run(command: &str, args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let mut arguments = args.arguments;
    // Given before the first argument it was taken for this program's own.
    if global.quiet && command == "train" && !arguments.iter().any(|a| a == "--quiet" || a == "-q") {
        arguments.insert(0, "--quiet".into());
    }
    start(command, arguments, "with `--features wgpu`, `cuda` or `mpi` for GPUs and several processes")
}

/// Starts it with the whole command line of this program, whose command is `command`.
pub fn hand_over(command: &str, device: &str) -> Result<ExitCode, Failure> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    // What stands before the command are options of all commands, none of which has its name for a value.
    if let Some(at) = arguments.iter().position(|argument| argument == command) {
        arguments.remove(at);
    }
    let feature = if device.starts_with("cuda") { "cuda" } else { "wgpu" };
    start(command, arguments, &format!("with `--features {feature}`"))
}

fn start(command: &str, arguments: Vec<OsString>, features: &str) -> Result<ExitCode, Failure> {
    let name = format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(&name)).filter(|path| path.is_file());
    let program = beside.unwrap_or_else(|| PathBuf::from(name));
    let mut child = Command::new(&program);
    child.arg(command).args(arguments);
    let missing = |e: std::io::Error| {
        if e.kind() == std::io::ErrorKind::NotFound {
            let what =
                format_args!("`codec {command}` needs the program `{PROGRAM}`, which is not installed").to_string();
            let how = format!(
                "`cargo install --path codec-train` in the sources of codec builds it (rustc 1.95 or newer, a quarter of an \
                 hour; {features}); it is looked for beside `codec` and on the path. docs/training.md and recipes/ say what it does"
            );
            return Failure::new(what, how);
        }
        Failure::new(format_args!("cannot start {}: {e}", program.display()), "check that it can be executed")
    };
    // On Ctrl-C the trainer has a checkpoint to write, so nobody stands between it and the terminal.
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        Err(missing(child.exec()))
    }
    #[cfg(not(unix))]
    {
        let status = child.status().map_err(missing)?;
        let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        Ok(ExitCode::from(code))
    }
}
