//! The trainer's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    trainer::commands::main()
}
