//! The rules: each looks at the [`Input`](super::decide::Input) and either says nothing or
//! decides, with the reason that conditions, events and metrics then carry. No client, no
//! clock.

pub mod admission;
pub mod deadline;
pub mod failure;
pub mod leftovers;
pub mod node_lost;
pub mod oom;
pub mod pod_failure;
pub mod queue;
pub mod retry;
pub mod startup;
pub mod success;
pub mod suspend;
pub mod ttl;
