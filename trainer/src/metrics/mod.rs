//! What the outside sees of a run: Prometheus metrics, progress, termination report.

mod gpu;
mod log_tail;
mod memory;
mod registry;
mod report;
mod server;
mod throughput;

pub use gpu::{GpuMonitor, GpuSample};
pub use log_tail::LogTail;
pub use memory::{ProcessMemory, process_memory};
pub use registry::{Labels, TrainerMetrics};
pub use report::write_report;
pub use server::{Published, Server};
pub use throughput::{StepSample, Throughput, Window};
