//! The operator's roles hold what it does and nothing else: what the API server's audit log has
//! of it is compared with the chart's rules. The log goes back to the start of the cluster, so
//! that this is most telling after all other tests; here every right is used at least once.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::audit::{granted_by, used_by};
use integration::operator::{NAMESPACE, RELEASE, ensure_operator};
use integration::{
    BUSYBOX, TestNamespace, chart, digits, restricted_container, restricted_pod_spec, wait_for,
    with_temp_ns,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};
use vlft_crds::VLFineTune;
use vlft_crds::status::Phase;
use vlft_crds::workers::{Device, Gpu, NetworkPolicyMode};

/// Of a node that is really lost: the tests that cut a node's network use these.
const LOST_NODE: [&str; 2] = ["delete pods", "get nodes"];

#[tokio::test]
async fn every_right_is_used_and_none_is_missing() -> Result<()> {
    with_temp_ns("roles", async |ns| {
        ensure_operator(&ns.client).await?;
        names_that_are_taken(ns).await?;
        a_run_that_is_cleaned_up(ns).await?;
        children_that_expire(ns).await?;
        a_model_that_no_gpu_holds(ns).await?;
        compare()
    })
    .await
}

fn compare() -> Result<()> {
    let user = format!("system:serviceaccount:{NAMESPACE}:{RELEASE}");
    let used = used_by(&user)?;
    ensure!(used.denied.is_empty(), "the roles lack: {:?}", used.denied);
    let granted = granted()?;
    let beyond: Vec<_> = used.allowed.difference(&granted).collect();
    ensure!(
        beyond.is_empty(),
        "allowed by another role than the chart's: {beyond:?}"
    );
    let idle = granted
        .difference(&used.allowed)
        .filter(|right| !LOST_NODE.contains(&right.as_str()));
    let idle: Vec<_> = idle.collect();
    ensure!(
        idle.is_empty(),
        "the roles hold what the operator does not use: {idle:?}"
    );
    Ok(())
}

/// The rules that are bound to the operator.
fn granted() -> Result<BTreeSet<String>> {
    let documents = chart::template(&[])?;
    let bound = |role: &&Value| {
        let name = role["metadata"]["name"].as_str().unwrap_or_default();
        role["rules"].is_array() && !name.ends_with("-edit") && !name.ends_with("-view")
    };
    Ok(documents
        .iter()
        .filter(bound)
        .flat_map(granted_by)
        .collect())
}

/// Children's names that are taken by objects of others: the operator looks whose they are.
async fn names_that_are_taken(ns: &TestNamespace) -> Result<()> {
    ns.create::<ConfigMap>(json!({"metadata": {"name": "config-map-1"}}))
        .await?;
    let spec = json!({"selector": {"app": "other"}, "ports": [{"name": "rendezvous", "port": 29500, "targetPort": 1}]});
    ns.create::<Service>(json!({"metadata": {"name": "service-workers"}, "spec": spec}))
        .await?;
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    ns.create::<NetworkPolicy>(json!({"metadata": {"name": "policy-workers"}, "spec": spec}))
        .await?;
    let pod = restricted_pod_spec(restricted_container(BUSYBOX, &["true"]));
    ns.create::<Job>(json!({"metadata": {"name": "job-1"}, "spec": {"template": {"spec": pod}}}))
        .await?;
    for name in ["config-map", "service", "policy", "job"] {
        digits::start(ns, name, |_| {}).await?;
        has_reason(ns, name, "NameTaken").await?;
    }
    Ok(())
}

/// A run that fails at once (no model is there), and of which nothing is to stay.
async fn a_run_that_is_cleaned_up(ns: &TestNamespace) -> Result<()> {
    digits::make_claim(ns).await?;
    digits::start(ns, "cleaned", |finetune| {
        finetune.spec.workers.network_policy = NetworkPolicyMode::Disabled;
        finetune.spec.run_policy.ttl_seconds_after_finished = Some(0);
        finetune.spec.run_policy.delete_after_finished = true;
    })
    .await?;
    wait_for(
        "the resource to be deleted after its end",
        Duration::from_secs(90),
        async || {
            let left = ns.api::<VLFineTune>().get_opt("cleaned").await?;
            Ok(left.is_none().then_some(()))
        },
    )
    .await
}

/// A run that fails at once, whose children go and whose resource stays.
async fn children_that_expire(ns: &TestNamespace) -> Result<()> {
    digits::start(ns, "expired", |finetune| {
        finetune.spec.run_policy.ttl_seconds_after_finished = Some(0);
    })
    .await?;
    wait_for(
        "the children to expire",
        Duration::from_secs(90),
        async || {
            let status = ns.api::<VLFineTune>().get("expired").await?.status;
            let ended = status.is_some_and(|status| status.phase == Phase::Failed);
            let service = ns.api::<Service>().get_opt("expired-workers").await?;
            Ok((ended && service.is_none()).then_some(()))
        },
    )
    .await
}

/// A published model on GPUs: the operator looks for their memory, and finds none labelled.
async fn a_model_that_no_gpu_holds(ns: &TestNamespace) -> Result<()> {
    digits::start(ns, "published", |finetune| {
        finetune.spec.model.base_model = Some("Qwen/Qwen2-VL-7B-Instruct".to_owned());
        finetune.spec.workers.device = Device::Gpu;
        finetune.spec.workers.gpu = Some(Gpu {
            resource_name: "vlft.dev/none".to_owned(),
            ..Gpu::default()
        });
    })
    .await?;
    has_reason(ns, "published", "Unschedulable").await
}

async fn has_reason(ns: &TestNamespace, name: &str, reason: &str) -> Result<()> {
    wait_for(
        &format!("reason {reason} of {name}"),
        Duration::from_secs(60),
        async || {
            let status = ns
                .api::<VLFineTune>()
                .get(name)
                .await?
                .status
                .context("no status yet")?;
            Ok((status.reason.as_deref() == Some(reason)).then_some(()))
        },
    )
    .await
}
