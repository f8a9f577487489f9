//! Keys and configuration files of the components, from the templates in `config/`.

use crate::kubeconfig;
use crate::layout::{API_SERVICE, CONTROL_PLANE, Layout, Node};
use crate::tools;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Image of every pod's sandbox; cluster-images.sh builds it.
pub const PAUSE_IMAGE: &str = "localhost/vlft/pause:1";

const MASTERS: &str = "system:masters";

/// Writes all of them into the state folder.
pub fn write(layout: &Layout, nodes: &[Node], host_side: &str) -> Result<()> {
    for folder in [layout.config(), layout.volumes()] {
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    write_keys(layout, nodes, host_side)?;
    let pki = layout.pki().display().to_string();
    let shared = [("PKI", pki.as_str())];
    let config = layout.config();
    put(
        &config.join("Corefile"),
        include_str!("../config/Corefile"),
        &shared,
    )?;
    put(
        &config.join("audit-policy.yaml"),
        include_str!("../config/audit-policy.yaml"),
        &shared,
    )?;
    put(
        &config.join("addons.yaml"),
        include_str!("../config/addons.yaml"),
        &shared,
    )?;
    nodes
        .iter()
        .try_for_each(|node| write_node(layout, node, &pki))
}

/// Certificates and a kubeconfig for everyone who talks to the API server.
fn write_keys(layout: &Layout, nodes: &[Node], host_side: &str) -> Result<()> {
    let mut clients: Vec<(String, String)> = vec![
        ("admin".into(), format!("admin/{MASTERS}")),
        (
            "apiserver-kubelet".into(),
            format!("system:apiserver-kubelet/{MASTERS}"),
        ),
        ("coredns".into(), format!("system:coredns/{MASTERS}")),
        (
            "volume-provisioner".into(),
            format!("system:volume-provisioner/{MASTERS}"),
        ),
    ];
    for component in ["kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        clients.push((component.into(), format!("system:{component}")));
    }
    for node in nodes {
        clients.push((
            node.name.clone(),
            format!("system:node:{}/system:nodes", node.name),
        ));
    }
    let addresses = format!("127.0.0.1,{CONTROL_PLANE},{API_SERVICE},{host_side}");
    let pairs = clients
        .iter()
        .map(|(name, subject)| format!("{name}={subject}"));
    tools::run(
        Command::new(layout.bin("cluster-pki"))
            .arg(layout.pki())
            .arg(addresses)
            .args(pairs),
    )?;
    clients
        .iter()
        .try_for_each(|(name, _)| kubeconfig::write(layout, name, host_side))
}

fn write_node(layout: &Layout, node: &Node, pki: &str) -> Result<()> {
    let folder = layout.node_folder(node);
    let cni = folder.join("cni");
    fs::create_dir_all(&cni).with_context(|| format!("cannot create {}", cni.display()))?;
    // Pods do not inherit the machine's resolver.
    fs::write(folder.join("resolv.conf"), "")?;
    let (folder_text, run) = (folder.display().to_string(), node.run_folder());
    let cgroup = format!("/{}/{}", layout.cgroup(), node.name);
    fs::create_dir_all(&run).with_context(|| format!("cannot create {run}"))?;
    let values = [
        ("NODE", node.name.as_str()),
        ("FOLDER", &folder_text),
        ("RUN", &run),
        ("PKI", pki),
        ("POD_CIDR", &node.pod_cidr),
        ("CGROUP", &cgroup),
        ("PAUSE_IMAGE", PAUSE_IMAGE),
        (
            "CNI_BIN",
            tools::cni_bin().context("the CNI plugins are missing")?,
        ),
    ];
    put(
        &folder.join("containerd.toml"),
        include_str!("../config/containerd.toml"),
        &values,
    )?;
    put(
        &folder.join("kubelet.yaml"),
        include_str!("../config/kubelet.yaml"),
        &values,
    )?;
    put(
        &folder.join("kube-proxy.yaml"),
        include_str!("../config/kube-proxy.yaml"),
        &values,
    )?;
    put(
        &cni.join("10-pods.conflist"),
        include_str!("../config/cni.conflist"),
        &values,
    )
}

fn put(path: &Path, template: &str, values: &[(&str, &str)]) -> Result<()> {
    let text = render(template, values)
        .with_context(|| format!("in the template of {}", path.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Replaces each `{{NAME}}`; a name without a value is an error.
fn render(template: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    let left = text
        .split_once("{{")
        .map(|(_, rest)| rest.split("}}").next().unwrap_or(rest));
    ensure!(left.is_none(), "no value for {}", left.unwrap_or_default());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_or_refused() {
        assert_eq!(render("a {{X}} b {{X}}", &[("X", "1")]).unwrap(), "a 1 b 1");
        let error = render("{{X}} {{Y}}", &[("X", "1")])
            .unwrap_err()
            .to_string();
        assert_eq!(error, "no value for Y");
    }
}
