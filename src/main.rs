//! The `codec` program.

fn main() -> std::process::ExitCode {
    codec::cli::main()
}
