//! How much memory libtorch's CPU tensors take.

use std::ffi::{c_char, c_int};

use crate::error::{Result, checked};

unsafe extern "C" {
    fn vlft_cpu_allocator_install(message: *mut *mut c_char) -> c_int;
    fn vlft_cpu_memory(current: *mut i64, peak: *mut i64, allocations: *mut i64);
    fn vlft_cpu_memory_reset_peak();
    fn vlft_cpu_memory_limit(bytes: i64);
}

/// Bytes of CPU tensors since [`install_cpu_allocator`]; mapped files are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuMemory {
    pub current: i64,
    /// Highest `current` since start or [`reset_cpu_peak`].
    pub peak: i64,
    /// Number of allocations so far.
    pub allocations: i64,
}

/// Counts CPU tensor memory from now on. Call once, before the first tensor.
pub fn install_cpu_allocator() -> Result<()> {
    // SAFETY: installs a static allocator; tensors made before keep their own deleter.
    checked(|m| unsafe { vlft_cpu_allocator_install(m) })
}

pub fn cpu_memory() -> CpuMemory {
    let mut memory = CpuMemory::default();
    // SAFETY: three valid places to write to.
    unsafe {
        vlft_cpu_memory(
            &raw mut memory.current,
            &raw mut memory.peak,
            &raw mut memory.allocations,
        );
    }
    memory
}

pub fn reset_cpu_peak() {
    // SAFETY: touches atomics only.
    unsafe { vlft_cpu_memory_reset_peak() }
}

/// Beyond this many bytes allocations fail as out of memory; 0 lifts the limit.
pub fn set_cpu_memory_limit(bytes: i64) {
    // SAFETY: touches atomics only.
    unsafe { vlft_cpu_memory_limit(bytes) }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::is_out_of_memory;

    // One test: the counters are process-wide, and other tests allocate little.
    #[test]
    fn counts_peak_and_refuses_beyond_the_limit() -> Result<()> {
        const MIB: i64 = 1 << 20;
        install_cpu_allocator()?;
        let before = cpu_memory();
        let kept = Tensor::zeros([64 * MIB / 4], (Kind::Float, Device::Cpu));
        drop(Tensor::zeros([32 * MIB / 4], (Kind::Float, Device::Cpu)));
        let after = cpu_memory();
        let (grown, peak) = (after.current - before.current, after.peak - before.current);
        assert!((64 * MIB..66 * MIB).contains(&grown), "{grown}");
        assert!((96 * MIB..98 * MIB).contains(&peak), "{peak}");
        drop(kept);
        reset_cpu_peak();
        assert!(cpu_memory().peak < before.current + MIB);

        set_cpu_memory_limit(cpu_memory().current + 256 * MIB);
        let refused = Tensor::f_zeros([512 * MIB], (Kind::Uint8, Device::Cpu));
        set_cpu_memory_limit(0);
        let message = refused.unwrap_err().to_string();
        assert!(is_out_of_memory(&message), "{message}");
        Ok(())
    }
}
