//! Runs of the digits example whose trainers meet with accidents: what a test needs to see of
//! them, and to do to them.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vlft_crds::VLFineTune;
use vlft_crds::contract::env;
use vlft_crds::status::{Phase, VLFineTuneStatus};
use vlft_crds::uri::Uri;

use crate::{TestNamespace, jobs, operator, wait_for};

/// A run's status.
pub async fn status(ns: &TestNamespace, name: &str) -> Result<VLFineTuneStatus> {
    let finetune = ns.api::<VLFineTune>().get_status(name).await?;
    Ok(finetune.status.unwrap_or_default())
}

/// Waits for a run's first checkpoint; its step.
pub async fn first_checkpoint(ns: &TestNamespace, name: &str, within: Duration) -> Result<i64> {
    wait_for("a checkpoint", within, async || {
        let checkpoint = status(ns, name).await?.last_checkpoint;
        Ok(checkpoint
            .map(|checkpoint| checkpoint.step)
            .filter(|step| *step > 0))
    })
    .await
}

/// Waits until a run has succeeded; fails at once if it fails.
pub async fn succeeded(
    ns: &TestNamespace,
    name: &str,
    within: Duration,
) -> Result<VLFineTuneStatus> {
    wait_for(&format!("{name} to succeed"), within, async || {
        let status = status(ns, name).await?;
        ensure!(
            status.phase != Phase::Failed,
            "it failed: {:?}",
            status.attempts
        );
        Ok((status.phase == Phase::Succeeded).then_some(status))
    })
    .await
}

/// Kills the processes of a run with SIGKILL, on whatever node: those with the environment that
/// the operator gives its trainers and with `more` in it.
pub fn kill(namespace: &str, name: &str, more: &[(&str, &str)]) -> Result<()> {
    let pids = processes(namespace, name, more)?;
    ensure!(
        !pids.is_empty(),
        "no process of {name} is visible; this needs root on the cluster's machine"
    );
    let killed = Command::new("kill").arg("-KILL").args(&pids).status()?;
    ensure!(killed.success(), "cannot kill {pids:?}");
    Ok(())
}

/// Process ids of a run's trainers, as [`kill`] finds them.
pub fn processes(namespace: &str, name: &str, more: &[(&str, &str)]) -> Result<Vec<String>> {
    let run = [(env::NAMESPACE, namespace), (env::NAME, name)];
    let wanted: Vec<_> = run
        .iter()
        .chain(more)
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot list processes")? {
        let folder = entry?.path();
        // A process may end while it is looked at.
        let Ok(environment) = std::fs::read(folder.join("environ")) else {
            continue;
        };
        let environment = String::from_utf8_lossy(&environment);
        let variables: Vec<&str> = environment.split('\0').collect();
        if wanted
            .iter()
            .all(|variable| variables.contains(&variable.as_str()))
        {
            pids.extend(
                folder
                    .file_name()
                    .map(|pid| pid.to_string_lossy().into_owned()),
            );
        }
    }
    Ok(pids)
}

/// sha256 of the exported weights, computed where they are.
pub async fn weights_digest(
    ns: &TestNamespace,
    name: &str,
    status: &VLFineTuneStatus,
) -> Result<String> {
    let result = status.result.as_ref().context("no result")?;
    let Uri::Claim { claim, path } = Uri::parse(&result.model_uri)? else {
        anyhow::bail!("the model is not on a volume: {}", result.model_uri);
    };
    let script = format!("cat /volume/{path}/*.safetensors | sha256sum");
    let command = ["/bin/sh", "-c", &script].map(str::to_owned);
    let mount = jobs::Mount {
        claim,
        path: "/volume",
    };
    let image = operator::trainer_image();
    jobs::run(
        &ns.client,
        &ns.name,
        &format!("digest-{name}"),
        &image,
        &command,
        &[mount],
    )
    .await
}
