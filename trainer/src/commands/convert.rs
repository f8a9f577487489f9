//! `trainer convert`: a train_config.yaml as a VLFineTune.

use std::path::PathBuf;

use crate::error::Result;
use crate::plan::{ConfigFlags, TrainConfig};

/// Prints the VLFineTune that a train_config.yaml stands for.
#[derive(Debug, clap::Args)]
pub(super) struct ConvertArgs {
    /// The train_config.yaml
    file: PathBuf,
    /// Compute in float16
    #[arg(long, conflicts_with = "bf16")]
    fp16: bool,
    /// Compute in bfloat16 over float32 master weights
    #[arg(long)]
    bf16: bool,
}

pub(super) fn run(args: ConvertArgs) -> Result<()> {
    let ConvertArgs { file, fp16, bf16 } = args;
    let flags = ConfigFlags {
        fp16,
        bf16,
        cpu: false,
    };
    let converted = TrainConfig::open(&file, flags)?;
    converted.checked()?;
    for notice in &converted.notices {
        eprintln!("{notice}");
    }
    print!("{}", converted.yaml()?);
    Ok(())
}
