//! A trainer that is killed in the middle ends with the very weights of one that is not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::{TestNamespace, digits, operator, runs, with_temp_ns};
use vlft_crds::VLFineTune;
use vlft_crds::contract::env;
use vlft_crds::parallelism::Strategy;
use vlft_crds::status::{FailureClass, VLFineTuneStatus, condition};

const STEPS: i64 = 40;
const CHECKPOINT_EVERY: i64 = 8;
const END: Duration = Duration::from_secs(240);

#[tokio::test]
async fn a_killed_trainer_ends_with_the_same_weights() -> Result<()> {
    with_temp_ns("resume", async |ns| {
        killed_ends_like_undisturbed(ns, short, &[]).await.map(drop)
    })
    .await
}

/// Two pods with two processes each that hold slices only: the last of the four is killed.
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
    let step = runs::first_checkpoint(ns, "killed", END).await?;
    ensure!(step < STEPS, "the run had ended before it could be killed");
    runs::kill(&ns.name, "killed", victim)?;
    let undisturbed = runs::succeeded(ns, "undisturbed", END).await?;
    let killed = runs::succeeded(ns, "killed", END).await?;
    check_history(&killed, step)?;
    let attempts = &undisturbed.attempts;
    ensure!(attempts.len() == 1, "{attempts:?}");
    let expected = runs::weights_digest(ns, "undisturbed", &undisturbed).await?;
    let digest = runs::weights_digest(ns, "killed", &killed).await?;
    ensure!(
        digest == expected,
        "weights differ: {digest} and {expected}"
    );
    Ok(killed)
}

fn two_by_two(finetune: &mut VLFineTune) {
    short(finetune);
    finetune.spec.parallelism.strategy = Strategy::Zero3;
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
