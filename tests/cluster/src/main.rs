//! Brings a real Kubernetes cluster up on one machine: a control plane and nodes, each node a
//! network namespace with its own containerd and kubelet. See docs/cluster.md.
//!
//! Everything runs below one process (`init`) that is PID 1 of a PID namespace and owns a mount
//! and a network namespace. Ending it ends every component, shim and container, and with them the
//! kernel drops their mounts, interfaces and namespaces: a teardown needs no book-keeping.

mod args;
mod cgroup;
mod config;
mod daemons;
mod down;
mod init;
mod kubeconfig;
mod layout;
mod load;
mod mounts;
mod network;
mod node;
mod probe;
mod record;
mod status;
mod supervise;
mod tools;
mod up;

use std::process::ExitCode;

fn main() -> ExitCode {
    match args::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}
