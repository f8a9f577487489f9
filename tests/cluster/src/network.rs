//! Namespaces, the bridge that joins them, and the one link to the machine.

use crate::layout::{CONTROL_PLANE, Node, first_block, link_addresses};
use crate::tools;
use anyhow::{Context, Result, bail};
use std::fs;
use std::process::Command;

/// The control plane's end of the veth to the machine.
const UPLINK: &str = "host0";

/// Runs inside: joins the nodes to the control plane's namespace by a bridge. Pods are routed,
/// not bridged, so that replies to a service's address pass connection tracking.
pub fn build(nodes: &[Node]) -> Result<()> {
    let mut batch = format!(
        "link set lo up\nlink add br0 type bridge\naddr add {CONTROL_PLANE}/24 dev br0\nlink set br0 up\n"
    );
    for node in nodes {
        tools::run(Command::new("ip").args(["netns", "add", &node.name]))?;
        let name = &node.name;
        batch += &format!("link add {name} type veth peer name eth0 netns {name}\n");
        batch += &format!("link set {name} master br0 up\n");
        batch += &format!(
            "route add {} via {} dev br0 onlink\n",
            node.pod_cidr, node.address
        );
    }
    tools::feed(Command::new("ip").args(["-batch", "-"]), &batch)?;
    forward(&mut Command::new("sh"))?;
    for node in nodes {
        tools::feed(
            enter(&node.netns(), "ip").args(["-batch", "-"]),
            &routes(node, nodes),
        )?;
        forward(&mut enter(&node.netns(), "sh"))?;
    }
    masquerade()
}

/// A node's address, and its routes to the pods of the others.
fn routes(node: &Node, nodes: &[Node]) -> String {
    let mut batch = format!(
        "link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\nroute add default via {CONTROL_PLANE}\n",
        node.address
    );
    for other in nodes.iter().filter(|other| *other != node) {
        batch += &format!("route add {} via {}\n", other.pod_cidr, other.address);
    }
    batch
}

fn forward(shell: &mut Command) -> Result<()> {
    tools::run(shell.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])).map(|_| ())
}

/// Pods reach servers that run on the machine; it needs no route back to them.
fn masquerade() -> Result<()> {
    let rules = format!(
        "table ip uplink {{\n chain postrouting {{\n  type nat hook postrouting priority 100;\n  \
         oifname \"{UPLINK}\" masquerade\n }}\n}}\n"
    );
    tools::feed(Command::new("nft").args(["-f", "-"]), &rules).map(|_| ())
}

/// A command in the network namespace at `path`. Not `ip netns exec`: it remounts /sys, and the
/// cgroups below it are gone.
pub fn enter(path: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={path}")).arg("--").arg(program);
    command
}

/// Two addresses that no interface of the machine is near: (machine, control plane).
pub fn free_link(cluster: &str) -> Result<(String, String)> {
    let used = tools::run(Command::new("ip").args(["-4", "-o", "addr", "show"]))?;
    let used = String::from_utf8_lossy(&used.stdout).into_owned();
    let first = first_block(cluster);
    (0..1024_u16)
        .map(|offset| link_addresses(first.wrapping_add(offset)))
        .find(|(machine, _)| !used.contains(&format!(" {machine}/")))
        .context("no free /30 in 10.213.0.0/16")
}

/// Runs outside: the veth between the machine and the control plane (the process `init`).
pub fn attach(link: &str, init: i32, machine: &str, inside: &str) -> Result<()> {
    let outside = format!(
        "link add {link} type veth peer name {UPLINK} netns {init}\n\
         addr add {machine}/30 dev {link}\nlink set {link} up\n"
    );
    tools::feed(Command::new("ip").args(["-batch", "-"]), &outside)?;
    let batch = format!("addr add {inside}/30 dev {UPLINK}\nlink set {UPLINK} up\n");
    let netns = format!("/proc/{init}/ns/net");
    tools::feed(enter(&netns, "ip").args(["-batch", "-"]), &batch).map(|_| ())
}

/// Runs outside: removes the machine's end. The kernel does so by itself when the other end's
/// namespace ends, but later.
pub fn detach(link: &str) -> Result<()> {
    if !fs::exists(format!("/sys/class/net/{link}"))? {
        return Ok(());
    }
    let removed = tools::run(Command::new("ip").args(["link", "delete", link]));
    match removed {
        Err(error) if fs::exists(format!("/sys/class/net/{link}"))? => bail!(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_routes_to_the_other_nodes_pods_only() {
        let nodes = Node::all(3);
        let batch = routes(&nodes[0], &nodes);
        assert!(batch.contains("route add 10.244.2.0/24 via 10.10.0.12"));
        assert!(batch.contains("route add 10.244.3.0/24 via 10.10.0.13"));
        assert!(!batch.contains("10.244.1.0/24"));
    }
}
