//! The device that was promised, or a clear error: never another one in silence.

use vlft_crds::workers::{Device, Workers};

use crate::error::{Error, Result};

/// Fails unless the machine has the GPUs that `workers` asks for.
pub(super) fn check(workers: &Workers) -> Result<()> {
    let promised = workers.gpus_per_replica();
    let found = if tch::Cuda::is_available() {
        tch::Cuda::device_count()
    } else {
        0
    };
    compare(workers.device, promised, found)
}

fn compare(device: Device, promised: i64, found: i64) -> Result<()> {
    if device == Device::Cpu || found >= promised {
        return Ok(());
    }
    let build = if cfg!(feature = "cuda") {
        "check the NVIDIA driver, the device plugin and `trainer doctor`"
    } else {
        "this trainer is built for CPUs: use the CUDA image"
    };
    Err(Error::User(format!(
        "spec.workers: {promised} GPU(s) were promised, libtorch finds {found}; {build}, or set \
         spec.workers.device: CPU (`--device CPU`)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_that_are_missing_are_an_error_and_no_fallback() {
        compare(Device::Cpu, 0, 0).unwrap();
        compare(Device::Gpu, 2, 2).unwrap();
        let message = compare(Device::Gpu, 2, 1).unwrap_err().to_string();
        for part in ["spec.workers", "2 GPU", "finds 1", "device: CPU"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
