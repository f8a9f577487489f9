//! `trainer launch`: what a pod runs: one process for each GPU, and one report for all.

mod cause;
mod children;
mod logs;
mod place;
mod worker;

use std::path::PathBuf;

use vlft_crds::contract::{DOCUMENT_PATH, env};

use crate::error::Result;

/// Runs a VLFineTune on every GPU of a pod (or of this machine).
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LaunchArgs {
    /// The resolved VLFineTune
    #[arg(default_value = DOCUMENT_PATH)]
    file: PathBuf,
    /// Processes to start; in a pod the operator says how many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    nproc: Option<u16>,
    /// The folder that stands in for a pvc://NAME (outside a pod); may be given several times
    #[arg(long = "volume", value_name = "NAME=FOLDER")]
    volumes: Vec<String>,
    /// Where checkpoints and the finished model go (outside a pod) [default: out/NAME]
    #[arg(long = "output_dir", alias = "output-dir", value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

/// Starts the processes of this node and waits for them, or is one of them. A single process
/// needs no parent.
pub(super) fn run(args: LaunchArgs) -> Result<()> {
    let lookup = |name: &str| std::env::var(name).ok();
    let processes = match lookup(env::LOCAL_RANK) {
        Some(_) => 1,
        None => place::processes(args.nproc, &lookup)?,
    };
    match processes {
        1 => worker::run(&args),
        processes => children::run(processes, &lookup),
    }
}
