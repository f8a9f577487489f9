//! One training process.

use std::path::{Path, PathBuf};

use vlft_crds::VLFineTune;
use vlft_crds::contract::{
    ADAPTER_FOLDER, MODEL_FOLDER, TERMINATION_LOG_PATH, TerminationReport, env, exit_code,
};
use vlft_crds::load::load_file;
use vlft_crds::status::FailureClass;

use super::super::training::{Job, Outcome};
use super::super::{exit, logging};
use super::{LaunchArgs, place};
use crate::error::{Error, Result};
use crate::metrics::{LogTail, Published, write_report};
use crate::parallel::{Rank, Rendezvous};
use crate::plan::{PodEnvironment, Volumes, local_identity};
use crate::train::Console;

/// Trains, and leaves a termination report, whatever happens.
pub(super) fn run(args: &LaunchArgs) -> Result<()> {
    let tail = logging::init();
    if std::env::var_os(env::LOCAL_RANK).is_some() {
        end_with_parent();
    }
    let lookup = |name: &str| std::env::var(name).ok();
    let published = Published::default();
    let in_pod = lookup(env::UID).is_some() || args.output_dir.is_none() && args.nproc.is_none();
    let mut rank = Rank::ONLY;
    let outcome = exit::catching_panics(|| {
        rank = place::rank(place::processes(args.nproc, &lookup)?, &lookup)?;
        let job = match in_pod {
            true => pod_job(args, rank, &lookup, &published)?,
            false => local_job(args, rank, &lookup)?,
        };
        let volume = job.volume.clone();
        Ok((job.work(&published)?, volume))
    });
    if let Err(error) = &outcome {
        tracing::error!(class = error.class().as_str(), "{error}");
    }
    // Without a readable environment the report still goes where the kubelet looks.
    let kubelet = in_pod.then(|| TERMINATION_LOG_PATH.to_owned());
    if let Some(log) = lookup(env::TERMINATION_LOG).or(kubelet) {
        let report = report(&outcome, &published, &tail, rank.rank);
        if let Err(error) = write_report(Path::new(&log), &report) {
            tracing::error!("{error}");
        }
    }
    outcome.map(drop)
}

/// The parent holds the other end of the standard input for as long as it lives.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        tracing::error!("`trainer launch` is gone");
        std::process::exit(exit_code::PEER_LOST);
    });
}

fn document(file: &Path) -> Result<VLFineTune> {
    load_file(file).map_err(|cause| Error::User(format!("{}: {cause}", file.display())))
}

fn meeting(document: &VLFineTune, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Rendezvous> {
    place::rendezvous(document.spec.run_policy.hang_timeout_seconds, lookup)
}

fn pod_job(
    args: &LaunchArgs,
    rank: Rank,
    lookup: &dyn Fn(&str) -> Option<String>,
    published: &Published,
) -> Result<Job> {
    let pod = PodEnvironment::read(&lookup)?;
    published.update(|progress| progress.attempt = pod.identity.attempt);
    let document = document(&args.file)?;
    let run_folder = pod.run_folder();
    Ok(Job {
        rendezvous: Some(meeting(&document, lookup)?),
        document,
        model_folder: run_folder.join(MODEL_FOLDER),
        adapter_folder: run_folder.join(ADAPTER_FOLDER),
        run_folder,
        identity: pod.identity,
        volumes: Volumes::Mounted(pod.volumes),
        volume: pod.checkpoints,
        console: console(rank, Console::Lines),
        metrics_port: Some(pod.metrics_port + rank.local_rank as u16),
        rank,
    })
}

fn local_job(
    args: &LaunchArgs,
    rank: Rank,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Job> {
    let mut document = document(&args.file)?;
    document.spec.workers.replicas = 1;
    document.spec.workers.processes_per_replica = Some(rank.world_size);
    let identity = local_identity(&document);
    let default = || Path::new("out").join(&identity.name);
    let output: PathBuf = args.output_dir.clone().unwrap_or_else(default);
    std::fs::create_dir_all(&output).map_err(|cause| Error::storage("create", &output, &cause))?;
    Ok(Job {
        rendezvous: Some(meeting(&document, lookup)?),
        document,
        identity,
        volumes: Volumes::parse(&args.volumes)?,
        run_folder: output.clone(),
        model_folder: output.join(MODEL_FOLDER),
        adapter_folder: output.join(ADAPTER_FOLDER),
        volume: output,
        console: console(rank, Console::Lines),
        metrics_port: None,
        rank,
    })
}

/// The first rank speaks for the run.
fn console(rank: Rank, first: Console) -> Console {
    match rank.is_first() {
        true => first,
        false => Console::Silent,
    }
}

fn report(
    outcome: &Result<(Outcome, PathBuf)>,
    published: &Published,
    tail: &LogTail,
    rank: i64,
) -> TerminationReport {
    let report = TerminationReport {
        progress: published.progress(),
        attempt: published.progress().attempt,
        rank,
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
