//! One module per command; `main` parses, dispatches and turns errors into exit codes.

use std::process::ExitCode;

pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
