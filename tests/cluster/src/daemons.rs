//! The components and their command lines.

use crate::layout::{API_PORT, CONTROL_PLANE, Layout, Node};
use std::path::Path;

/// A component that runs for as long as the cluster does.
#[derive(Debug)]
pub struct Daemon {
    /// Names its log file.
    pub name: String,
    /// Network namespace; the control plane's when absent.
    pub netns: Option<String>,
    pub command: Vec<String>,
    pub after: After,
}

/// What a component waits for, since before that it could only fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum After {
    Nothing,
    /// It retries by itself, and most of its start is not about the API.
    ApiListens,
    /// It gives up where the API server does not yet know its own roles.
    ApiReady,
}

const GANGS: &str = "--feature-gates=GenericWorkload=true";

/// All of them, in the order in which they start.
pub fn all(layout: &Layout, nodes: &[Node]) -> Vec<Daemon> {
    let mut daemons = vec![
        control_plane("etcd", etcd(layout), After::Nothing),
        control_plane("kube-apiserver", api_server(layout), After::Nothing),
    ];
    daemons.extend(nodes.iter().map(|node| containerd(layout, node)));
    daemons.push(control_plane(
        "kube-controller-manager",
        controller_manager(layout),
        After::ApiReady,
    ));
    daemons.push(control_plane(
        "kube-scheduler",
        scheduler(layout),
        After::ApiReady,
    ));
    for node in nodes {
        daemons.push(kubelet(layout, node));
        daemons.push(kube_proxy(layout, node));
    }
    daemons.push(control_plane("coredns", coredns(layout), After::ApiListens));
    daemons.push(control_plane(
        "volume-provisioner",
        provisioner(layout),
        After::ApiReady,
    ));
    daemons
}

fn control_plane(name: &str, command: Vec<String>, after: After) -> Daemon {
    Daemon {
        name: name.into(),
        netns: None,
        command,
        after,
    }
}

fn on_node(node: &Node, name: &str, command: Vec<String>, after: After) -> Daemon {
    Daemon {
        name: format!("{}-{name}", node.name),
        netns: Some(node.netns()),
        command,
        after,
    }
}

/// The program's path, then flags as `--name=value`.
fn line(program: &Path, flags: &[(&str, &str)]) -> Vec<String> {
    let flags = flags
        .iter()
        .map(|(name, value)| format!("--{name}={value}"));
    std::iter::once(program.display().to_string())
        .chain(flags)
        .collect()
}

/// Its data lies on the cluster's tmpfs: it lives as long as the cluster does.
fn etcd(layout: &Layout) -> Vec<String> {
    let client = "http://127.0.0.1:2379";
    let peer = "http://127.0.0.1:2380";
    line(
        &layout.bin("etcd"),
        &[
            ("data-dir", "/run/etcd"),
            ("listen-client-urls", client),
            ("advertise-client-urls", client),
            ("listen-peer-urls", peer),
            ("initial-advertise-peer-urls", peer),
            ("initial-cluster", &format!("default={peer}")),
            ("unsafe-no-fsync", "true"),
            ("log-level", "warn"),
        ],
    )
}

