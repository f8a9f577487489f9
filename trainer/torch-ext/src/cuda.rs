//! CUDA memory, from PyTorch's caching allocator and the driver.

use std::ffi::{c_char, c_int};

use crate::error::{Result, checked};

/// Bytes on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct CudaMemory {
    /// In tensors, now and at most since [`cuda_reset_peak`].
    pub allocated: i64,
    pub peak_allocated: i64,
    /// Held by the caching allocator, now and at most.
    pub reserved: i64,
    pub peak_reserved: i64,
    /// As the driver sees it, all processes together.
    pub free: i64,
    pub total: i64,
}

unsafe extern "C" {
    fn vlft_cuda_memory(device: i8, out: *mut CudaMemory, message: *mut *mut c_char) -> c_int;
    fn vlft_cuda_reset_peak(device: i8, message: *mut *mut c_char) -> c_int;
    fn vlft_cuda_empty_cache(message: *mut *mut c_char) -> c_int;
}

pub fn cuda_memory(device: i8) -> Result<CudaMemory> {
    let mut memory = CudaMemory::default();
    // SAFETY: a valid place to write to; an unknown device is an exception.
    checked(|m| unsafe { vlft_cuda_memory(device, &raw mut memory, m) })?;
    Ok(memory)
}

pub fn cuda_reset_peak(device: i8) -> Result<()> {
    // SAFETY: an unknown device is an exception.
    checked(|m| unsafe { vlft_cuda_reset_peak(device, m) })
}

/// Gives cached blocks back to the driver.
pub fn cuda_empty_cache() -> Result<()> {
    // SAFETY: no arguments.
    checked(|m| unsafe { vlft_cuda_empty_cache(m) })
}
