//! What a cluster does to runs: evictions, and nodes that fall silent.

use anyhow::{Context, Result, ensure};
use integration::operator::{self, ensure_operator};
use integration::{
    cluster_command, cordon, evict, wait_node_ready, with_temp_ns, with_temp_ns_exclusive,
    worker_nodes,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use vlft_crds::status::{FailureClass, Phase};

use crate::stand_in::{Run, attempt, spec};

#[tokio::test]
async fn an_eviction_is_free_and_loses_no_step() -> Result<()> {
    with_temp_ns("op-evict", async |ns| {
        let run = Run::create(ns, "evicted", spec(&[("STAND_IN_STEPS", "60")], json!({}))).await?;
        run.wait_step(7).await?;
        let pods = ns.api::<Pod>().list(&run.children()).await?;
        evict(
            &ns.client,
            &ns.name,
            &pods.items.first().context("no pod")?.name_any(),
        )
        .await?;
        let status = run.wait_phase(Phase::Succeeded).await?;
        ensure!(
            (status.attempt, status.restarts, status.failures) == (2, 1, 0),
            "{status:?}"
        );
        let verdict = attempt(&status, 1)?.verdict.clone().context("no verdict")?;
        ensure!(verdict.class == FailureClass::Evicted, "{verdict:?}");
        ensure!(
            verdict.message.contains("checkpoint at step"),
            "{verdict:?}"
        );
        let resumed = attempt(&status, 2)?
            .resumed_from
            .clone()
            .context("not resumed")?;
        ensure!(resumed.step >= 7, "{resumed:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_silent_node_is_given_up_and_the_run_goes_on_elsewhere() -> Result<()> {
    with_temp_ns_exclusive("op-node", async |ns| {
        ensure_operator(&ns.client).await?;
        let home = operator::node(&ns.client).await?;
        let nodes = worker_nodes(&ns.client).await?;
        let other = nodes
            .iter()
            .find(|node| **node != home)
            .context("one node only")?;
        // The first attempt goes where the operator is not.
        cordon(&ns.client, &home, true).await?;
        let policy = json!({ "runPolicy": { "nodeLostTimeoutSeconds": 5 } });
        let run = Run::create(ns, "cut", spec(&[("STAND_IN_STEPS", "100")], policy)).await;
        let started = match &run {
            Ok(run) => run.wait_step(3).await.map(drop),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        cordon(&ns.client, &home, false).await?;
        started?;
        cluster_command(&["cut", other]).await?;
        let outcome = goes_on(&run?, other).await;
        cluster_command(&["mend", other]).await?;
        wait_node_ready(&ns.client, other).await?;
        outcome
    })
    .await
}

async fn goes_on(run: &Run<'_>, lost: &str) -> Result<()> {
    let status = run.wait_phase(Phase::Succeeded).await?;
    ensure!((status.attempt, status.failures) == (2, 0), "{status:?}");
    let verdict = attempt(&status, 1)?.verdict.clone().context("no verdict")?;
    ensure!(verdict.class == FailureClass::NodeLost, "{verdict:?}");
    ensure!(verdict.node_name.as_deref() == Some(lost), "{verdict:?}");
    let second = attempt(&status, 2)?.verdict.clone().context("no verdict")?;
    ensure!(second.node_name.as_deref() != Some(lost), "{second:?}");
    Ok(())
}
