//! The Indexed Job of an attempt: its pods start and fail together.

use k8s_openapi::api::batch::v1::{Job, JobSpec};

use super::{attempt_labels, names, owned_meta, pod};
use crate::controller::validate::ValidatedFineTune;

/// Kueue's label: the LocalQueue that admits the Job.
const QUEUE_NAME: &str = "kueue.x-k8s.io/queue-name";

pub fn build(valid: &ValidatedFineTune, attempt: i64) -> Job {
    let replicas = i32::try_from(valid.spec.workers.replicas).unwrap_or(i32::MAX);
    let queue = valid.spec.scheduling.queue_name.as_ref();
    let mut labels = attempt_labels(valid, attempt);
    labels.extend(queue.map(|queue| (QUEUE_NAME.to_owned(), queue.clone())));
    Job {
        metadata: owned_meta(valid, names::attempt(&valid.name, attempt), labels),
        spec: Some(JobSpec {
            completion_mode: Some("Indexed".to_owned()),
            completions: Some(replicas),
            parallelism: Some(replicas),
            // One failure ends the attempt; retries are new attempts.
            backoff_limit: Some(0),
            // The Job is terminal only when no pod of it runs any more.
            pod_replacement_policy: Some("Failed".to_owned()),
            // A queued Job starts suspended and is released by Kueue.
            suspend: queue.map(|_| true),
            template: pod::build(valid, attempt),
            ..JobSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{as_json, owner_json, validated};

    #[test]
    fn whole_object() {
        assert_eq!(as_json(&build(&validated(), 1)), expected());
    }

    #[test]
    fn queued_jobs_start_suspended() {
        let mut valid = validated();
        valid.spec.scheduling.queue_name = Some("gpus".to_owned());
        let job = as_json(&build(&valid, 1));
        assert_eq!(job["spec"]["suspend"], true);
        assert_eq!(
            job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"],
            "gpus"
        );
    }

    fn labels() -> Value {
        json!({
            "app.kubernetes.io/managed-by": "vlfinetune-operator",
            "vlft.dev/attempt": "1",
            "vlft.dev/finetune": "captions",
            "vlft.dev/finetune-uid": "uid-1",
        })
    }

    fn expected() -> Value {
        let mut pod_labels = labels();
        pod_labels["vlft.dev/role"] = json!("trainer");
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": "captions-1",
                "namespace": "team",
                "labels": labels(),
                "ownerReferences": [owner_json()],
            },
            "spec": {
                "completionMode": "Indexed",
                "completions": 1,
                "parallelism": 1,
                "backoffLimit": 0,
                "podReplacementPolicy": "Failed",
                "template": {
                    "metadata": { "labels": pod_labels },
                    "spec": pod_spec(),
                },
            },
        })
    }

    fn pod_spec() -> Value {
        json!({
            "restartPolicy": "Never",
            "subdomain": "captions-workers",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 300,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "volumes": [
                { "name": "document", "configMap": { "name": "captions-1" } },
                { "name": "shm", "emptyDir": { "medium": "Memory" } },
                { "name": "tmp", "emptyDir": {} },
                { "name": "checkpoints",
                  "persistentVolumeClaim": { "claimName": "captions-checkpoints" } },
                { "name": "input-0", "persistentVolumeClaim": { "claimName": "data" } },
                { "name": "input-1", "persistentVolumeClaim": { "claimName": "models" } },
            ],
            "containers": [container()],
        })
    }

    fn container() -> Value {
        json!({
            "name": "trainer",
            "image": "trainer:test",
            "args": ["launch", "/etc/vlft/finetune.yaml"],
            "env": [
                { "name": "VLFT_NAME", "value": "captions" },
                { "name": "VLFT_NAMESPACE", "value": "team" },
                { "name": "VLFT_UID", "value": "uid-1" },
                { "name": "VLFT_ATTEMPT", "value": "1" },
                { "name": "VLFT_NUM_NODES", "value": "1" },
                { "name": "VLFT_PROCESSES_PER_NODE", "value": "1" },
                { "name": "VLFT_MASTER_ADDR", "value": "captions-1-0.captions-workers" },
                { "name": "VLFT_MASTER_PORT", "value": "29500" },
                { "name": "VLFT_VOLUMES", "value": "/vlft/volumes" },
                { "name": "VLFT_CHECKPOINTS", "value": "/vlft/checkpoints" },
                { "name": "VLFT_CHECKPOINT_CLAIM", "value": "captions-checkpoints" },
                { "name": "VLFT_TERMINATION_LOG", "value": "/dev/termination-log" },
                { "name": "OMP_NUM_THREADS", "valueFrom": { "resourceFieldRef": {
                    "containerName": "trainer", "divisor": "1", "resource": "limits.cpu" } } },
            ],
            "ports": [{ "name": "metrics", "containerPort": 9400 }],
            "resources": { "limits": { "nvidia.com/gpu": "1" } },
            "volumeMounts": [
                { "name": "document", "mountPath": "/etc/vlft", "readOnly": true },
                { "name": "shm", "mountPath": "/dev/shm" },
                { "name": "tmp", "mountPath": "/tmp" },
                { "name": "checkpoints", "mountPath": "/vlft/checkpoints" },
                { "name": "input-0", "mountPath": "/vlft/volumes/data", "readOnly": true },
                { "name": "input-1", "mountPath": "/vlft/volumes/models", "readOnly": true },
            ],
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            },
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "FallbackToLogsOnError",
        })
    }
}
