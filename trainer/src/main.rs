//! The trainer's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    trainer::threads::settle_wait_policy();
    trainer::commands::main()
}
