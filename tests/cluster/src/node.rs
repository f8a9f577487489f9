//! Commands that disturb a running cluster, and one that enters its networks.

use crate::layout::Layout;
use crate::record::Record;
use crate::{network, status, tools};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::CommandExt;

/// Takes the node's link to the bridge down. The node keeps its addresses and routes.
pub fn cut(layout: &Layout, node: &str) -> Result<()> {
    set_link(layout, node, "down")
}

pub fn mend(layout: &Layout, node: &str) -> Result<()> {
    set_link(layout, node, "up")
}

fn set_link(layout: &Layout, node: &str, state: &str) -> Result<()> {
    let record = Record::load(layout)?;
    let node = record.node(node)?;
    let mut ip = network::enter(&record.netns(None), "ip");
    tools::run(ip.args(["link", "set", &node.name, state]))?;
    println!(
        "cluster {}: network of {} is {state}",
        layout.name, node.name
    );
    Ok(())
}

/// Sends a signal to a component, which is restarted when it ends.
pub fn signal(layout: &Layout, component: &str, signal: &str) -> Result<()> {
    let record = Record::load(layout)?;
    let running = status::components(layout, &record);
    let names = || {
        running
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (_, pid) = running
        .iter()
        .find(|(name, _)| name == component)
        .with_context(|| format!("no component {component:?} runs; there are {}", names()))?;
    let signal = match signal.trim_start_matches("SIG") {
        "KILL" => Signal::KILL,
        "TERM" => Signal::TERM,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        other => bail!("signal {other:?}: use KILL, TERM, STOP or CONT"),
    };
    let pid = Pid::from_raw(*pid).context("not a process id")?;
    kill_process(pid, signal).with_context(|| format!("cannot send it to {component}"))
}

/// Becomes the command; it sees the machine's files and the cluster's network.
pub fn exec(layout: &Layout, node: Option<&str>, command: &[String]) -> Result<()> {
    let record = Record::load(layout)?;
    let node = node.map(|name| record.node(name)).transpose()?;
    let (program, arguments) = command.split_first().context("exec: no command")?;
    let error = network::enter(&record.netns(node), program)
        .args(arguments)
        .exec();
    Err(error).with_context(|| format!("cannot run {program}"))
}
