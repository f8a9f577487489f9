//! What every test against a real cluster lives on: a client from `KUBECONFIG`, a namespace of
//! its own per test, waiting with time-outs, and a dump of the state when something fails.
//!
//! ```no_run
//! # use integration::{wait_for, with_temp_ns};
//! # use k8s_openapi::api::core::v1::Pod;
//! # async fn example() -> anyhow::Result<()> {
//! with_temp_ns("example", async |ns| {
//!     let pods = ns.api::<Pod>();
//!     wait_for("no pods", std::time::Duration::from_secs(10), async || {
//!         Ok(pods.list(&Default::default()).await?.items.is_empty().then_some(()))
//!     })
//!     .await
//! })
//! .await
//! # }
//! ```
//!
//! `VLFT_KEEP=1` leaves the namespaces. Dumps go to `out/<test>/` in the repository.

pub mod audit;
pub mod chart;
mod client;
mod cluster;
pub mod dashboards;
pub mod digits;
mod dump;
pub mod jobs;
mod namespace;
mod nodes;
pub mod operator;
mod pods;
pub mod prometheus;
pub mod runs;
mod targets;
mod wait;

pub use client::kube_client;
pub use cluster::cluster_command;
pub use dump::dump_namespace;
pub use namespace::{TestNamespace, with_temp_ns, with_temp_ns_exclusive};
pub use nodes::{advertise, cordon, evict, label, wait_node_ready, worker_nodes};
pub use pods::{
    BUSYBOX, finished, logs, restricted_container, restricted_pod, restricted_pod_spec,
};
pub use wait::wait_for;
