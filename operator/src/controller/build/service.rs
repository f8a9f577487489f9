//! Headless Service: the host names of the pods, published before they are ready, since the
//! rendezvous is what makes them ready.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use vlft_crds::contract::{METRICS_PORT, METRICS_PORT_NAME, RENDEZVOUS_PORT};

use super::{labels, names, owned_meta, pod_selector};
use crate::controller::validate::ValidatedFineTune;

pub fn build(valid: &ValidatedFineTune) -> Service {
    let ports = [
        (METRICS_PORT_NAME, METRICS_PORT),
        ("rendezvous", RENDEZVOUS_PORT),
    ];
    let ports = ports.map(|(name, port)| ServicePort {
        name: Some(name.to_owned()),
        protocol: Some("TCP".to_owned()),
        port: i32::from(port),
        ..ServicePort::default()
    });
    Service {
        metadata: owned_meta(valid, names::workers(&valid.name), labels(valid)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(pod_selector(valid)),
            ports: Some(ports.into()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{as_json, labels_json, owner_json, validated};

    #[test]
    fn whole_object() {
        let expected = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "captions-workers",
                "namespace": "team",
                "labels": labels_json(),
                "ownerReferences": [owner_json()],
            },
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": true,
                "selector": { "vlft.dev/finetune": "captions", "vlft.dev/role": "trainer" },
                "ports": [
                    { "name": "metrics", "protocol": "TCP", "port": 9400 },
                    { "name": "rendezvous", "protocol": "TCP", "port": 29500 },
                ],
            },
        });
        assert_eq!(as_json(&build(&validated())), expected);
    }
}
