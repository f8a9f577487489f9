//! Where a cluster's files lie and which addresses it uses. Pure.
//!
//! Every cluster uses the same addresses inside: they live in its own network namespaces.
//!
//! ```text
//! control plane  10.10.0.1        nodes     10.10.0.11, 10.10.0.12, ...
//! services       10.96.0.0/16     pods      10.244.1.0/24, 10.244.2.0/24, ... (one per node)
//! machine        10.213.x.y/30    (one veth; the only thing outside of the namespaces)
//! ```

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

pub const CONTROL_PLANE: &str = "10.10.0.1";
pub const CLUSTER_DNS: &str = "10.96.0.10";
pub const API_SERVICE: &str = "10.96.0.1";
pub const API_PORT: u16 = 6443;

/// Folder of sockets and node-local state: a tmpfs that only the cluster's processes see.
pub const RUN: &str = "/run";

/// The files of one cluster.
#[derive(Clone, Debug)]
pub struct Layout {
    pub name: String,
    cache: PathBuf,
}

impl Layout {
    /// Files below `$VLFT_CACHE` (else `$XDG_CACHE_HOME/vlfinetune`, else `~/.cache/vlfinetune`).
    pub fn from_env(name: &str) -> Result<Self> {
        let fallback = || {
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
            base.or_else(home).map(|base| base.join("vlfinetune"))
        };
        let cache = std::env::var_os("VLFT_CACHE")
            .map(PathBuf::from)
            .or_else(fallback);
        Self::new(name, cache.context("neither VLFT_CACHE nor HOME is set")?)
    }

    /// Refuses names that do not fit an interface name (15 bytes with our prefix).
    pub fn new(name: &str, cache: PathBuf) -> Result<Self> {
        let fits = !name.is_empty() && name.len() <= 10;
        let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            fits && name.chars().all(lower) && name.starts_with(|c: char| c.is_ascii_lowercase()),
            "--name {name:?}: a name is 1 to 10 of a-z, 0-9 and -, and starts with a letter"
        );
        Ok(Self {
            name: name.to_owned(),
            cache,
        })
    }

    /// What go-tools.sh built.
    pub fn bin(&self, program: &str) -> PathBuf {
        self.cache.join("bin").join(program)
    }

    /// Archives that cluster-images.sh built.
    pub fn image(&self, name: &str) -> PathBuf {
        self.cache.join("images").join(format!("{name}.tar"))
    }

    pub fn state(&self) -> PathBuf {
        self.cache.join("run").join(&self.name)
    }

    /// Beside the state folder, because a teardown removes that.
    pub fn lock(&self) -> PathBuf {
        self.cache.join("run").join(format!(".{}.lock", self.name))
    }

    pub fn logs(&self) -> PathBuf {
        self.state().join("logs")
    }

    pub fn pki(&self) -> PathBuf {
        self.state().join("pki")
    }

    pub fn config(&self) -> PathBuf {
        self.state().join("config")
    }

    pub fn volumes(&self) -> PathBuf {
        self.state().join("volumes")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.state().join("kubeconfig")
    }

    pub fn record(&self) -> PathBuf {
        self.state().join("cluster.json")
    }

    pub fn node_folder(&self, node: &Node) -> PathBuf {
        self.state().join(&node.name)
    }

    /// Name of the cluster's cgroup below the root of each hierarchy.
    pub fn cgroup(&self) -> String {
        format!("vlft-{}", self.name)
    }

    /// The machine's end of the veth to the control plane.
    pub fn host_link(&self) -> String {
        format!("vlft-{}", self.name)
    }
}

/// One node; its network namespace and its end of the bridge have its name.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Node {
    pub name: String,
    pub address: String,
    pub pod_cidr: String,
}

impl Node {
    /// The nodes `node1`, `node2`, ... of a cluster of `count`.
    pub fn all(count: u8) -> Vec<Self> {
        (1..=count)
            .map(|index| Self {
                name: format!("node{index}"),
                address: format!("10.10.0.{}", 10 + u16::from(index)),
                pod_cidr: format!("10.244.{index}.0/24"),
            })
            .collect()
    }

    /// The cluster's private folder of this node's sockets.
    pub fn run_folder(&self) -> String {
        format!("{RUN}/{}", self.name)
    }

    /// As seen by the cluster's own processes.
    pub fn netns(&self) -> String {
        format!("{RUN}/netns/{}", self.name)
    }
}

/// The two usable addresses (machine, control plane) of the n-th /30 of 10.213.0.0/16.
pub fn link_addresses(block: u16) -> (String, String) {
    let block = block % (1 << 14);
    let (high, low) = (block >> 6, (block & 63) << 2);
    (
        format!("10.213.{high}.{}", low + 1),
        format!("10.213.{high}.{}", low + 2),
    )
}

/// Where the search for a free /30 begins: spread by name, so that clusters rarely meet.
pub fn first_block(name: &str) -> u16 {
    name.bytes().fold(0_u16, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u16::from(byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_must_fit_an_interface() {
        for bad in ["", "Vlft", "a-name-that-is-long", "1st", "a/b", "-a"] {
            assert!(
                Layout::new(bad, "/c".into()).is_err(),
                "{bad:?} was accepted"
            );
        }
        let layout = Layout::new("vlft", "/c".into()).unwrap();
        assert!(layout.host_link().len() <= 15);
        assert_eq!(layout.kubeconfig(), Path::new("/c/run/vlft/kubeconfig"));
    }

    #[test]
    fn link_addresses_stay_in_their_block() {
        assert_eq!(
            link_addresses(0),
            ("10.213.0.1".into(), "10.213.0.2".into())
        );
        assert_eq!(
            link_addresses(65),
            ("10.213.1.5".into(), "10.213.1.6".into())
        );
        assert_eq!(link_addresses((1 << 14) - 1).1, "10.213.255.254");
        assert_eq!(link_addresses(1 << 14), link_addresses(0));
    }

    #[test]
    fn nodes_have_their_own_addresses() {
        let nodes = Node::all(2);
        assert_eq!(nodes[1].address, "10.10.0.12");
        assert_ne!(nodes[0].pod_cidr, nodes[1].pod_cidr);
    }
}
