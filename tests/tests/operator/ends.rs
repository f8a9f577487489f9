//! Runs that end without a model, each with its reason.

use anyhow::{Context, Result, ensure};
use integration::{wait_for, with_temp_ns};
use k8s_openapi::api::core::v1::Service;
use serde_json::json;
use vlft_crds::status::{FailureClass, Phase};

use crate::stand_in::{LONG, Run, attempt, condition, spec};

#[tokio::test]
async fn broken_data_is_told_and_not_retried() -> Result<()> {
    with_temp_ns("op-data", async |ns| {
        let env = [("STAND_IN_FAIL", "1:2:11")];
        let run = Run::create(ns, "broken", spec(&env, json!({}))).await?;
        let status = run.wait_phase(Phase::Failed).await?;
        ensure!((status.attempt, status.restarts) == (1, 0), "{status:?}");
        let verdict = attempt(&status, 1)?.verdict.clone().context("no verdict")?;
        ensure!(verdict.class == FailureClass::DataError, "{verdict:?}");
        ensure!(
            verdict.message == "metadata.jsonl:7: not a JSON object",
            "{verdict:?}"
        );
        ensure!(
            verdict.rank == Some(0) && verdict.node_name.is_some(),
            "{verdict:?}"
        );
        let finetune = run.get().await?;
        ensure!(condition(&finetune, "Failed")? == ("True".into(), "DataError".into()));
        let note = run.wait_event("DataError").await?;
        ensure!(note.contains("metadata.jsonl:7"), "{note}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_run_that_only_fails_is_given_up() -> Result<()> {
    with_temp_ns("op-limit", async |ns| {
        let env = [("STAND_IN_FAIL", "1:2:16 2:2:101")];
        let policy = json!({ "runPolicy": { "backoffLimit": 1 } });
        let run = Run::create(ns, "doomed", spec(&env, policy)).await?;
        let status = run.wait_phase(Phase::Failed).await?;
        ensure!(
            (status.attempt, status.restarts, status.failures) == (2, 1, 2),
            "{status:?}"
        );
        ensure!(
            status.reason.as_deref() == Some("BackoffLimitExceeded"),
            "{status:?}"
        );
        let classes: Vec<_> = status
            .attempts
            .iter()
            .filter_map(|a| Some(a.verdict.as_ref()?.class))
            .collect();
        ensure!(
            classes == [FailureClass::Storage, FailureClass::Bug],
            "{classes:?}"
        );
        run.wait_event("BackoffLimitExceeded").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_deadline_ends_even_a_trainer_that_does_not_listen() -> Result<()> {
    with_temp_ns("op-deadline", async |ns| {
        let env = [("STAND_IN_STEPS", "10000"), ("STAND_IN_DEAF", "1")];
        let policy = json!({
            "runPolicy": { "activeDeadlineSeconds": 8 },
            "workers": { "podOverrides": { "terminationGracePeriodSeconds": 1 } },
        });
        let run = Run::create(ns, "late", spec(&env, policy)).await?;
        let status = run.wait_phase(Phase::Failed).await?;
        ensure!(
            status.reason.as_deref() == Some("DeadlineExceeded"),
            "{status:?}"
        );
        wait_for("the Job to be gone", LONG, async || {
            Ok(run.jobs().await?.is_empty().then_some(()))
        })
        .await?;
        let status = run.status().await?;
        ensure!(
            (status.attempt, status.phase) == (1, Phase::Failed),
            "{status:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn finished_children_expire_and_are_not_made_again() -> Result<()> {
    with_temp_ns("op-ttl", async |ns| {
        let policy = json!({ "runPolicy": { "ttlSecondsAfterFinished": 1 } });
        let run = Run::create(ns, "brief", spec(&[("STAND_IN_STEPS", "3")], policy)).await?;
        run.wait_phase(Phase::Succeeded).await?;
        wait_for("the children to be gone", LONG, async || {
            let services = ns.api::<Service>().list(&run.children()).await?.items.len();
            Ok((services + run.jobs().await?.len() == 0).then_some(()))
        })
        .await?;
        // An edit wakes the operator; a finished run stays finished.
        run.patch(json!({ "training": { "seed": 7 } })).await?;
        let generation = run.get().await?.metadata.generation;
        run.wait("the edit to be seen", |status| {
            status.observed_generation == generation
        })
        .await?;
        ensure!(
            run.jobs().await?.is_empty(),
            "a finished run was started again"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_kill_for_memory_is_told_with_the_remedy() -> Result<()> {
    with_temp_ns("op-memory", async |ns| {
        let env = [("STAND_IN_FAIL", "1:6:memory")];
        let extra = json!({
            "workers": { "resources": { "limits": { "memory": "32Mi" } } },
        });
        let run = Run::create(ns, "hungry", spec(&env, extra)).await?;
        let status = run.wait_phase(Phase::Succeeded).await?;
        let verdict = attempt(&status, 1)?.verdict.clone().context("no verdict")?;
        ensure!(verdict.class == FailureClass::OutOfMemory, "{verdict:?}");
        ensure!(verdict.exit_code == Some(137), "{verdict:?}");
        ensure!(
            verdict.message.contains("workers.resources.limits.memory"),
            "{verdict:?}"
        );
        let resumed = attempt(&status, 2)?
            .resumed_from
            .clone()
            .context("not resumed")?;
        ensure!(resumed.step == 5, "{resumed:?}");
        Ok(())
    })
    .await
}
