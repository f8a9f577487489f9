//! NetworkPolicy: rendezvous and gradients are unauthenticated, so that only pods of the run
//! may reach each other; metrics and progress stay open to whoever scrapes them.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use vlft_crds::contract::METRICS_PORT;
use vlft_crds::workers::NetworkPolicyMode;

use super::{labels, names, owned_meta, pod_selector};
use crate::controller::validate::ValidatedFineTune;

pub fn build(valid: &ValidatedFineTune) -> Option<NetworkPolicy> {
    if valid.spec.workers.network_policy == NetworkPolicyMode::Disabled {
        return None;
    }
    let pods = || LabelSelector {
        match_labels: Some(pod_selector(valid)),
        ..Default::default()
    };
    Some(NetworkPolicy {
        metadata: owned_meta(valid, names::workers(&valid.name), labels(valid)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pods()),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![from_peers(pods()), to_metrics(valid)]),
            egress: None,
        }),
    })
}

fn from_peers(pods: LabelSelector) -> NetworkPolicyIngressRule {
    let peer = NetworkPolicyPeer {
        pod_selector: Some(pods),
        ..NetworkPolicyPeer::default()
    };
    NetworkPolicyIngressRule {
        from: Some(vec![peer]),
        ports: None,
    }
}

fn to_metrics(valid: &ValidatedFineTune) -> NetworkPolicyIngressRule {
    let first = i32::from(METRICS_PORT);
    let more = i32::try_from(valid.spec.workers.processes() - 1).unwrap_or(0);
    let ports = NetworkPolicyPort {
        protocol: Some("TCP".to_owned()),
        port: Some(IntOrString::Int(first)),
        end_port: (more > 0).then_some(first + more),
    };
    NetworkPolicyIngressRule {
        from: None,
        ports: Some(vec![ports]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{as_json, labels_json, owner_json, validated};

    #[test]
    fn whole_object() {
        let pods = json!({
            "matchLabels": { "vlft.dev/finetune": "captions", "vlft.dev/role": "trainer" }
        });
        let expected = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {
                "name": "captions-workers",
                "namespace": "team",
                "labels": labels_json(),
                "ownerReferences": [owner_json()],
            },
            "spec": {
                "podSelector": pods,
                "policyTypes": ["Ingress"],
                "ingress": [
                    { "from": [{ "podSelector": pods }] },
                    { "ports": [{ "protocol": "TCP", "port": 9400 }] },
                ],
            },
        });
        assert_eq!(as_json(&build(&validated()).unwrap()), expected);
    }

    #[test]
    fn every_process_of_a_pod_can_be_scraped() {
        let mut valid = validated();
        valid.spec.workers.processes_per_replica = Some(4);
        let policy = as_json(&build(&valid).unwrap());
        let port = policy.pointer("/spec/ingress/1/ports/0").unwrap();
        assert_eq!(
            *port,
            json!({ "protocol": "TCP", "port": 9400, "endPort": 9403 })
        );
    }

    #[test]
    fn can_be_switched_off() {
        let mut valid = validated();
        valid.spec.workers.network_policy = NetworkPolicyMode::Disabled;
        assert!(build(&valid).is_none());
    }
}
