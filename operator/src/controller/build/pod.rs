//! Pod template of an attempt: restricted pod security, and nothing a user could widen.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, LocalObjectReference, PodSecurityContext, PodSpec,
    PodTemplateSpec, ResourceRequirements, SeccompProfile, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use vlft_crds::contract::{
    DOCUMENT_PATH, METRICS_PORT, METRICS_PORT_NAME, TERMINATION_LOG_PATH, TRAINER_CONTAINER,
    TRAINER_UID,
};
use vlft_crds::workers::{ImagePullPolicy, Workers};

use super::{environment, names, non_empty, non_empty_map, pod_labels, volumes};
use crate::controller::validate::ValidatedFineTune;

/// Seconds a trainer has for its checkpoint after SIGTERM.
const GRACE_PERIOD_SECONDS: i64 = 300;
/// Label of GPU feature discovery with the product's name.
const GPU_PRODUCT: &str = "nvidia.com/gpu.product";

pub fn build(valid: &ValidatedFineTune, attempt: i64) -> PodTemplateSpec {
    let overrides = &valid.spec.workers.pod_overrides;
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels(valid, attempt)),
            annotations: non_empty_map(overrides.annotations.clone()),
            ..ObjectMeta::default()
        }),
        spec: Some(pod_spec(valid, attempt)),
    }
}

fn pod_spec(valid: &ValidatedFineTune, attempt: i64) -> PodSpec {
    let workers = &valid.spec.workers;
    let overrides = &workers.pod_overrides;
    let secrets = workers.image_pull_secrets.iter();
    let secrets = secrets
        .map(|name| LocalObjectReference { name: name.clone() })
        .collect();
    let grace = overrides
        .termination_grace_period_seconds
        .unwrap_or(GRACE_PERIOD_SECONDS);
    PodSpec {
        restart_policy: Some("Never".to_owned()),
        subdomain: Some(names::workers(&valid.name)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace),
        security_context: Some(pod_security(workers)),
        image_pull_secrets: non_empty(secrets),
        node_selector: non_empty_map(node_selector(workers)),
        tolerations: non_empty(workers.tolerations.clone()),
        topology_spread_constraints: non_empty(overrides.topology_spread_constraints.clone()),
        priority_class_name: valid.spec.scheduling.priority_class_name.clone(),
        service_account_name: overrides.service_account_name.clone(),
        runtime_class_name: overrides.runtime_class_name.clone(),
        scheduler_name: overrides.scheduler_name.clone(),
        volumes: Some(volumes::volumes(valid, attempt)),
        containers: vec![trainer(valid, attempt)],
        ..PodSpec::default()
    }
}

fn trainer(valid: &ValidatedFineTune, attempt: i64) -> Container {
    let workers = &valid.spec.workers;
    Container {
        name: TRAINER_CONTAINER.to_owned(),
        image: Some(valid.image.clone()),
        image_pull_policy: workers.image_pull_policy.map(pull_policy),
        args: Some(vec!["launch".to_owned(), DOCUMENT_PATH.to_owned()]),
        env: Some(environment::build(valid, attempt)),
        ports: Some(metrics_ports(workers.processes())),
        resources: Some(resources(workers)),
        volume_mounts: Some(volumes::mounts(valid)),
        security_context: Some(container_security()),
        termination_message_path: Some(TERMINATION_LOG_PATH.to_owned()),
        // A trainer that dies without a report leaves the end of its log.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn pull_policy(policy: ImagePullPolicy) -> String {
    match policy {
        ImagePullPolicy::Always => "Always",
        ImagePullPolicy::IfNotPresent => "IfNotPresent",
        ImagePullPolicy::Never => "Never",
    }
    .to_owned()
}

/// One port for each process; the first keeps the plain name.
fn metrics_ports(processes: i64) -> Vec<ContainerPort> {
    let local_ranks = u16::try_from(processes).unwrap_or(1);
    (0..local_ranks)
        .map(|rank| ContainerPort {
            name: Some(match rank {
                0 => METRICS_PORT_NAME.to_owned(),
                _ => format!("{METRICS_PORT_NAME}-{rank}"),
            }),
            container_port: i32::from(METRICS_PORT + rank),
            ..ContainerPort::default()
        })
        .collect()
}

fn resources(workers: &Workers) -> ResourceRequirements {
    let mut limits = workers.resources.limits.clone();
    let gpus = workers.gpus_per_replica();
    if gpus > 0 {
        let name = workers.gpu.as_ref().map(|gpu| gpu.resource_name.as_str());
        let name = name.unwrap_or("nvidia.com/gpu").to_owned();
        limits.insert(name, Quantity(gpus.to_string()));
    }
    ResourceRequirements {
        requests: non_empty_map(workers.resources.requests.clone()),
        limits: non_empty_map(limits),
        claims: None,
    }
}

fn node_selector(workers: &Workers) -> BTreeMap<String, String> {
    let mut selector = workers.node_selector.clone();
    if let Some(product) = workers.gpu.as_ref().and_then(|gpu| gpu.product.clone()) {
        selector.insert(GPU_PRODUCT.to_owned(), product);
    }
    selector
}

fn pod_security(workers: &Workers) -> PodSecurityContext {
    let user = workers.pod_overrides.run_as_user.unwrap_or(TRAINER_UID);
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(user),
        run_as_group: Some(user),
        fs_group: Some(workers.pod_overrides.fs_group.unwrap_or(TRAINER_UID)),
        // A volume with millions of files is not walked again at every start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        ..SecurityContext::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{as_json, validated};

    #[test]
    fn gpus_are_limits_and_their_product_selects_the_node() {
        let mut valid = validated();
        valid.spec.workers.gpu = serde_json::from_value(json!({
            "resourceName": "nvidia.com/mig-1g.10gb", "count": 2, "product": "H100" }))
        .unwrap();
        let pod = as_json(&build(&valid, 1));
        let container = pod.pointer("/spec/containers/0").unwrap();
        assert_eq!(
            container["resources"]["limits"],
            json!({ "nvidia.com/mig-1g.10gb": "2" })
        );
        assert_eq!(
            pod["spec"]["nodeSelector"],
            json!({ "nvidia.com/gpu.product": "H100" })
        );
        assert_eq!(
            container["ports"],
            json!([
                { "name": "metrics", "containerPort": 9400 },
                { "name": "metrics-1", "containerPort": 9401 },
            ])
        );
    }

    #[test]
    fn overrides_reach_the_pod_and_cannot_shadow_our_labels() {
        let mut valid = validated();
        valid.spec.workers.pod_overrides = serde_json::from_value(json!({
            "labels": { "team": "vision" },
            "annotations": { "note": "x" },
            "terminationGracePeriodSeconds": 30,
            "runAsUser": 1000,
            "schedulerName": "custom",
        }))
        .unwrap();
        let pod = as_json(&build(&valid, 4));
        assert_eq!(pod["metadata"]["labels"]["team"], "vision");
        assert_eq!(pod["metadata"]["labels"]["vlft.dev/attempt"], "4");
        assert_eq!(pod["metadata"]["annotations"], json!({ "note": "x" }));
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 30);
        assert_eq!(pod["spec"]["securityContext"]["runAsUser"], 1000);
        assert_eq!(pod["spec"]["schedulerName"], "custom");
    }
}
