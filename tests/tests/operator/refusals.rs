//! What the operator refuses to act on, and how it says so.

use anyhow::{Result, ensure};
use integration::operator::ensure_operator;
use integration::with_temp_ns;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use vlft_crds::status::{Phase, VLFineTuneStatus};

use crate::stand_in::{Run, condition, spec};

#[tokio::test]
async fn unsupported_specs_start_nothing_until_they_are_corrected() -> Result<()> {
    with_temp_ns("op-refused", async |ns| {
        let wrong = json!({ "model": { "uri": "hf://Qwen/Qwen2-VL-7B-Instruct" } });
        let run = Run::create(ns, "wrong", spec(&[("STAND_IN_STEPS", "3")], wrong)).await?;
        let status = run.wait_phase(Phase::Rejected).await?;
        ensure!(status.attempt == 0, "{status:?}");
        let finetune = run.get().await?;
        ensure!(condition(&finetune, "Accepted")? == ("False".into(), "NotSupported".into()));
        let note = run.wait_event("NotSupported").await?;
        ensure!(
            note.contains("spec.model.uri") && note.contains("pvc://CLAIM/PATH"),
            "{note}"
        );
        ensure!(run.jobs().await?.is_empty(), "a Job was made");
        let claims = ns
            .api::<PersistentVolumeClaim>()
            .list(&ListParams::default())
            .await?;
        ensure!(claims.items.is_empty(), "a claim was made");
        run.patch(json!({ "model": { "uri": "file:///models/none" } }))
            .await?;
        run.wait_phase(Phase::Succeeded).await?;
        ensure!(condition(&run.get().await?, "Accepted")?.0 == "True");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_foreign_job_of_the_same_name_is_left_alone() -> Result<()> {
    with_temp_ns("op-taken", async |ns| {
        ensure_operator(&ns.client).await?;
        let template = integration::restricted_pod_spec(integration::restricted_container(
            integration::BUSYBOX,
            &["true"],
        ));
        let foreign: Job = ns
            .create(json!({
                "metadata": { "name": "taken-1" },
                "spec": { "suspend": true, "template": { "spec": template } },
            }))
            .await?;
        let run = Run::create(ns, "taken", spec(&[("STAND_IN_STEPS", "3")], json!({}))).await?;
        let note = run.wait_event("NameTaken").await?;
        ensure!(note.contains("taken-1"), "{note}");
        ensure!(condition(&run.get().await?, "ReadyToStart")?.1 == "NameTaken");
        let jobs = ns.api::<Job>();
        let now = jobs.get("taken-1").await?;
        ensure!(
            now.metadata.uid == foreign.metadata.uid,
            "the foreign Job was replaced"
        );
        jobs.delete("taken-1", &DeleteParams::background()).await?;
        run.wait_phase(Phase::Succeeded).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn pods_that_cannot_start_say_what_they_wait_for() -> Result<()> {
    with_temp_ns("op-waits", async |ns| {
        let missing = json!({ "workers": { "image": "localhost/vlft/none:1" } });
        let image = Run::create(ns, "image", spec(&[], missing)).await?;
        let gpus = json!({ "workers": {
            "device": "GPU", "gpu": { "resourceName": "vlft.dev/none", "count": 1 } } });
        let gpu = Run::create(ns, "gpu", spec(&[], gpus)).await?;
        for (run, reason, word) in [
            (&image, "StartupFailing", "localhost/vlft/none:1"),
            (&gpu, "Unschedulable", "vlft.dev/none"),
        ] {
            let waits = |status: &VLFineTuneStatus| status.reason.as_deref() == Some(reason);
            let status = run.wait(reason, waits).await?;
            ensure!(status.phase == Phase::Starting, "{status:?}");
            let finetune = run.get().await?;
            let running = status.conditions.iter().find(|c| c.type_ == "Running");
            let message = running
                .map(|running| running.message.as_str())
                .unwrap_or_default();
            ensure!(message.contains(word), "{message}");
            ensure!(condition(&finetune, "Running")?.0 == "False");
        }
        ensure!(gpu.status().await?.gpus == 1, "the GPU is not counted");
        Ok(())
    })
    .await
}
