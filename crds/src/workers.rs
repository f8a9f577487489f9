//! `spec.workers`: the pods of an attempt.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The pods of an attempt; all are alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.device == 'GPU' || !has(self.gpu)")
        .message("gpu is for device: GPU only; remove it or set device: GPU"),
    validation = Rule::new(
        "self.device == 'CPU' || !has(self.gpu) || !has(self.processesPerReplica) || self.processesPerReplica == self.gpu.count")
        .message("processesPerReplica must equal gpu.count: one process drives one GPU"),
    validation = Rule::new(
        "!has(self.gpu) || !has(self.gpu.product) || !has(self.nodeSelector) || !('nvidia.com/gpu.product' in self.nodeSelector)")
        .message("gpu.product and nodeSelector['nvidia.com/gpu.product'] say the same; remove one"),
)]
pub struct Workers {
    /// Pods of an attempt.
    #[serde(default = "default_one")]
    #[schemars(range(min = 1, max = 4096))]
    pub replicas: i64,
    /// Trainer processes in each pod; absent means one for each GPU, or one without GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub processes_per_replica: Option<i64>,
    /// Whether the trainer computes on GPUs. A trainer that was promised GPUs and finds none
    /// stops with an error.
    #[serde(default)]
    pub device: Device,
    /// The GPUs of one pod; absent with `device: GPU` means one `nvidia.com/gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// CPU, memory and other resources of one pod; GPUs are counted in `gpu` alone.
    #[serde(default)]
    pub resources: Resources,
    /// Trainer image; absent means the one the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets with registry credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    pub image_pull_secrets: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    #[serde(default)]
    pub pod_overrides: PodOverrides,
    /// Whether only the pods of this run may reach each other's rendezvous ports.
    #[serde(default)]
    pub network_policy: NetworkPolicyMode,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            replicas: default_one(),
            processes_per_replica: None,
            device: Device::default(),
            gpu: None,
            resources: Resources::default(),
            image: None,
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            pod_overrides: PodOverrides::default(),
            network_policy: NetworkPolicyMode::default(),
        }
    }
}

impl Workers {
    /// GPUs of one pod: 0 on CPU.
    pub fn gpus_per_replica(&self) -> i64 {
        match (self.device, &self.gpu) {
            (Device::Cpu, _) => 0,
            (Device::Gpu, Some(gpu)) => gpu.count,
            (Device::Gpu, None) => 1,
        }
    }

    /// Trainer processes of one pod.
    pub fn processes(&self) -> i64 {
        self.processes_per_replica
            .unwrap_or_else(|| self.gpus_per_replica().max(1))
    }

    /// Ranks of an attempt.
    pub fn world_size(&self) -> i64 {
        self.replicas * self.processes()
    }
}

/// What the trainer computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum Device {
    #[default]
    #[serde(rename = "GPU")]
    Gpu,
    #[serde(rename = "CPU")]
    Cpu,
}

/// The GPUs of one pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// Extended resource that counts them, for example `nvidia.com/gpu` or a MIG profile.
    #[serde(default = "default_gpu_resource")]
    #[schemars(length(min = 3, max = 253))]
    pub resource_name: String,
    /// GPUs of one pod.
    #[serde(default = "default_one")]
    #[schemars(range(min = 1, max = 64))]
    pub count: i64,
    /// `nvidia.com/gpu.product` the node must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub product: Option<String>,
    /// Memory of one GPU, which the run's estimate is compared with; absent means: from the
    /// labels of the nodes (`nvidia.com/gpu.memory`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

impl Default for Gpu {
    fn default() -> Self {
        Self {
            resource_name: default_gpu_resource(),
            count: default_one(),
            product: None,
            memory: None,
        }
    }
}

/// Requests and limits of one pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.requests) || !self.requests.exists(r, r.contains('/'))")
        .message("resources takes cpu, memory and ephemeral-storage; GPUs are counted in workers.gpu"),
    validation = Rule::new("!has(self.limits) || !self.limits.exists(r, r.contains('/'))")
        .message("resources takes cpu, memory and ephemeral-storage; GPUs are counted in workers.gpu"),
)]
pub struct Resources {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub requests: BTreeMap<String, Quantity>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub limits: BTreeMap<String, Quantity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// The narrow part of a pod that may be changed. Host paths, host namespaces and privilege
/// are out of reach on purpose.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodOverrides {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
    /// Variables of the trainer container; names that begin with `VLFT_` are reserved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub scheduler_name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// ResourceClaimTemplates (dynamic resource allocation) of each pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    pub resource_claim_templates: Vec<String>,
    /// Size limit of `/dev/shm`; absent means the pod's memory limit bounds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Quantity>,
    /// Seconds a trainer has for its checkpoint after SIGTERM; absent means 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub termination_grace_period_seconds: Option<i64>,
    /// User and group of the trainer process; absent means 65532. Never 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_294_i64))]
    pub run_as_user: Option<i64>,
    /// Group that owns the volumes; absent means 65532.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4_294_967_294_i64))]
    pub fs_group: Option<i64>,
}

/// Whether a NetworkPolicy is made for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum NetworkPolicyMode {
    #[default]
    Enabled,
    Disabled,
}

fn default_one() -> i64 {
    1
}

fn default_gpu_resource() -> String {
    "nvidia.com/gpu".to_owned()
}
