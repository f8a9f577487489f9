//! Safe wrappers over the libtorch calls that tch lacks: the project's only `unsafe` code.
//!
//! C++ exceptions come back as [`Error`] with libtorch's own message.

mod autograd;
mod collectives;
mod context;
#[cfg(feature = "cuda")]
mod cuda;
mod error;
mod mapped;
mod memory;
mod optimizer;
mod storage;

pub use autograd::{backward, set_grad};
pub use collectives::{Collective, ProcessGroup, Reduction, Store, Work};
pub use context::{cpu_capability, set_deterministic, torch_version};
#[cfg(feature = "cuda")]
pub use cuda::{CudaMemory, cuda_empty_cache, cuda_memory, cuda_reset_peak};
pub use error::{Error, Result, is_out_of_memory};
pub use mapped::MappedFile;
pub use memory::{
    CpuMemory, cpu_memory, install_cpu_allocator, reset_cpu_peak, set_cpu_memory_limit,
};
pub use optimizer::{AdamW, AdamWSlice, fused_adamw_};
pub use storage::{release_storage, restore_storage};
