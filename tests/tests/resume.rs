//! A trainer that is killed in the middle ends with the very weights of one that is not.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::{TestNamespace, digits, jobs, operator, wait_for, with_temp_ns};
use vlft_crds::VLFineTune;
use vlft_crds::contract::env;
use vlft_crds::status::{FailureClass, Phase, VLFineTuneStatus, condition};
use vlft_crds::uri::Uri;

const STEPS: i64 = 40;
const CHECKPOINT_EVERY: i64 = 8;
const END: Duration = Duration::from_secs(240);

#[tokio::test]
async fn a_killed_trainer_ends_with_the_same_weights() -> Result<()> {
    with_temp_ns("resume", async |ns| {
        let killed = killed_ends_like_undisturbed(ns, short, &[]).await?;
        ensure!(killed.attempts[0].verdict.is_some(), "{killed:?}");
        Ok(())
    })
    .await
}

/// Two pods with two processes each: the last of the four is killed.
#[tokio::test]
async fn a_killed_rank_restarts_all_pods_and_ends_with_the_same_weights() -> Result<()> {
    with_temp_ns("resume-ranks", async |ns| {
        let rank_3 = [(env::NODE_RANK, "1"), (env::LOCAL_RANK, "1")];
        let killed = killed_ends_like_undisturbed(ns, two_by_two, &rank_3).await?;
        let verdict = killed.attempts[0].verdict.as_ref().context("no verdict")?;
        ensure!(verdict.rank == Some(3), "{verdict:?}");
        ensure!(
            verdict.message.contains("rank 3 was killed by signal 9"),
            "{verdict:?}"
        );
        let pod = verdict.pod_name.as_deref().unwrap_or_default();
        ensure!(pod.starts_with("killed-1-1-"), "{verdict:?}");
        Ok(())
    })
    .await
}

/// Runs two VLFineTunes, kills a process of one; both must end with the same weights. The status
/// of the killed one.
async fn killed_ends_like_undisturbed(
    ns: &TestNamespace,
    change: impl Fn(&mut VLFineTune),
    victim: &[(&str, &str)],
) -> Result<VLFineTuneStatus> {
    operator::ensure_operator(&ns.client).await?;
    digits::fill_volume(ns).await?;
    for name in ["undisturbed", "killed"] {
        digits::start(ns, name, &change).await?;
    }
    let step = kill_after_a_checkpoint(ns, "killed", victim).await?;
    let undisturbed = succeeded(ns, "undisturbed").await?;
    let killed = succeeded(ns, "killed").await?;
    check_history(&killed, step)?;
    let attempts = &undisturbed.attempts;
    ensure!(attempts.len() == 1, "{attempts:?}");
    let expected = weights_digest(ns, "undisturbed", &undisturbed).await?;
    let digest = weights_digest(ns, "killed", &killed).await?;
    ensure!(
        digest == expected,
        "weights differ: {digest} and {expected}"
    );
    Ok(killed)
}

fn two_by_two(finetune: &mut VLFineTune) {
    short(finetune);
    let workers = &mut finetune.spec.workers;
    workers.replicas = 2;
    workers.processes_per_replica = Some(2);
}

/// A short run, in the middle of whose first epoch a checkpoint falls.
fn short(finetune: &mut VLFineTune) {
    let spec = &mut finetune.spec;
    spec.training.max_steps = Some(STEPS);
    spec.training.warmup_steps = Some(4);
    spec.training.log_every_steps = 1;
    spec.checkpoint.every_steps = CHECKPOINT_EVERY;
    spec.dataset.validation.clear();
}

async fn status(ns: &TestNamespace, name: &str) -> Result<VLFineTuneStatus> {
    let finetune = ns.api::<VLFineTune>().get_status(name).await?;
    Ok(finetune.status.unwrap_or_default())
}

/// Waits for a checkpoint and kills the trainer with SIGKILL; the checkpoint's step.
async fn kill_after_a_checkpoint(
    ns: &TestNamespace,
    name: &str,
    victim: &[(&str, &str)],
) -> Result<i64> {
    let step = wait_for("a checkpoint", END, async || {
        let checkpoint = status(ns, name).await?.last_checkpoint;
        Ok(checkpoint
            .map(|checkpoint| checkpoint.step)
            .filter(|step| *step > 0))
    })
    .await?;
    ensure!(step < STEPS, "the run had ended before it could be killed");
    let pids = trainer_pids(&ns.name, name, victim)?;
    ensure!(
        !pids.is_empty(),
        "no process of {name} is visible; this test runs as root"
    );
    let killed = Command::new("kill").arg("-KILL").args(&pids).status()?;
    ensure!(killed.success(), "cannot kill {pids:?}");
    Ok(step)
}

/// Processes with the environment that the operator gives a trainer of this run.
fn trainer_pids(namespace: &str, name: &str, more: &[(&str, &str)]) -> Result<Vec<String>> {
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

async fn succeeded(ns: &TestNamespace, name: &str) -> Result<VLFineTuneStatus> {
    wait_for(&format!("{name} to succeed"), END, async || {
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

/// Two attempts: one killed, one that continued from the checkpoint, exactly.
fn check_history(status: &VLFineTuneStatus, step: i64) -> Result<()> {
    ensure!(status.attempts.len() == 2, "{:?}", status.attempts);
    let (first, second) = (&status.attempts[0], &status.attempts[1]);
    let class = first.verdict.as_ref().map(|verdict| verdict.class);
    ensure!(
        class.is_some_and(|class| class != FailureClass::Completed),
        "{first:?}"
    );
    let resumed = second
        .resumed_from
        .as_ref()
        .context("the second attempt began anew")?;
    ensure!(
        resumed.step >= step && resumed.step % CHECKPOINT_EVERY == 0,
        "{resumed:?}"
    );
    let exact = status
        .conditions
        .iter()
        .find(|c| c.type_ == condition::EXACT_RESUME);
    ensure!(
        exact.is_some_and(|exact| exact.status == "True"),
        "{exact:?}"
    );
    ensure!(status.restarts == 1, "{} restarts", status.restarts);
    Ok(())
}

/// sha256 of the exported weights, computed where they are.
async fn weights_digest(
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
