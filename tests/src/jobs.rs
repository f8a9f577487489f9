//! One-off Jobs that run the trainer image: filling the volume, measuring accuracy.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// A claim and where it is mounted.
pub struct Mount {
    pub claim: String,
    pub path: &'static str,
}

/// Runs `command` in the trainer image to its end, in one namespace, and gives its standard
/// output.
pub async fn run(
    client: &Client,
    namespace: &str,
    name: &str,
    image: &str,
    command: &[String],
    mounts: &[Mount],
) -> Result<String> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let job: Job = serde_json::from_value(manifest(name, image, command, mounts))?;
    jobs.create(&PostParams::default(), &job)
        .await
        .with_context(|| format!("cannot create Job {name}"))?;
    let succeeded = wait_for_end(&jobs, name).await?;
    let logs = logs(client, namespace, name).await?;
    ensure!(succeeded, "Job {name} failed; its log:\n{logs}");
    jobs.delete(name, &DeleteParams::background()).await?;
    Ok(logs)
}

fn manifest(name: &str, image: &str, command: &[String], mounts: &[Mount]) -> Value {
    let volumes: Vec<Value> = mounts
        .iter()
        .map(|mount| {
            json!({"name": mount.claim, "persistentVolumeClaim": {"claimName": mount.claim}})
        })
        .chain([json!({"name": "tmp", "emptyDir": {}})])
        .collect();
    let volume_mounts: Vec<Value> = mounts
        .iter()
        .map(|mount| json!({"name": mount.claim, "mountPath": mount.path}))
        .chain([json!({"name": "tmp", "mountPath": "/tmp"})])
        .collect();
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 300,
            "template": {"spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                    "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "trainer", "image": image, "imagePullPolicy": "IfNotPresent",
                    "command": command, "volumeMounts": volume_mounts,
                    "env": [{"name": "OMP_NUM_THREADS", "value": "2"}],
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }],
                "volumes": volumes,
            }},
        },
    })
}

async fn wait_for_end(jobs: &Api<Job>, name: &str) -> Result<bool> {
    for _ in 0..600 {
        let status = jobs.get_status(name).await?.status.unwrap_or_default();
        for condition in status.conditions.unwrap_or_default() {
            match (condition.type_.as_str(), condition.status.as_str()) {
                ("Complete", "True") => return Ok(true),
                ("Failed", "True") => return Ok(false),
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    bail!("Job {name} did not end within 300 s; see `kubectl describe job {name}`")
}

async fn logs(client: &Client, namespace: &str, job: &str) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selector = ListParams::default().labels(&format!("job-name={job}"));
    let pod = pods.list(&selector).await?.items.into_iter().next();
    let name = pod
        .and_then(|pod| pod.metadata.name)
        .with_context(|| format!("Job {job} left no pod"))?;
    Ok(pods.logs(&name, &LogParams::default()).await?)
}
