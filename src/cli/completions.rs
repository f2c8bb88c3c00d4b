use std::process::ExitCode;

use clap::CommandFactory;

use super::{Cli, Failure};

#[derive(clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Result<ExitCode, Failure> {
    clap_complete::generate(args.shell, &mut Cli::command(), "codec", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
