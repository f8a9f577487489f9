//! The chart without a cluster: what it renders, and what it must agree with.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;

use integration::chart::{folder, helm, run, template};
use kube::CustomResourceExt;
use serde_json::{Value, json};
use vlft_crds::contract;

const MONITORING: [&str; 2] = ["--api-versions", "monitoring.coreos.com/v1"];

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> Vec<&'a Value> {
    documents
        .iter()
        .filter(|document| document["kind"] == kind)
        .collect()
}

fn refusal(arguments: &[&str]) -> String {
    template(arguments)
        .expect_err("helm accepted it")
        .to_string()
}

fn definition() -> Value {
    serde_json::to_value(vlft_crds::VLFineTune::crd()).unwrap()
}

#[test]
fn the_charts_definition_is_the_codes() {
    let copy = std::fs::read_to_string(folder().join("files/vlfinetunes.yaml")).unwrap();
    let code = serde_yaml::to_string(&vlft_crds::VLFineTune::crd()).unwrap();
    assert!(
        copy == code,
        "files/vlfinetunes.yaml is out of date: run `make generate`"
    );
}

#[test]
fn the_definition_is_rendered_whole_and_kept() {
    let documents = template(&[]).unwrap();
    let rendered = of_kind(&documents, "CustomResourceDefinition");
    assert_eq!(rendered.len(), 1);
    assert_eq!(rendered[0]["spec"], definition()["spec"]);
    assert_eq!(rendered[0]["metadata"]["name"], "vlfinetunes.vlft.dev");
    assert_eq!(
        rendered[0]["metadata"]["annotations"]["helm.sh/resource-policy"],
        "keep"
    );
    let without = template(&["--set", "crds.install=false"]).unwrap();
    assert!(of_kind(&without, "CustomResourceDefinition").is_empty());
}

#[test]
fn lint_finds_nothing() {
    for arguments in [&[][..], &["--set", "watchNamespace=a,crds.install=false"]] {
        run(helm()
            .args(["lint", "--strict"])
            .arg(folder())
            .args(arguments))
        .unwrap();
    }
}

#[test]
fn wrong_values_are_refused_by_name() {
    for (value, field) in [
        ("nosuch=1", "nosuch"),
        ("replicas=many", "replicas"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("trainer.image=UPPER CASE", "trainer"),
        ("progressInterval=soon", "progressInterval"),
    ] {
        let message = refusal(&["--set", value]);
        assert!(message.contains(field), "{value}: {message}");
    }
}

#[test]
fn the_operator_runs_under_restricted_pod_security() {
    let documents = template(&[]).unwrap();
    let pod = &of_kind(&documents, "Deployment")[0]["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    for container in pod["containers"].as_array().unwrap() {
        let security = &container["securityContext"];
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
        assert!(container["resources"]["limits"]["memory"].is_string());
        assert!(container["livenessProbe"].is_object() && container["readinessProbe"].is_object());
    }
}

#[test]
fn images_are_named_whole_or_follow_the_chart() {
    let documents = template(&[]).unwrap();
    let container =
        &of_kind(&documents, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "vlfinetune/operator:0.1.0");
    assert!(
        container["args"]
            .to_string()
            .contains("=vlfinetune/trainer:0.1.0\"")
    );
    let digest = format!("mirror.test:5000/operator@sha256:{}", "a".repeat(64));
    let documents = template(&["--set", &format!("image.reference={digest}")]).unwrap();
    let pod = &of_kind(&documents, "Deployment")[0]["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], digest.as_str());
}

#[test]
fn a_scoped_operator_has_rights_in_its_namespace_alone() {
    let everywhere = template(&[]).unwrap();
    let scoped = template(&["--set", "watchNamespace=vision"]).unwrap();
    let rules = |documents: &[Value], kind: &str, name: &str| {
        let roles = of_kind(documents, kind);
        roles
            .into_iter()
            .find(|role| role["metadata"]["name"] == name)
            .cloned()
    };
    let wide = rules(&everywhere, "ClusterRole", "vlfinetune-operator").unwrap();
    let narrow = rules(&scoped, "Role", "vlfinetune-operator").unwrap();
    assert_eq!(wide["rules"], narrow["rules"]);
    assert_eq!(narrow["metadata"]["namespace"], "vision");
    assert!(rules(&scoped, "ClusterRole", "vlfinetune-operator").is_none());
    assert!(
        scoped
            .iter()
            .any(|document| document["kind"] == "RoleBinding"
                && document["metadata"]["namespace"] == "vision")
    );
}

#[test]
fn no_role_of_the_operator_has_a_wildcard() {
    for document in template(&[]).unwrap() {
        for rule in document["rules"].as_array().into_iter().flatten() {
            for field in ["apiGroups", "resources", "verbs"] {
                let values = rule[field].as_array().unwrap();
                assert!(
                    !values.contains(&json!("*")),
                    "{}: {rule}",
                    document["metadata"]["name"]
                );
            }
        }
    }
}

#[test]
fn monitors_are_made_only_where_the_cluster_knows_them() {
    let kinds = ["ServiceMonitor", "PodMonitor", "PrometheusRule"];
    let plain = template(&[]).unwrap();
    let monitored = template(&MONITORING).unwrap();
    for kind in kinds {
        assert!(of_kind(&plain, kind).is_empty(), "{kind}");
        assert_eq!(of_kind(&monitored, kind).len(), 1, "{kind}");
    }
    let off = [
        "--set",
        "metrics.monitors.enabled=false,metrics.alerts.enabled=false",
    ];
    let off = template(&[&MONITORING[..], &off].concat()).unwrap();
    assert!(kinds.iter().all(|kind| of_kind(&off, kind).is_empty()));
}

#[test]
fn monitors_select_what_operator_and_trainer_promise() {
    let documents = template(&MONITORING).unwrap();
    let pods = &of_kind(&documents, "PodMonitor")[0]["spec"];
    let wanted = json!({contract::label::ROLE: contract::label::ROLE_TRAINER});
    assert_eq!(pods["selector"]["matchLabels"], wanted);
    let ports = &pods["podMetricsEndpoints"][0]["relabelings"][0]["regex"];
    assert_eq!(*ports, format!("{}(-[0-9]+)?", contract::METRICS_PORT_NAME));

    let deployment = &of_kind(&documents, "Deployment")[0]["spec"]["template"];
    let service = &of_kind(&documents, "Service")[0];
    let monitor = &of_kind(&documents, "ServiceMonitor")[0]["spec"];
    let labels = |value: &Value| -> BTreeSet<(String, String)> {
        let map = value.as_object().unwrap().iter();
        map.map(|(key, value)| (key.clone(), value.to_string()))
            .collect()
    };
    let selected = labels(&service["spec"]["selector"]);
    assert!(selected.is_subset(&labels(&deployment["metadata"]["labels"])));
    let monitored = labels(&monitor["selector"]["matchLabels"]);
    assert!(monitored.is_subset(&labels(&service["metadata"]["labels"])));
    let port = &monitor["endpoints"][0]["port"];
    assert!(
        service["spec"]["ports"]
            .as_array()
            .unwrap()
            .iter()
            .any(|known| known["name"] == *port)
    );
}

#[test]
fn every_dashboard_becomes_a_config_map() {
    let documents = template(&[]).unwrap();
    let maps = of_kind(&documents, "ConfigMap");
    let files = std::fs::read_dir(folder().join("dashboards"))
        .unwrap()
        .count();
    assert_eq!(maps.len(), files);
    for map in maps {
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
        for text in map["data"].as_object().unwrap().values() {
            let board: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
            assert!(board["uid"].is_string());
        }
    }
}
