use crate::{TestNamespace, wait_for};
use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use serde_json::{Value, json};
use std::time::Duration;

/// A shell for tests; scripts/cluster-images.sh makes it, `cluster load` brings it to the nodes.
pub const BUSYBOX: &str = "localhost/vlft/busybox:1";

/// A container named `main` that the restricted pod security standard admits.
pub fn restricted_container(image: &str, command: &[&str]) -> Value {
    json!({
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        "command": command,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
    })
}

/// A pod spec with one such container that runs once.
pub fn restricted_pod_spec(container: Value) -> Value {
    json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "fsGroup": 65532,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "containers": [container],
    })
}

/// A pod that runs `script` in the busybox image.
pub fn restricted_pod(name: &str, script: &str) -> Value {
    let container = restricted_container(BUSYBOX, &["sh", "-c", script]);
    json!({ "metadata": { "name": name }, "spec": restricted_pod_spec(container) })
}

/// Waits until the container `main` of a pod has ended, and says how.
pub async fn finished(
    ns: &TestNamespace,
    pod: &str,
    timeout: Duration,
) -> Result<ContainerStateTerminated> {
    let pods = ns.api::<Pod>();
    wait_for(&format!("pod {pod} to end"), timeout, async || {
        let found = pods.get(pod).await?;
        let status = found.status.unwrap_or_default();
        let main = status
            .container_statuses
            .unwrap_or_default()
            .into_iter()
            .find(|c| c.name == "main");
        let Some(state) = main.and_then(|container| container.state) else {
            bail!(
                "no container status: {:?}",
                status.conditions.unwrap_or_default()
            );
        };
        if let Some(waiting) = &state.waiting {
            bail!("waiting: {:?} {:?}", waiting.reason, waiting.message);
        }
        Ok(state.terminated)
    })
    .await
}

/// What a pod printed.
pub async fn logs(ns: &TestNamespace, pod: &str) -> Result<String> {
    let text = ns.api::<Pod>().logs(pod, &Default::default()).await;
    text.with_context(|| format!("no log of pod {pod}"))
}
