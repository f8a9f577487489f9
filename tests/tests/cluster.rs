//! What the cluster promises to every other test. Holds on any cluster with two workers, the
//! GenericWorkload gate and a default storage class.

use anyhow::{Context, Result, ensure};
use integration::*;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const GPU: &str = "nvidia.com/gpu";

/// Each pod serves a file from the shared volume and reads its own name back through every name
/// it can be reached by: headless service names, and the service's address.
/// (`wget -T` crashes in a static busybox, hence `timeout`.)
const EXCHANGE: &str = "
    set -e
    get() { until timeout 3 wget -q -O - $1 2>/dev/null; do sleep 0.3; done; }
    echo $JOB_COMPLETION_INDEX > /volume/$HOSTNAME
    httpd -p 8080 -h /volume
    for index in 0 1; do get http://exchange-$index.exchange:8080/exchange-$index; done
    get http://web/exchange-1
    id -G
    touch /volume/done-$HOSTNAME
    until [ -e /volume/done-exchange-0 ] && [ -e /volume/done-exchange-1 ]; do sleep 0.2; done";

fn exchange_job() -> Value {
    let mut container = restricted_container(BUSYBOX, &["sh", "-c", EXCHANGE]);
    container["volumeMounts"] = json!([{ "name": "volume", "mountPath": "/volume" }]);
    let mut spec = restricted_pod_spec(container);
    spec["subdomain"] = json!("exchange");
    spec["volumes"] =
        json!([{ "name": "volume", "persistentVolumeClaim": { "claimName": "shared" } }]);
    spec["topologySpreadConstraints"] = json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": { "matchLabels": { "app": "exchange" } },
    }]);
    json!({
        "metadata": { "name": "exchange" },
        "spec": {
            "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimit": 0,
            "template": { "metadata": { "labels": { "app": "exchange" } }, "spec": spec },
        },
    })
}

async fn exchange_services(ns: &TestNamespace) -> Result<()> {
    let selector = json!({ "app": "exchange" });
    ns.create::<Service>(json!({
        "metadata": { "name": "exchange" },
        "spec": { "clusterIP": "None", "publishNotReadyAddresses": true, "selector": selector,
                  "ports": [{ "port": 8080 }] },
    }))
    .await?;
    ns.create::<Service>(json!({
        "metadata": { "name": "web" },
        "spec": { "selector": selector, "ports": [{ "port": 80, "targetPort": 8080 }] },
    }))
    .await?;
    Ok(())
}

async fn job_succeeds(ns: &TestNamespace, name: &str) -> Result<()> {
    let jobs = ns.api::<Job>();
    wait_for(&format!("job {name} to complete"), 2 * MINUTE, async || {
        let status = jobs.get(name).await?.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        Ok(conditions
            .iter()
            .any(|c| c.type_ == "Complete" && c.status == "True")
            .then_some(()))
    })
    .await
}

