//! The operator: reconciles VLFineTune resources into pod groups that run the trainer.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Args, LogFormat};

mod args;
mod controller;
#[cfg(test)]
mod fixtures;
mod jitter;
mod leader;
mod metrics;
mod run;
mod server;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = start_logging(&args) {
        eprintln!("--log-level: {error}");
        return ExitCode::from(2);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    let result = runtime.block_on(run::run(args));
    // What still runs must not keep a replica that lost its lease alive.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match result {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped");
            ExitCode::FAILURE
        }
    }
}

fn start_logging(args: &Args) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::try_new(&args.log_level)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    match args.log_format {
        LogFormat::Json => lines.json().flatten_event(true).init(),
        LogFormat::Text => lines.init(),
    }
    Ok(())
}
