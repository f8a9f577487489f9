//! What other commands need to know of a running cluster.

use crate::layout::{API_PORT, Layout, Node};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fs;

/// `cluster.json` in the state folder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub name: String,
    /// PID 1 of the cluster, by its id on the machine, and when it started (clock ticks since
    /// boot): an id alone may have been given to another process since.
    pub init_process: i32,
    pub init_started: u64,
    /// The machine's own address that pods can reach.
    pub machine_address: String,
    /// The control plane's address as seen from the machine; it answers API and DNS requests.
    pub control_plane_address: String,
    pub nodes: Vec<Node>,
}

impl Record {
    pub fn new(
        layout: &Layout,
        init: i32,
        link: (String, String),
        nodes: Vec<Node>,
    ) -> Result<Self> {
        let init_started = started(init).context("the cluster's first process ended at once")?;
        let (machine_address, control_plane_address) = link;
        let name = layout.name.clone();
        Ok(Self {
            name,
            init_process: init,
            init_started,
            machine_address,
            control_plane_address,
            nodes,
        })
    }

    pub fn save(&self, layout: &Layout) -> Result<()> {
        let path = layout.record();
        fs::write(&path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Fails with the remedy when the cluster is not running.
    pub fn load(layout: &Layout) -> Result<Self> {
        let missing = || format!("no cluster {:?} is up: run `cluster up`", layout.name);
        let text = fs::read_to_string(layout.record()).with_context(missing)?;
        let record: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} cannot be read", layout.record().display()))?;
        ensure!(
            record.alive(),
            "cluster {:?} has ended: run `cluster up` again",
            layout.name
        );
        Ok(record)
    }

    pub fn alive(&self) -> bool {
        started(self.init_process) == Some(self.init_started)
    }

    pub fn node(&self, name: &str) -> Result<&Node> {
        let known: Vec<_> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        let found = self.nodes.iter().find(|node| node.name == name);
        found.with_context(|| format!("no node {name:?}; there are {}", known.join(", ")))
    }

    /// The cluster's root folder as the machine sees it.
    pub fn root(&self) -> String {
        format!("/proc/{}/root", self.init_process)
    }

    /// Path of a network namespace: a node's, else the control plane's.
    pub fn netns(&self, node: Option<&Node>) -> String {
        match node {
            Some(node) => format!("{}{}", self.root(), node.netns()),
            None => format!("/proc/{}/ns/net", self.init_process),
        }
    }

    pub fn api_server(&self) -> String {
        format!("https://{}:{API_PORT}", self.control_plane_address)
    }
}

/// When a living process started, in clock ticks since boot.
pub fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    start_time(&stat)
}

/// Field 22 of `/proc/PID/stat`. The second field, the program's name, may hold blanks and
/// brackets; the third is the state, and a zombie does not live.
fn start_time(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let rest: Vec<String> = (4..=52).map(|field| field.to_string()).collect();
        assert_eq!(
            start_time(&format!("7 (a) b) S {}", rest.join(" "))),
            Some(22)
        );
        assert_eq!(start_time(&format!("7 (a) Z {}", rest.join(" "))), None);
    }

    #[test]
    fn this_process_lives_and_an_unused_id_does_not() {
        assert!(started(i32::try_from(std::process::id()).unwrap()).is_some());
        assert_eq!(started(i32::MAX), None);
    }
}
