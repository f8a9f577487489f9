//! Scrape targets of a Prometheus that is built without Kubernetes discovery, as Debian's is:
//! a thread lists the pods and writes what a PodMonitor would make of them into a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::chart;

const PERIOD: Duration = Duration::from_secs(1);

/// Pods of one label, and the port of theirs that is scraped.
#[derive(Debug, Clone)]
pub struct Pods {
    pub label: &'static str,
    pub value: &'static str,
    /// Names of container ports begin with this.
    pub port: &'static str,
    /// Absent means every namespace.
    pub namespace: Option<String>,
}

/// Keeps a target file up to date until it is dropped.
pub struct Discovery {
    ended: Arc<AtomicBool>,
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Discovery {
    /// Begins; `server` is the address that proxies to the pods.
    ///
    /// # Errors
    /// When the pods cannot be listed or the file not be written at first.
    pub fn start(pods: Pods, server: String, file: PathBuf) -> Result<Self> {
        refresh(&pods, &server, &file)?;
        let ended = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ended);
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(PERIOD);
                // The API server may be busy; the next second is another try.
                let _ = refresh(&pods, &server, &file);
            }
        });
        Ok(Self { ended })
    }
}

fn refresh(pods: &Pods, server: &str, file: &Path) -> Result<()> {
    let mut command = chart::kubectl();
    command.args(["get", "pods", "-o", "json", "-l"]);
    command.arg(format!("{}={}", pods.label, pods.value));
    match &pods.namespace {
        Some(namespace) => command.args(["--namespace", namespace]),
        None => command.arg("--all-namespaces"),
    };
    let listed: Value = serde_json::from_str(&chart::run(&mut command)?)?;
    let targets = targets(&listed, pods.port, server).to_string();
    if fs::read_to_string(file).is_ok_and(|current| current == targets) {
        return Ok(());
    }
    let partial = file.with_extension("partial");
    fs::write(&partial, targets)
        .and_then(|()| fs::rename(&partial, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// One target for each scraped port of each running pod.
fn targets(listed: &Value, port: &str, server: &str) -> Value {
    let mut targets = Vec::new();
    for pod in listed["items"].as_array().into_iter().flatten() {
        if pod["status"]["phase"] != "Running" {
            continue;
        }
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        let ports = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten());
        let wanted = ports.filter(|p| p["name"].as_str().is_some_and(|n| n.starts_with(port)));
        for port in wanted {
            targets.push(target(&pod["metadata"], &port["containerPort"], server));
        }
    }
    json!(targets)
}

/// `namespace` and `pod` of the pod are put on every series, as a PodMonitor does.
fn target(metadata: &Value, port: &Value, server: &str) -> Value {
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics");
    json!({
        "targets": [server],
        "labels": {
            "__metrics_path__": path, "instance": name, "namespace": namespace, "pod": name,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_pods_with_the_port_are_targets() {
        let pod = |phase: &str| {
            json!({
                "metadata": {"namespace": "n", "name": "p"}, "status": {"phase": phase},
                "spec": {"containers": [{"ports": [
                    {"name": "metrics", "containerPort": 9400}, {"name": "other", "containerPort": 1},
                ]}]},
            })
        };
        let listed = json!({"items": [pod("Running"), pod("Pending")]});
        let found = targets(&listed, "metrics", "127.0.0.1:1");
        assert_eq!(found.as_array().map(Vec::len), Some(1));
        let path = &found[0]["labels"]["__metrics_path__"];
        assert_eq!(path, "/api/v1/namespaces/n/pods/p:9400/proxy/metrics");
    }
}
