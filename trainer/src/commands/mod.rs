//! One module per command; `main` parses, dispatches and turns errors into exit codes.

mod compute;
mod convert;
mod device;
mod doctor;
mod estimate;
mod exit;
mod export;
mod families;
mod forward;
mod generate;
mod init;
mod launch;
mod logging;
mod run;
mod training;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Result;

/// Fine-tunes vision-language models.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Launch(launch::LaunchArgs),
    Run(run::RunArgs),
    Validate(validate::ValidateArgs),
    Convert(convert::ConvertArgs),
    Init(init::InitArgs),
    Forward(forward::ForwardArgs),
    Generate(generate::GenerateArgs),
    Export(export::ExportArgs),
    Estimate(estimate::EstimateArgs),
    Doctor(doctor::DoctorArgs),
    Families(families::FamiliesArgs),
}

/// Parses the command line, runs the command, and exits by the contract's codes: whatever
/// happens, panics included, ends as one line on stderr and one exit code.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => exit::code_of(exit::catching_panics(|| dispatch(cli.command))),
        Err(usage) => exit::usage(&usage),
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Launch(args) => launch::run(args),
        Command::Run(args) => run::run(args),
        Command::Validate(args) => validate::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Init(args) => init::run(args),
        Command::Forward(args) => forward::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Export(args) => export::run(args),
        Command::Estimate(args) => estimate::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Families(args) => families::run(args),
    }
}
