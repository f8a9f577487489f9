use crate::wait_for;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use std::time::Duration;

/// Names of the nodes that take pods (a control plane that is tainted does not).
pub async fn worker_nodes(client: &Client) -> Result<Vec<String>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let all = nodes
        .list(&ListParams::default())
        .await
        .context("cannot list nodes")?;
    let taken = |node: &Node| {
        let taints = node
            .spec
            .clone()
            .unwrap_or_default()
            .taints
            .unwrap_or_default();
        taints
            .iter()
            .any(|taint| taint.key == "node-role.kubernetes.io/control-plane")
    };
    let mut names: Vec<_> = all
        .iter()
        .filter(|node| !taken(node))
        .map(|node| node.name_any())
        .collect();
    names.sort();
    Ok(names)
}

/// Makes a node say that it has `count` of an extended resource such as `nvidia.com/gpu`, as a
/// device plugin would; 0 takes it away. Returns when the scheduler can see it.
pub async fn advertise(client: &Client, node: &str, resource: &str, count: u32) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let value = if count == 0 {
        Value::Null
    } else {
        json!(count.to_string())
    };
    let patch = json!({ "status": { "capacity": { resource: value }, "allocatable": { resource: value } } });
    nodes
        .patch_status(node, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .with_context(|| format!("cannot advertise {resource} on {node}"))?;
    wait_for(
        &format!("{count} {resource} on {node}"),
        Duration::from_secs(20),
        async || {
            let status = nodes.get(node).await?.status.unwrap_or_default();
            let seen = status
                .allocatable
                .unwrap_or_default()
                .get(resource)
                .map(|q| q.0.clone());
            let seen = seen.unwrap_or_else(|| "0".into());
            ensure!(seen == count.to_string(), "{seen} are allocatable");
            Ok(Some(()))
        },
    )
    .await
}

/// Sets a label of a node, or takes it away.
pub async fn label(client: &Client, node: &str, key: &str, value: Option<&str>) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = json!({ "metadata": { "labels": { key: value } } });
    let patched = nodes
        .patch(node, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    patched
        .map(|_| ())
        .with_context(|| format!("cannot label {node}"))
}

/// Keeps new pods off a node, or lets them back on.
pub async fn cordon(client: &Client, node: &str, unschedulable: bool) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = json!({ "spec": { "unschedulable": unschedulable } });
    let patched = nodes
        .patch(node, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    patched
        .map(|_| ())
        .with_context(|| format!("cannot cordon {node}"))
}

/// Asks for a pod's eviction, as `kubectl drain` does for each pod of a node.
pub async fn evict(client: &Client, namespace: &str, pod: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let evicted = pods.evict(pod, &EvictParams::default()).await;
    evicted
        .map(|_| ())
        .with_context(|| format!("cannot evict pod {pod}"))
}

/// Waits until a node is Ready (again).
pub async fn wait_node_ready(client: &Client, node: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    wait_for(
        &format!("{node} to be ready"),
        Duration::from_secs(90),
        async || {
            let status = nodes.get(node).await?.status.unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            let ready = conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True");
            Ok(ready.then_some(()))
        },
    )
    .await
}
