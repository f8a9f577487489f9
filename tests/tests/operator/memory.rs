//! Memory on the cluster: a run that no GPU holds books none, one at risk runs, and one that is
//! really killed for memory goes on with half the micro-batch.

use anyhow::{Context, Result, ensure};
use integration::{label, with_temp_ns, with_temp_ns_exclusive, worker_nodes};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use serde_json::{Value, json};
use vlft_crds::status::{FailureClass, Phase};
use vlft_crds::{VLFineTune, load};

use crate::stand_in::{Run, attempt, condition, spec};

/// The spec that an attempt was given.
async fn document(run: &Run<'_>, attempt: i64) -> Result<VLFineTune> {
    let name = format!("{}-{attempt}", run.name);
    let config = run.ns.api::<ConfigMap>().get(&name).await?;
    let mut data = config.data.context("an empty ConfigMap")?;
    let document = data.remove("finetune.yaml").context("no document")?;
    Ok(load::load_str(&document)?)
}

#[tokio::test]
async fn a_kill_for_memory_halves_the_micro_batch() -> Result<()> {
    with_temp_ns("op-ladder", async |ns| {
        // Killed by the kernel twice, at steps beyond the first checkpoint.
        let env = [
            ("STAND_IN_FAIL", "1:6:memory 2:8:memory"),
            ("STAND_IN_STEPS", "60"),
        ];
        let extra = json!({
            "workers": { "resources": { "limits": { "memory": "32Mi" } } },
            "training": { "globalBatchSize": 8 },
            "runPolicy": { "oomPolicy": "Adapt", "backoffLimit": 0 },
        });
        let run = Run::create(ns, "ladder", spec(&env, extra)).await?;
        let third = |status: &vlft_crds::VLFineTuneStatus| {
            status.attempt == 3 && status.phase == Phase::Running
        };
        let status = run.wait("the third attempt to run", third).await?;
        let training = document(&run, 3).await?.spec.training;
        ensure!(training.micro_batch_size == Some(2), "{training:?}");
        ensure!(training.global_batch_size == 8, "{training:?}");
        let steps: Vec<_> = status
            .adjustments
            .iter()
            .map(|a| (a.attempt, a.field.as_str(), a.from.as_str(), a.to.as_str()))
            .collect();
        let field = "training.microBatchSize";
        ensure!(
            steps == [(2, field, "8", "4"), (3, field, "4", "2")],
            "{steps:?}"
        );
        ensure!(
            status
                .adjustments
                .iter()
                .all(|a| a.reason.contains("memory limit")),
            "{:?}",
            status.adjustments
        );
        let note = run.wait_event("Adjusted").await?;
        ensure!(note.contains(field), "{note}");
        let status = run.wait_phase(Phase::Succeeded).await?;
        let verdict = attempt(&status, 1)?.verdict.clone().context("no verdict")?;
        ensure!(verdict.class == FailureClass::OutOfMemory, "{verdict:?}");
        ensure!(
            status.failures == 0 && status.ended["OutOfMemory"] == 2,
            "{status:?}"
        );
        let resumed = attempt(&status, 2)?.resumed_from.clone();
        ensure!(resumed.is_some_and(|from| from.step == 5), "{status:?}");
        ensure!(attempt(&status, 1)?.lost_steps.is_some(), "{status:?}");
        Ok(())
    })
    .await
}

/// Qwen2-VL 7B on GPUs that no node has.
fn on_gpus(extra: Value) -> Value {
    let mut wanted = json!({
        "model": { "baseModel": "Qwen/Qwen2-VL-7B-Instruct" },
        "workers": { "device": "GPU", "gpu": { "resourceName": "vlft.dev/none", "count": 1 } },
    });
    crate::stand_in::merge(&mut wanted, extra);
    wanted
}

#[tokio::test]
async fn a_run_that_no_gpu_holds_books_none() -> Result<()> {
    with_temp_ns("op-doomed", async |ns| {
        let full = on_gpus(json!({
            "method": { "full": {} },
            "workers": { "gpu": { "memory": "80Gi" } },
        }));
        let run = Run::create(ns, "doomed", spec(&[], full)).await?;
        let status = run.wait_phase(Phase::Rejected).await?;
        ensure!(
            run.jobs().await?.is_empty() && status.attempt == 0,
            "a Job was made"
        );
        let refused = ("False".to_owned(), "MemoryExceedsGPU".to_owned());
        ensure!(condition(&run.get().await?, "Accepted")? == refused);
        let note = run.wait_event("MemoryExceedsGPU").await?;
        for word in ["123.6 GiB", "80.0 GiB", "would take"] {
            ensure!(note.contains(word), "{note}");
        }
        let estimate = status.memory_estimate.context("no estimate")?;
        ensure!(estimate.gpu_bytes == Some(80 << 30), "{estimate:?}");
        // What fits is accepted, with the micro-batch that fits.
        run.patch(json!({ "precision": "BFloat16" })).await?;
        let status = run.wait_phase(Phase::Starting).await?;
        let chosen = attempt(&status, 1)?.micro_batch_size;
        let given = document(&run, 1).await?.spec.training.micro_batch_size;
        ensure!(chosen.is_some() && chosen == given, "{chosen:?} {given:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_run_at_risk_is_told_and_starts() -> Result<()> {
    with_temp_ns("op-risk", async |ns| {
        let large = on_gpus(json!({
            "training": { "globalBatchSize": 256, "microBatchSize": 256 },
            "workers": { "gpu": { "memory": "80Gi" } },
        }));
        let run = Run::create(ns, "risky", spec(&[], large)).await?;
        run.wait_phase(Phase::Starting).await?;
        let at_risk = ("True".to_owned(), "EstimateExceedsGPU".to_owned());
        ensure!(condition(&run.get().await?, "MemoryAtRisk")? == at_risk);
        let note = run.wait_event("MemoryAtRisk").await?;
        ensure!(note.contains("microBatchSize: 1"), "{note}");
        Ok(())
    })
    .await
}

/// As GPU feature discovery labels them.
async fn label_all(client: &Client, mebibytes: Option<&str>) -> Result<()> {
    for node in worker_nodes(client).await? {
        label(client, &node, "nvidia.com/gpu.memory", mebibytes).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_memory_of_gpus_is_read_from_the_nodes() -> Result<()> {
    with_temp_ns_exclusive("op-labels", async |ns| {
        label_all(&ns.client, Some("24576")).await?;
        let outcome = refused_by_label(ns).await;
        label_all(&ns.client, None).await?;
        outcome
    })
    .await
}

async fn refused_by_label(ns: &integration::TestNamespace) -> Result<()> {
    let full = on_gpus(json!({
        "method": { "full": {} },
    }));
    let run = Run::create(ns, "labelled", spec(&[], full)).await?;
    // An answer without labels may be up to half a minute old; an edit makes the operator look.
    let seen = run.wait("a refusal", |s| {
        s.reason.as_deref() == Some("MemoryExceedsGPU")
    });
    let edits = async {
        for seed in 1.. {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            run.patch(json!({ "training": { "seed": seed } })).await?;
        }
        anyhow::Ok(())
    };
    let status = tokio::select! {
        status = seen => status?,
        edited = edits => anyhow::bail!("edits ended: {edited:?}"),
    };
    let estimate = status.memory_estimate.context("no estimate")?;
    ensure!(estimate.gpu_bytes == Some(24_576 << 20), "{estimate:?}");
    Ok(())
}
