//! Runs that end well, however often they are interrupted.

use anyhow::{Context, Result, ensure};
use integration::operator::NAMESPACE;
use integration::{wait_for, with_temp_ns, with_temp_ns_exclusive};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use vlft_crds::status::{FailureClass, Phase};

use crate::stand_in::{LONG, Run, attempt, condition, spec};

#[tokio::test]
async fn from_apply_to_a_result() -> Result<()> {
    with_temp_ns("op-life", async |ns| {
        let run = Run::create(ns, "digits", spec(&[("STAND_IN_STEPS", "40")], json!({}))).await?;
        let running = run.wait_step(1).await?;
        ensure!(running.phase == Phase::Running, "{:?}", running.phase);
        children_are_right(&run).await?;
        let status = run.wait_phase(Phase::Succeeded).await?;
        let uid = run.get().await?.metadata.uid.context("no uid")?;
        let result = status.result.context("no result")?;
        let folder = format!("pvc://digits-checkpoints/{}/digits/{uid}", ns.name);
        ensure!(result.model_uri == format!("{folder}/model"), "{result:?}");
        ensure!(
            result.final_loss.as_deref() == Some("0.250000"),
            "{result:?}"
        );
        let checkpoint = status.last_checkpoint.context("no checkpoint")?;
        ensure!(
            checkpoint.step == 40 && checkpoint.path.starts_with(&folder),
            "{checkpoint:?}"
        );
        ensure!(
            status
                .progress
                .is_some_and(|progress| progress.percent == "100%")
        );
        ensure!((status.attempt, status.restarts, status.failures) == (1, 0, 0));
        ensure!(status.completion_time >= status.start_time && status.start_time.is_some());
        let finetune = run.get().await?;
        ensure!(condition(&finetune, "Accepted")?.0 == "True");
        ensure!(condition(&finetune, "Complete")? == ("True".into(), "Completed".into()));
        for reason in ["AttemptStarted", "Running", "Completed"] {
            run.wait_event(reason).await?;
        }
        Ok(())
    })
    .await
}

async fn children_are_right(run: &Run<'_>) -> Result<()> {
    let uid = run.get().await?.metadata.uid.context("no uid")?;
    let owned = |owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference]| {
        owners
            .iter()
            .any(|owner| owner.uid == uid && owner.controller == Some(true))
    };
    let job = run.ns.api::<Job>().get("digits-1").await?;
    ensure!(owned(job.owner_references()), "the Job is not owned");
    let config = run.ns.api::<ConfigMap>().get("digits-1").await?;
    ensure!(owned(config.owner_references()) && config.immutable == Some(true));
    let document = config
        .data
        .unwrap_or_default()
        .remove("finetune.yaml")
        .context("no document")?;
    let document = vlft_crds::load::load_str(&document)?;
    ensure!(
        document.metadata.uid.as_deref() == Some(&uid),
        "another document"
    );
    let service = run.ns.api::<Service>().get("digits-workers").await?;
    ensure!(
        owned(service.owner_references()),
        "the Service is not owned"
    );
    let policy = run.ns.api::<NetworkPolicy>().get("digits-workers").await?;
    ensure!(
        owned(policy.owner_references()),
        "the NetworkPolicy is not owned"
    );
    let claim = run
        .ns
        .api::<PersistentVolumeClaim>()
        .get("digits-checkpoints")
        .await?;
    ensure!(
        claim.owner_references().is_empty(),
        "the claim would go with the resource"
    );
    let pods = run.ns.api::<Pod>().list(&run.children()).await?;
    let pod = pods
        .items
        .first()
        .and_then(|pod| pod.spec.as_ref())
        .context("no pod")?;
    let volumes = pod.volumes.iter().flatten();
    ensure!(
        volumes.clone().all(|volume| volume.projected.is_none()),
        "the pod has a token"
    );
    Ok(())
}

