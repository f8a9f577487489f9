//! Jobs and pods, reduced to the fields that decisions are made from: a watch keeps one of
//! these for each child in memory, and nothing else.

use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, Pod, PodCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use serde::Deserialize;
use vlft_crds::contract::{TRAINER_CONTAINER, TerminationReport, label};

/// Label that the Job controller puts on pods of an Indexed Job.
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// The Job of an attempt.
#[derive(Debug, Clone, Default, Deserialize, kube::Resource)]
#[resource(inherit = Job)]
pub struct AttemptJob {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: AttemptJobSpec,
    #[serde(default)]
    pub status: AttemptJobStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct AttemptJobSpec {
    #[serde(default)]
    pub suspend: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct AttemptJobStatus {
    #[serde(default)]
    pub conditions: Vec<JobCondition>,
}

impl AttemptJob {
    pub fn attempt(&self) -> Option<i64> {
        attempt_of(&self.metadata)
    }

    pub fn is_owned_by(&self, uid: &str) -> bool {
        let owners = self.metadata.owner_references.iter().flatten();
        owners.into_iter().any(|owner| owner.uid == uid)
    }

    pub fn is_complete(&self) -> bool {
        self.condition("Complete").is_some()
    }

    /// The Job's own words about its failure, once no pod of it runs any more.
    pub fn failure(&self) -> Option<&JobCondition> {
        self.condition("Failed")
    }

    pub fn is_terminal(&self) -> bool {
        self.is_complete() || self.failure().is_some()
    }

    pub fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }

    pub fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn condition(&self, kind: &str) -> Option<&JobCondition> {
        let mut conditions = self.status.conditions.iter();
        conditions.find(|condition| condition.type_ == kind && condition.status == "True")
    }
}

/// A pod of an attempt.
#[derive(Debug, Clone, Default, Deserialize, kube::Resource)]
#[resource(inherit = Pod)]
pub struct TrainerPod {
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: TrainerPodSpec,
    #[serde(default)]
    pub status: TrainerPodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrainerPodSpec {
    #[serde(default)]
    pub node_name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrainerPodStatus {
    #[serde(default)]
    pub phase: Option<String>,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default, rename = "podIP")]
    pub pod_ip: Option<String>,
    #[serde(default)]
    pub conditions: Vec<PodCondition>,
    #[serde(default)]
    pub container_statuses: Vec<TrainerContainer>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrainerContainer {
    pub name: String,
    #[serde(default)]
    pub ready: bool,
    #[serde(default)]
    pub state: Option<ContainerState>,
}

impl TrainerPod {
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn attempt(&self) -> Option<i64> {
        attempt_of(&self.metadata)
    }

    pub fn created(&self) -> Option<Timestamp> {
        let created = self.metadata.creation_timestamp.as_ref();
        created.map(|created| created.0)
    }

    pub fn belongs_to(&self, uid: &str) -> bool {
        label_of(&self.metadata, label::FINETUNE_UID) == Some(uid)
    }

    /// Completion index, from 0.
    pub fn index(&self) -> i64 {
        let index = label_of(&self.metadata, COMPLETION_INDEX);
        index.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Whether the trainer process is up, as far as its node last told.
    pub fn is_running(&self) -> bool {
        let state = self.trainer().and_then(|trainer| trainer.state.as_ref());
        self.status.phase.as_deref() == Some("Running")
            && state.is_some_and(|state| state.running.is_some())
    }

    /// Whether no process of it can run any more.
    pub fn is_over(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// Whether the trainer process has ended. The kubelet says so first, and makes the pod's
    /// phase a final one only once it has cleaned up after it.
    pub fn has_ended(&self) -> bool {
        self.is_over() || self.terminated().is_some()
    }

    pub fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// How long it may take to end; without end while nobody has told it to.
    pub fn grace_seconds(&self) -> i64 {
        self.metadata
            .deletion_grace_period_seconds
            .unwrap_or(i64::MAX)
    }

    pub fn terminated(&self) -> Option<&ContainerStateTerminated> {
        self.trainer()?.state.as_ref()?.terminated.as_ref()
    }

    pub fn waiting(&self) -> Option<&ContainerStateWaiting> {
        self.trainer()?.state.as_ref()?.waiting.as_ref()
    }

    pub fn condition(&self, kind: &str) -> Option<&PodCondition> {
        let mut conditions = self.status.conditions.iter();
        conditions.find(|condition| condition.type_ == kind)
    }

    /// The trainer's last words, if it could still write them.
    pub fn report(&self) -> Option<TerminationReport> {
        let message = self.terminated()?.message.as_deref()?;
        serde_json::from_str(message).ok()
    }

    /// Since when the node is silent: the node controller marks a pod unready while the
    /// kubelet's own last word, that the container is ready, stays.
    pub fn node_silent_since(&self) -> Option<&Time> {
        let ready = self.condition("Ready")?;
        let trainer = self.trainer()?;
        if self.is_running() && trainer.ready && ready.status != "True" {
            ready.last_transition_time.as_ref()
        } else {
            None
        }
    }

    fn trainer(&self) -> Option<&TrainerContainer> {
        let mut containers = self.status.container_statuses.iter();
        containers.find(|container| container.name == TRAINER_CONTAINER)
    }
}

/// The VLFineTune that a child belongs to, by its labels: namespace and name.
pub fn owner_key<K: Resource>(child: &K) -> Option<(String, String)> {
    let meta = child.meta();
    let name = label_of(meta, label::FINETUNE)?;
    Some((meta.namespace.clone()?, name.to_owned()))
}

/// Drops what no decision needs, before an object is kept.
pub fn slim(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    meta.annotations = None;
}

fn attempt_of(meta: &ObjectMeta) -> Option<i64> {
    label_of(meta, label::ATTEMPT)?.parse().ok()
}

fn label_of<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_on_a_silent_node_is_told_by_its_two_ready_flags() {
        let mut pod: TrainerPod = serde_json::from_value(json!({
            "metadata": { "name": "p" },
            "status": {
                "phase": "Running",
                "conditions": [{ "type": "Ready", "status": "False",
                    "lastTransitionTime": "2026-01-01T00:00:00Z" }],
                "containerStatuses": [{ "name": "trainer", "ready": true,
                    "state": { "running": {} } }]
            }
        }))
        .unwrap();
        assert!(pod.node_silent_since().is_some());
        pod.status.container_statuses[0].ready = false;
        assert!(pod.node_silent_since().is_none());
    }

    #[test]
    fn a_report_that_is_no_json_is_none() {
        let pod: TrainerPod = serde_json::from_value(json!({
            "metadata": { "name": "p" },
            "status": { "containerStatuses": [{ "name": "trainer",
                "state": { "terminated": { "exitCode": 1, "message": "thread panicked" } } }] }
        }))
        .unwrap();
        assert!(pod.report().is_none());
        assert_eq!(pod.terminated().unwrap().exit_code, 1);
    }
}
