//! Two replicas of the operator: one leads, the other stands by.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use integration::operator::{NAMESPACE, RELEASE, ensure_operator};
use integration::{TestNamespace, wait_for, with_temp_ns_exclusive};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use vlft_crds::status::Phase;

use crate::stand_in::{LONG, Run, spec};

/// Less than the lease's 15 s: a leader that only vanished would be waited for longer.
const HANDED_OVER: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_leader_that_is_told_to_stop_hands_over_at_once() -> Result<()> {
    with_temp_ns_exclusive("op-leader", async |ns| {
        ensure_operator(&ns.client).await?;
        both_are_ready(ns).await?;
        let first = holder(ns).await?;
        let operators: Api<Pod> = Api::namespaced(ns.client.clone(), NAMESPACE);
        let began = Instant::now();
        operators.delete(&first, &DeleteParams::default()).await?;
        wait_for("another leader", LONG, async || {
            let now = holder(ns).await?;
            Ok((!now.is_empty() && now != first).then_some(()))
        })
        .await?;
        let took = began.elapsed();
        ensure!(took < HANDED_OVER, "handing over took {took:?}");
        let run = Run::create(ns, "after", spec(&[("STAND_IN_STEPS", "3")], json!({}))).await?;
        run.wait_phase(Phase::Succeeded).await?;
        both_are_ready(ns).await
    })
    .await
}

async fn both_are_ready(ns: &TestNamespace) -> Result<()> {
    let operators: Api<Pod> = Api::namespaced(ns.client.clone(), NAMESPACE);
    wait_for("two replicas that are ready", LONG, async || {
        let pods = operators.list(&ListParams::default()).await?.items;
        let ready = |pod: &&Pod| {
            let status = pod.status.as_ref();
            let mut conditions = status
                .and_then(|status| status.conditions.as_ref())
                .into_iter()
                .flatten();
            pod.metadata.deletion_timestamp.is_none()
                && conditions.any(|c| c.type_ == "Ready" && c.status == "True")
        };
        let names: Vec<String> = pods
            .iter()
            .filter(ready)
            .map(ResourceExt::name_any)
            .collect();
        // A name that holds the lease is one of them: a dead leader's lease has run out.
        Ok((names.len() == 2 && names.contains(&holder(ns).await?)).then_some(()))
    })
    .await
}

/// The replica that holds the lease; empty while nobody does.
async fn holder(ns: &TestNamespace) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(ns.client.clone(), NAMESPACE);
    let spec = leases.get(RELEASE).await?.spec.unwrap_or_default();
    Ok(spec.holder_identity.unwrap_or_default())
}