#[tokio::test]
async fn a_crash_resumes_from_the_last_checkpoint() -> Result<()> {
    with_temp_ns("op-crash", async |ns| {
        let env = [("STAND_IN_FAIL", "1:12:101")];
        let run = Run::create(ns, "crash", spec(&env, json!({}))).await?;
        let status = run.wait_phase(Phase::Succeeded).await?;
        ensure!(
            (status.attempt, status.restarts, status.failures) == (2, 1, 1),
            "{status:?}"
        );
        let verdict = attempt(&status, 1)?.verdict.clone().context("no verdict")?;
        ensure!(
            verdict.class == FailureClass::Bug && verdict.exit_code == Some(101),
            "{verdict:?}"
        );
        let tail = verdict.log_tail.unwrap_or_default();
        ensure!(tail.contains("dying at step 12"), "log tail: {tail}");
        let resumed = attempt(&status, 2)?
            .resumed_from
            .clone()
            .context("not resumed")?;
        ensure!(resumed.step == 10, "{resumed:?}");
        let finetune = run.get().await?;
        ensure!(condition(&finetune, "ExactResume")? == ("True".into(), "BitForBit".into()));
        run.wait_event("Bug").await?;
        wait_for("the first Job to be pruned", LONG, async || {
            let names: Vec<String> = run
                .jobs()
                .await?
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            Ok((names == ["crash-2"]).then_some(()))
        })
        .await?;
        let left = ns.api::<ConfigMap>().get_opt("crash-1").await?;
        ensure!(left.is_none(), "the first ConfigMap is left");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_deleted_pod_checkpoints_and_its_restart_is_free() -> Result<()> {
    with_temp_ns("op-deleted", async |ns| {
        let env = [("STAND_IN_STEPS", "60")];
        let run = Run::create(ns, "deleted", spec(&env, json!({}))).await?;
        run.wait_step(7).await?;
        let pods = ns.api::<Pod>();
        let pod = pods
            .list(&run.children())
            .await?
            .items
            .first()
            .context("no pod")?
            .name_any();
        pods.delete(&pod, &DeleteParams::default()).await?;
        let status = run.wait_phase(Phase::Succeeded).await?;
        ensure!(
            (status.attempt, status.restarts, status.failures) == (2, 1, 0),
            "{status:?}"
        );
        let verdict = attempt(&status, 1)?.verdict.clone().context("no verdict")?;
        ensure!(verdict.class == FailureClass::Drained, "{verdict:?}");
        let resumed = attempt(&status, 2)?
            .resumed_from
            .clone()
            .context("not resumed")?;
        ensure!(
            resumed.step >= 7,
            "the checkpoint on SIGTERM was not used: {resumed:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn suspending_checkpoints_and_resuming_goes_on() -> Result<()> {
    with_temp_ns("op-suspend", async |ns| {
        let env = [("STAND_IN_STEPS", "60")];
        let run = Run::create(ns, "pause", spec(&env, json!({}))).await?;
        run.wait_step(4).await?;
        run.patch(json!({ "runPolicy": { "suspend": true } }))
            .await?;
        let suspended = run.wait_phase(Phase::Suspended).await?;
        ensure!(run.jobs().await?.is_empty(), "the Job is still there");
        let checkpoint = suspended.last_checkpoint.context("no checkpoint")?;
        ensure!(condition(&run.get().await?, "Suspended")?.0 == "True");
        run.patch(json!({ "runPolicy": { "suspend": false } }))
            .await?;
        let status = run.wait_phase(Phase::Succeeded).await?;
        ensure!(
            (status.attempt, status.restarts, status.failures) == (2, 0, 0),
            "{status:?}"
        );
        let resumed = attempt(&status, 2)?
            .resumed_from
            .clone()
            .context("not resumed")?;
        ensure!(
            resumed.step == checkpoint.step,
            "{resumed:?} after {checkpoint:?}"
        );
        ensure!(
            resumed.digest == checkpoint.digest,
            "{resumed:?} after {checkpoint:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_killed_operator_makes_no_second_job() -> Result<()> {
    // Alone: what a deleted pod leaves behind is seen only by an operator that runs.
    with_temp_ns_exclusive("op-killed", async |ns| {
        let env = [("STAND_IN_STEPS", "60")];
        let run = Run::create(ns, "steady", spec(&env, json!({}))).await?;
        run.wait_step(3).await?;
        let before = run.jobs().await?;
        let operators: Api<Pod> = Api::namespaced(ns.client.clone(), NAMESPACE);
        let now = DeleteParams::default().grace_period(0);
        operators
            .delete_collection(&now, &ListParams::default())
            .await?;
        let status = run.wait_phase(Phase::Succeeded).await?;
        ensure!(
            run.jobs().await? == before,
            "{:?} after {before:?}",
            run.jobs().await?
        );
        ensure!((status.attempt, status.restarts) == (1, 0), "{status:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn deletion_takes_the_children_and_leaves_the_checkpoints() -> Result<()> {
    with_temp_ns("op-delete", async |ns| {
        let env = [("STAND_IN_STEPS", "10000")];
        let run = Run::create(ns, "short", spec(&env, json!({}))).await?;
        run.wait_step(1).await?;
        ns.api::<vlft_crds::VLFineTune>()
            .delete("short", &DeleteParams::default())
            .await?;
        wait_for("the children to be gone", LONG, async || {
            let pods = ns.api::<Pod>().list(&run.children()).await?.items.len();
            let services = ns.api::<Service>().list(&run.children()).await?.items.len();
            Ok((pods + services + run.jobs().await?.len() == 0).then_some(()))
        })
        .await?;
        let claim = ns
            .api::<PersistentVolumeClaim>()
            .get("short-checkpoints")
            .await?;
        ensure!(
            claim.metadata.deletion_timestamp.is_none(),
            "the claim is being deleted"
        );
        Ok(())
    })
    .await
}