#[tokio::test]
async fn an_indexed_job_spans_both_nodes_under_restricted_pod_security() -> Result<()> {
    with_temp_ns("exchange", async |ns| {
        exchange_services(ns).await?;
        // No class and no access mode beyond what the operator asks for.
        ns.create::<PersistentVolumeClaim>(json!({
            "metadata": { "name": "shared" },
            "spec": { "accessModes": ["ReadWriteMany"],
                      "resources": { "requests": { "storage": "1Gi" } } },
        }))
        .await?;
        ns.create::<Job>(exchange_job()).await?;
        job_succeeds(ns, "exchange").await?;
        let pods = ns
            .api::<Pod>()
            .list(&ListParams::default().labels("app=exchange"))
            .await?;
        let node = |pod: &Pod| pod.spec.clone().and_then(|spec| spec.node_name);
        let mut nodes: Vec<_> = pods.iter().filter_map(node).collect();
        nodes.sort();
        nodes.dedup();
        ensure!(nodes.len() == 2, "both pods ran on {nodes:?}");
        for pod in &pods {
            let said = logs(ns, &pod.name_any()).await?;
            let lines: Vec<_> = said.lines().collect();
            ensure!(
                lines.starts_with(&["0", "1", "1"]),
                "{} said {said:?}",
                pod.name_any()
            );
            let groups = lines.last().copied().unwrap_or_default();
            ensure!(
                groups.contains("65532"),
                "fsGroup is missing from {groups:?}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn pod_security_refuses_a_pod_that_runs_as_root() -> Result<()> {
    with_temp_ns("refused", async |ns| {
        let mut pod = restricted_pod("root", "id");
        pod["spec"]["securityContext"]["runAsUser"] = json!(0);
        let refused = ns.create::<Pod>(pod).await;
        let error = format!("{:#}", refused.err().context("it was admitted")?);
        ensure!(error.contains("violates PodSecurity"), "{error}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_container_beyond_its_memory_limit_is_killed() -> Result<()> {
    with_temp_ns("oom", async |ns| {
        let mut pod = restricted_pod(
            "greedy",
            "exec dd if=/dev/zero of=/dev/null bs=256M count=1",
        );
        pod["spec"]["containers"][0]["resources"] = json!({ "limits": { "memory": "32Mi" } });
        ns.create::<Pod>(pod).await?;
        let end = finished(ns, "greedy", MINUTE).await?;
        ensure!(
            end.reason.as_deref() == Some("OOMKilled") && end.exit_code == 137,
            "{end:?}"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_drained_node_evicts_its_pods_and_takes_no_new_ones() -> Result<()> {
    with_temp_ns_exclusive("drain", async |ns| {
        let nodes = worker_nodes(&ns.client).await?;
        let drained = nodes.first().context("no nodes")?;
        let script = "trap 'echo terminated; exit 0' TERM; while true; do sleep 0.2; done";
        let mut pod = restricted_pod("victim", script);
        pod["metadata"]["finalizers"] = json!(["vlft.dev/test"]);
        pod["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": drained });
        pod["spec"]["terminationGracePeriodSeconds"] = json!(20);
        ns.create::<Pod>(pod).await?;
        running(ns, "victim").await?;
        cordon(&ns.client, drained, true).await?;
        let outcome = drain(ns, drained).await;
        cordon(&ns.client, drained, false).await?;
        let pods = ns.api::<Pod>();
        let release = json!({ "metadata": { "finalizers": null } });
        pods.patch(
            "victim",
            &Default::default(),
            &kube::api::Patch::Merge(&release),
        )
        .await?;
        outcome
    })
    .await
}

async fn drain(ns: &TestNamespace, drained: &str) -> Result<()> {
    evict(&ns.client, &ns.name, "victim").await?;
    let end = finished(ns, "victim", MINUTE).await?;
    ensure!(
        end.exit_code == 0,
        "it had no time to end by itself: {end:?}"
    );
    let status = ns
        .api::<Pod>()
        .get("victim")
        .await?
        .status
        .unwrap_or_default();
    let reasons: Vec<_> = status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .filter_map(|c| {
            (c.type_ == "DisruptionTarget" && c.status == "True")
                .then_some(c.reason)
                .flatten()
        })
        .collect();
    ensure!(reasons == ["EvictionByEvictionAPI"], "{reasons:?}");
    ns.create::<Pod>(restricted_pod("other", "true")).await?;
    finished(ns, "other", MINUTE).await?;
    let other = ns
        .api::<Pod>()
        .get("other")
        .await?
        .spec
        .unwrap_or_default()
        .node_name;
    ensure!(
        other.as_deref() != Some(drained),
        "a new pod went to the drained node"
    );
    Ok(())
}

async fn running(ns: &TestNamespace, pod: &str) -> Result<()> {
    let pods = ns.api::<Pod>();
    wait_for(&format!("pod {pod} to run"), MINUTE, async || {
        let phase = pods.get(pod).await?.status.unwrap_or_default().phase;
        Ok((phase.as_deref() == Some("Running")).then_some(()))
    })
    .await
}

/// Runs `test` with two GPUs advertised on each node.
async fn with_gpus(name: &str, test: impl AsyncFnOnce(&TestNamespace) -> Result<()>) -> Result<()> {
    with_temp_ns_exclusive(name, async |ns| {
        let nodes = worker_nodes(&ns.client).await?;
        for node in &nodes {
            advertise(&ns.client, node, GPU, 2).await?;
        }
        let outcome = test(ns).await;
        for node in &nodes {
            advertise(&ns.client, node, GPU, 0).await?;
        }
        outcome
    })
    .await
}

fn gpu_pod(name: &str, count: u32, script: &str) -> Value {
    let mut pod = restricted_pod(name, script);
    pod["spec"]["containers"][0]["resources"] = json!({ "limits": { GPU: count } });
    pod
}

#[tokio::test]
async fn an_advertised_gpu_is_booked_and_no_more_than_there_are() -> Result<()> {
    with_gpus("gpus", async |ns| {
        ns.create::<Pod>(gpu_pod("fits", 2, "true")).await?;
        ns.create::<Pod>(gpu_pod("too-large", 3, "true")).await?;
        finished(ns, "fits", MINUTE).await?;
        let pods = ns.api::<Pod>();
        wait_for("the reason of the large one", MINUTE, async || {
            let status = pods.get("too-large").await?.status.unwrap_or_default();
            let said: Vec<_> = status
                .conditions
                .unwrap_or_default()
                .into_iter()
                .filter_map(|c| c.message)
                .collect();
            Ok(said
                .iter()
                .any(|message| message.contains("Insufficient nvidia.com/gpu"))
                .then_some(()))
        })
        .await
    })
    .await
}

/// Three pods of one GPU each that start together or not at all.
async fn create_gang(ns: &TestNamespace, gang: &str) -> Result<()> {
    ns.create::<PodGroup>(json!({
        "metadata": { "name": gang },
        "spec": { "schedulingPolicy": { "gang": { "minCount": 3 } } },
    }))
    .await?;
    for index in 0..3 {
        let mut pod = gpu_pod(&format!("{gang}-{index}"), 1, "sleep 2");
        pod["metadata"]["labels"] = json!({ "gang": gang });
        pod["spec"]["schedulingGroup"] = json!({ "podGroupName": gang });
        ns.create::<Pod>(pod).await?;
    }
    Ok(())
}

/// When the first container of a gang started and the last one ended, in seconds.
async fn span(ns: &TestNamespace, gang: &str) -> Result<(i64, i64)> {
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for index in 0..3 {
        let end = finished(ns, &format!("{gang}-{index}"), 2 * MINUTE).await?;
        ensure!(end.exit_code == 0, "{gang}-{index}: {end:?}");
        let started = end.started_at.context("no start time")?.0;
        let ended = end.finished_at.context("no end time")?.0;
        first = first.min(started.as_second());
        last = last.max(ended.as_second());
    }
    Ok((first, last))
}

#[tokio::test]
async fn two_gangs_that_do_not_both_fit_run_one_after_the_other() -> Result<()> {
    with_gpus("gangs", async |ns| {
        let (one, two) = tokio::join!(create_gang(ns, "one"), create_gang(ns, "two"));
        one.and(two)?;
        let (one, two) = tokio::try_join!(span(ns, "one"), span(ns, "two"))?;
        let apart = one.1 <= two.0 || two.1 <= one.0;
        ensure!(
            apart,
            "6 of 4 GPUs were in use at once: {one:?} and {two:?} overlap"
        );
        Ok(())
    })
    .await
}
