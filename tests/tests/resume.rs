//! A trainer that is killed in the middle ends with the very weights of one that is not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::{TestNamespace, digits, operator, runs, with_temp_ns};
use vlft_crds::VLFineTune;
use vlft_crds::status::{FailureClass, VLFineTuneStatus, condition};

const STEPS: i64 = 40;
const CHECKPOINT_EVERY: i64 = 8;
const END: Duration = Duration::from_secs(240);

#[tokio::test]
async fn a_killed_trainer_ends_with_the_same_weights() -> Result<()> {
    with_temp_ns("resume", async |ns| killed_ends_like_undisturbed(ns).await).await
}

/// Runs two VLFineTunes, kills the trainer of one; both must end with the same weights.
async fn killed_ends_like_undisturbed(ns: &TestNamespace) -> Result<()> {
    operator::ensure_operator(&ns.client).await?;
    digits::fill_volume(ns).await?;
    for name in ["undisturbed", "killed"] {
        digits::start(ns, name, short).await?;
    }
    let step = runs::first_checkpoint(ns, "killed", END).await?;
    ensure!(step < STEPS, "the run had ended before it could be killed");
    runs::kill(&ns.name, "killed", &[])?;
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
    Ok(())
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
