//! The command line.

use crate::layout::Layout;
use crate::{down, init, load, node, probe, status, up};
use anyhow::Result;
use clap::{Parser, Subcommand};
use std::net::Ipv4Addr;
use std::path::PathBuf;

#[derive(Parser)]
#[command(
    name = "cluster",
    about = "A real Kubernetes cluster on one machine",
    version
)]
struct Args {
    /// Which cluster; several can run side by side under different names.
    #[arg(long, global = true, env = "VLFT_CLUSTER", default_value = "vlft")]
    name: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the cluster up and write its kubeconfig; an older one of this name goes first.
    Up {
        /// How many nodes.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
        nodes: u8,
    },
    /// End the cluster and remove everything it made but its logs.
    Down,
    /// Import image archives (docker or OCI) into every node.
    Load { archives: Vec<PathBuf> },
    /// Print the kubeconfig's path; fails when the cluster is not running.
    Kubeconfig,
    /// Say what runs: nodes, components and their process ids.
    Status,
    /// List the log files, or print the end of one.
    Logs {
        component: Option<String>,
        /// How many lines.
        #[arg(long, default_value_t = 50)]
        tail: usize,
    },
    /// Cut a node's network.
    Cut { node: String },
    /// Mend a node's network.
    Mend { node: String },
    /// Send a signal (KILL, STOP, CONT, TERM) to a component, named as `status` names it.
    Signal { component: String, signal: String },
    /// Run a command in the network of the control plane, or of a node.
    Exec {
        #[arg(long)]
        node: Option<String>,
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
    /// PID 1 of the cluster.
    #[command(hide = true)]
    Init(init::InitArgs),
    /// Ask a DNS server for the API server's name.
    #[command(hide = true)]
    ProbeDns { server: Ipv4Addr },
}

/// Parses the command line and runs its command.
pub fn run() -> Result<()> {
    let args = Args::parse();
    if let Command::ProbeDns { server } = args.command {
        return probe::dns(server);
    }
    let layout = Layout::from_env(&args.name)?;
    match args.command {
        Command::Up { nodes } => up::up(&layout, nodes),
        Command::Down => down::down(&layout),
        Command::Load { archives } => load::load(&layout, &archives),
        Command::Kubeconfig => status::kubeconfig(&layout),
        Command::Status => status::status(&layout),
        Command::Logs { component, tail } => status::logs(&layout, component.as_deref(), tail),
        Command::Cut { node } => node::cut(&layout, &node),
        Command::Mend { node } => node::mend(&layout, &node),
        Command::Signal { component, signal } => node::signal(&layout, &component, &signal),
        Command::Exec { node, command } => node::exec(&layout, node.as_deref(), &command),
        Command::Init(init) => init::init(&layout, &init),
        Command::ProbeDns { .. } => Ok(()),
    }
}
