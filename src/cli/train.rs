//! Training is a program of its own, `codec-train`, so that what it brings with it is not part of this one.

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
    let name = format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(&name)).filter(|path| path.is_file());
    let program = beside.unwrap_or_else(|| PathBuf::from(name));
    let mut child = Command::new(&program);
    child.arg(command);
    // Given before the first argument it was taken for this program's own.
    if global.quiet && command == "train" && !args.arguments.iter().any(|a| a == "--quiet" || a == "-q") {
        child.arg("--quiet");
    }
    child.args(args.arguments);
    let missing = |e: std::io::Error| {
        if e.kind() == std::io::ErrorKind::NotFound {
            let what = format_args!("`codec {command}` needs the program `{PROGRAM}`, which is not installed").to_string();
            let how = "`cargo install --path codec-train` in the sources of codec builds it (rustc 1.95 or newer, a quarter of an \
                       hour; with `--features wgpu`, `cuda` or `mpi` for GPUs and several processes); it is looked for beside \
                       `codec` and on the path";
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
