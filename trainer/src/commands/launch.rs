//! `trainer launch`: what a pod runs.

use std::path::{Path, PathBuf};

use vlft_crds::contract::{
    ADAPTER_FOLDER, DOCUMENT_PATH, MODEL_FOLDER, TERMINATION_LOG_PATH, TerminationReport, env,
};
use vlft_crds::load::load_file;
use vlft_crds::status::FailureClass;

use super::training::{Job, Outcome};
use super::{exit, logging};
use crate::error::{Error, Result};
use crate::metrics::{LogTail, Published, write_report};
use crate::plan::{PodEnvironment, Volumes};
use crate::train::Console;

/// Runs the document of a VLFineTune inside a pod.
#[derive(Debug, clap::Args)]
pub(super) struct LaunchArgs {
    /// The resolved VLFineTune
    #[arg(default_value = DOCUMENT_PATH)]
    file: PathBuf,
}

pub(super) fn run(args: LaunchArgs) -> Result<()> {
    let tail = logging::init();
    let lookup = |name: &str| std::env::var(name).ok();
    let published = Published::default();
    // Without a readable environment the report still goes where the kubelet looks.
    let log = lookup(env::TERMINATION_LOG).unwrap_or_else(|| TERMINATION_LOG_PATH.to_owned());
    let outcome = exit::catching_panics(|| {
        let pod = PodEnvironment::read(&lookup)?;
        published.update(|progress| progress.attempt = pod.identity.attempt);
        let volume = pod.checkpoints.clone();
        let outcome = job(&args.file, pod)?.work(&published)?;
        Ok((outcome, volume))
    });
    if let Err(error) = &outcome {
        tracing::error!(class = error.class().as_str(), "{error}");
    }
    let report = report(&outcome, &published, &tail);
    if let Err(error) = write_report(Path::new(&log), &report) {
        tracing::error!("{error}");
    }
    outcome.map(drop)
}

fn job(file: &Path, pod: PodEnvironment) -> Result<Job> {
    let document =
        load_file(file).map_err(|cause| Error::User(format!("{}: {cause}", file.display())))?;
    let run_folder = pod.run_folder();
    Ok(Job {
        document,
        model_folder: run_folder.join(MODEL_FOLDER),
        adapter_folder: run_folder.join(ADAPTER_FOLDER),
        run_folder,
        identity: pod.identity,
        volumes: Volumes::Mounted(pod.volumes),
        volume: pod.checkpoints,
        console: Console::Lines,
        metrics_port: Some(pod.metrics_port),
    })
}

fn report(
    outcome: &Result<(Outcome, PathBuf)>,
    published: &Published,
    tail: &LogTail,
) -> TerminationReport {
    let report = TerminationReport {
        progress: published.progress(),
        attempt: published.progress().attempt,
        ..TerminationReport::default()
    };
    match outcome {
        Ok((Outcome { summary, model }, volume)) => TerminationReport {
            class: FailureClass::Completed,
            message: format!("trained {} steps", summary.step),
            exit_code: 0,
            final_loss: summary.final_loss.filter(|loss| loss.is_finite()),
            validation_loss: summary.validation_loss.filter(|loss| loss.is_finite()),
            model_path: Some(
                model
                    .strip_prefix(volume)
                    .unwrap_or(model)
                    .display()
                    .to_string(),
            ),
            ..report
        },
        Err(error) => TerminationReport {
            class: error.class(),
            message: error.to_string(),
            exit_code: error.exit_code(),
            log_tail: tail.text(),
            ..report
        },
    }
}