fn api_server(layout: &Layout) -> Vec<String> {
    let key = |file: &str| layout.pki().join(file).display().to_string();
    let audit = layout.logs().join("audit.log").display().to_string();
    let policy = layout
        .config()
        .join("audit-policy.yaml")
        .display()
        .to_string();
    let service_account = key("service-account.key");
    let mut command = line(
        &layout.bin("kube-apiserver"),
        &[
            ("advertise-address", CONTROL_PLANE),
            ("secure-port", &API_PORT.to_string()),
            ("tls-cert-file", &key("apiserver.crt")),
            ("tls-private-key-file", &key("apiserver.key")),
            ("client-ca-file", &key("ca.crt")),
            ("etcd-servers", "http://127.0.0.1:2379"),
            ("authorization-mode", "Node,RBAC"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("runtime-config", "scheduling.k8s.io/v1beta1=true"),
            ("allow-privileged", "true"),
            ("service-cluster-ip-range", "10.96.0.0/16"),
            ("kubelet-preferred-address-types", "InternalIP"),
            ("kubelet-client-certificate", &key("apiserver-kubelet.crt")),
            ("kubelet-client-key", &key("apiserver-kubelet.key")),
            ("service-account-issuer", "https://kubernetes.default.svc"),
            ("service-account-key-file", &service_account),
            ("service-account-signing-key-file", &service_account),
            ("audit-policy-file", &policy),
            ("audit-log-path", &audit),
        ],
    );
    command.push(GANGS.into());
    command
}

fn controller_manager(layout: &Layout) -> Vec<String> {
    let key = |file: &str| layout.pki().join(file).display().to_string();
    let kubeconfig = key("kube-controller-manager.kubeconfig");
    let mut command = line(
        &layout.bin("kube-controller-manager"),
        &[
            ("kubeconfig", &kubeconfig),
            ("authentication-kubeconfig", &kubeconfig),
            ("authorization-kubeconfig", &kubeconfig),
            ("bind-address", "127.0.0.1"),
            ("leader-elect", "false"),
            ("use-service-account-credentials", "true"),
            (
                "service-account-private-key-file",
                &key("service-account.key"),
            ),
            ("root-ca-file", &key("ca.crt")),
            ("node-monitor-period", "2s"),
            ("node-monitor-grace-period", "20s"),
            // The default of 20 requests a second would be what a test of scale measures.
            ("kube-api-qps", "300"),
            ("kube-api-burst", "600"),
        ],
    );
    command.push(GANGS.into());
    command
}

fn scheduler(layout: &Layout) -> Vec<String> {
    let kubeconfig = layout
        .pki()
        .join("kube-scheduler.kubeconfig")
        .display()
        .to_string();
    let mut command = line(
        &layout.bin("kube-scheduler"),
        &[
            ("kubeconfig", &kubeconfig),
            ("authentication-kubeconfig", &kubeconfig),
            ("authorization-kubeconfig", &kubeconfig),
            ("bind-address", "127.0.0.1"),
            ("leader-elect", "false"),
            ("kube-api-qps", "300"),
            ("kube-api-burst", "600"),
        ],
    );
    command.push(GANGS.into());
    command
}

fn coredns(layout: &Layout) -> Vec<String> {
    let corefile = layout.config().join("Corefile").display().to_string();
    vec![
        layout.bin("coredns").display().to_string(),
        "-conf".into(),
        corefile,
    ]
}

fn provisioner(layout: &Layout) -> Vec<String> {
    let kubeconfig = layout
        .pki()
        .join("volume-provisioner.kubeconfig")
        .display()
        .to_string();
    let root = layout.volumes().display().to_string();
    line(
        &layout.bin("volume-provisioner"),
        &[("kubeconfig", &kubeconfig), ("root", &root)],
    )
}

fn containerd(layout: &Layout, node: &Node) -> Daemon {
    let config = layout
        .node_folder(node)
        .join("containerd.toml")
        .display()
        .to_string();
    let command = vec!["containerd".into(), "--config".into(), config];
    on_node(node, "containerd", command, After::Nothing)
}

fn kubelet(layout: &Layout, node: &Node) -> Daemon {
    let folder = layout.node_folder(node);
    let file = |name: &str| folder.join(name).display().to_string();
    let kubeconfig = layout
        .pki()
        .join(format!("{}.kubeconfig", node.name))
        .display()
        .to_string();
    let command = line(
        &layout.bin("kubelet"),
        &[
            ("config", &file("kubelet.yaml")),
            ("kubeconfig", &kubeconfig),
            ("hostname-override", &node.name),
            ("node-ip", &node.address),
            ("root-dir", &file("kubelet")),
            ("cert-dir", &file("kubelet-pki")),
        ],
    );
    on_node(node, "kubelet", command, After::ApiListens)
}

fn kube_proxy(layout: &Layout, node: &Node) -> Daemon {
    let config = layout
        .node_folder(node)
        .join("kube-proxy.yaml")
        .display()
        .to_string();
    on_node(
        node,
        "kube-proxy",
        line(&layout.bin("kube-proxy"), &[("config", &config)]),
        After::ApiListens,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_its_three_components_and_names_are_unique() {
        let layout = Layout::new("t", "/c".into()).unwrap();
        let daemons = all(&layout, &Node::all(2));
        let mut names: Vec<_> = daemons.iter().map(|daemon| daemon.name.clone()).collect();
        for name in [
            "node1-kubelet",
            "node2-containerd",
            "node2-kube-proxy",
            "kube-scheduler",
        ] {
            assert!(names.iter().any(|known| known == name), "{name} is missing");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), daemons.len());
        let on_node2 = daemons
            .iter()
            .filter(|d| d.netns.as_deref() == Some("/run/netns/node2"));
        assert_eq!(on_node2.count(), 3);
    }

    #[test]
    fn the_gate_for_gangs_is_on_wherever_it_is_read() {
        let layout = Layout::new("t", "/c".into()).unwrap();
        for daemon in all(&layout, &Node::all(1)) {
            let gated = daemon.command.iter().any(|word| word == GANGS);
            let reads = [
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
            ];
            assert_eq!(
                gated,
                reads.contains(&daemon.name.as_str()),
                "{}",
                daemon.name
            );
        }
    }
}
