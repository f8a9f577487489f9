//! Memory and use of the process's GPU: the caching allocator's view and the driver's.

use nvml_wrapper::Nvml;

/// One reading; a part that cannot be read is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GpuSample {
    pub index: usize,
    /// Bytes of live tensors, now and at most.
    pub allocated: Option<i64>,
    pub peak: Option<i64>,
    /// Bytes held by the caching allocator.
    pub reserved: Option<i64>,
    /// Bytes used by all processes, and bytes there are.
    pub used: Option<i64>,
    pub total: Option<i64>,
    /// Share of time a kernel ran, from 0 to 1.
    pub utilization: Option<f64>,
}

/// Reads one GPU. NVML is loaded at run time; without it only the allocator is read.
#[derive(Debug)]
pub struct GpuMonitor {
    index: usize,
    nvml: Option<Nvml>,
}

impl GpuMonitor {
    /// For the GPU with this index, as libtorch counts.
    pub fn new(index: usize) -> Self {
        let nvml = Nvml::init()
            .inspect_err(|cause| tracing::warn!("no GPU utilisation metrics: NVML: {cause}"))
            .ok();
        Self { index, nvml }
    }

    pub fn sample(&self) -> GpuSample {
        let mut sample = GpuSample {
            index: self.index,
            ..GpuSample::default()
        };
        allocator(&mut sample);
        if let Some(nvml) = &self.nvml {
            driver(nvml, &mut sample);
        }
        sample
    }
}

fn driver(nvml: &Nvml, sample: &mut GpuSample) {
    let Ok(device) = u32::try_from(sample.index)
        .map_err(|_| ())
        .and_then(|index| nvml.device_by_index(index).map_err(|_| ()))
    else {
        return;
    };
    if let Ok(memory) = device.memory_info() {
        sample.used = i64::try_from(memory.used).ok();
        sample.total = i64::try_from(memory.total).ok();
    }
    if let Ok(utilization) = device.utilization_rates() {
        sample.utilization = Some(f64::from(utilization.gpu) / 100.0);
    }
}

#[cfg(feature = "cuda")]
fn allocator(sample: &mut GpuSample) {
    let Ok(index) = i8::try_from(sample.index) else {
        return;
    };
    match torch_ext::cuda_memory(index) {
        Ok(memory) => {
            sample.allocated = Some(memory.allocated);
            sample.peak = Some(memory.peak_allocated);
            sample.reserved = Some(memory.reserved);
            sample.total = Some(memory.total);
        }
        Err(cause) => tracing::debug!("CUDA memory: {cause}"),
    }
}

#[cfg(not(feature = "cuda"))]
fn allocator(_sample: &mut GpuSample) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_not_there_reads_as_absent() {
        let sample = GpuMonitor::new(4096).sample();
        assert_eq!(
            sample,
            GpuSample {
                index: 4096,
                ..GpuSample::default()
            }
        );
    }
}
