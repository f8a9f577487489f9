//! `cluster status`, `cluster logs` and `cluster kubeconfig`.

use crate::cgroup::Cgroups;
use crate::daemons;
use crate::layout::Layout;
use crate::record::Record;
use crate::tools;
use anyhow::{Context, Result, bail};
use std::fs;

pub fn kubeconfig(layout: &Layout) -> Result<()> {
    Record::load(layout)?;
    println!("{}", layout.kubeconfig().display());
    Ok(())
}

/// Nodes as the API server sees them, and each component with its process id on the machine.
pub fn status(layout: &Layout) -> Result<()> {
    let record = Record::load(layout)?;
    println!("API server      {}", record.api_server());
    println!("KUBECONFIG      {}", layout.kubeconfig().display());
    println!("machine address {} (for pods)", record.machine_address);
    let running = components(layout, &record);
    for daemon in daemons::all(layout, &record.nodes) {
        let pid = running
            .iter()
            .find(|(name, _)| *name == daemon.name)
            .map(|(_, pid)| *pid);
        let state = pid.map_or("not running".into(), |pid| format!("process {pid}"));
        println!("{:<26} {state}", daemon.name);
    }
    let nodes = tools::run(tools::kubectl(layout).args(["get", "nodes", "-o", "wide"]))?;
    print!("{}", String::from_utf8_lossy(&nodes.stdout));
    Ok(())
}

/// (name, process id) of each component that runs: the processes of the cluster with exactly the
/// command line of one. Entering a namespace leaves nothing of `nsenter` behind.
pub fn components(layout: &Layout, record: &Record) -> Vec<(String, i32)> {
    let Ok(cgroups) = Cgroups::of(&layout.cgroup()) else {
        return Vec::new();
    };
    let daemons = daemons::all(layout, &record.nodes);
    let named = cgroups.processes().into_iter().filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<_> = line
            .split(|byte| *byte == 0)
            .map(String::from_utf8_lossy)
            .collect();
        let daemon = daemons.iter().find(|daemon| {
            words.len() == daemon.command.len() + 1
                && daemon
                    .command
                    .iter()
                    .zip(&words)
                    .all(|(wanted, word)| wanted == word)
        })?;
        Some((daemon.name.clone(), pid))
    });
    named.collect()
}

/// Without a component, lists the log files; also after the cluster has ended.
pub fn logs(layout: &Layout, component: Option<&str>, tail: usize) -> Result<()> {
    let folder = layout.logs();
    let entries =
        fs::read_dir(&folder).with_context(|| format!("no logs of cluster {:?}", layout.name))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| entry.ok())
        .map(|e| e.path())
        .collect();
    files.sort();
    let Some(component) = component else {
        files.iter().for_each(|file| println!("{}", file.display()));
        return Ok(());
    };
    let wanted = files
        .iter()
        .find(|file| file.file_stem().is_some_and(|stem| stem == component));
    let Some(wanted) = wanted else {
        bail!("no log of {component:?} in {}", folder.display())
    };
    let text =
        fs::read_to_string(wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(tail);
    lines.iter().skip(from).for_each(|line| println!("{line}"));
    Ok(())
}
