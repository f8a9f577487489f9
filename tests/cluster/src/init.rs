//! PID 1 of the cluster: prepares its namespaces and files, then supervises.

use crate::layout::{Layout, Node};
use crate::{config, daemons, mounts, network, supervise};
use anyhow::{Context, Result};
use std::fs;
use std::io::{Read, Write};

/// What `up` decided; see [`crate::up`].
#[derive(clap::Args)]
pub struct InitArgs {
    #[arg(long)]
    pub nodes: u8,
    /// The control plane's address on the veth to the machine.
    #[arg(long)]
    pub host_side: String,
}

/// Said by `up` when the cluster is to outlive it.
pub const KEEP: &[u8] = b"keep\n";

/// Tells `up` on standard output first its process id on the machine, then `prepared`.
pub fn init(layout: &Layout, args: &InitArgs) -> Result<()> {
    std::thread::spawn(end_with_parent);
    // Until /proc is mounted anew it is the machine's, and so are the ids in it.
    let pid = fs::read_link("/proc/self").context("cannot read /proc/self")?;
    tell(&format!("pid {}", pid.display()))?;
    mounts::privatise()?;
    let nodes = Node::all(args.nodes);
    network::build(&nodes)?;
    config::write(layout, &nodes, &args.host_side)?;
    tell("prepared")?;
    supervise::run(layout, &daemons::all(layout, &nodes))
}

fn tell(line: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("`cluster up` is gone")
}

/// An `up` that was killed half way closes the pipe without a word; then the cluster ends too.
fn end_with_parent() {
    let mut said = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut said);
    if said != KEEP {
        eprintln!("`cluster up` ended before the cluster was ready");
        std::process::exit(1);
    }
}
