//! `--dtype` and `--device`, for commands that run a model without a spec.

use tch::Device;

use crate::engine::{EngineOptions, Precision, Recompute};
use crate::error::{Error, Result};

/// What a model computes in, and where
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ComputeArgs {
    /// Number format: Float32, BFloat16, BFloat16Mixed, or Float64 for comparisons
    #[arg(long, default_value = "Float32", value_parser = precision)]
    dtype: Precision,
    /// CPU or GPU
    #[arg(long, default_value = "CPU", value_parser = device)]
    device: Device,
}

impl ComputeArgs {
    /// Engine options without recompute. A user error where a GPU is asked for and none is there:
    /// nothing falls back in silence.
    pub(super) fn engine_options(&self) -> Result<EngineOptions> {
        if self.device.is_cuda() && !tch::Cuda::is_available() {
            return Err(Error::User(
                "--device GPU: this machine or this build has no CUDA device; use --device CPU"
                    .into(),
            ));
        }
        Ok(EngineOptions {
            precision: self.dtype,
            device: self.device,
            recompute: Recompute::default(),
            loss_chunk: None,
            seed: 0,
        })
    }
}

fn precision(name: &str) -> Result<Precision, String> {
    match name {
        "Float64" => Ok(Precision::Float64),
        "Float32" => Ok(Precision::Float32),
        "BFloat16Mixed" => Ok(Precision::BFloat16Mixed),
        "BFloat16" => Ok(Precision::BFloat16),
        _ => Err("is none of Float32, BFloat16, BFloat16Mixed, Float64".into()),
    }
}

fn device(name: &str) -> Result<Device, String> {
    match name.to_ascii_uppercase().as_str() {
        "CPU" => Ok(Device::Cpu),
        "GPU" => Ok(Device::Cuda(0)),
        _ => Err("is neither CPU nor GPU".into()),
    }
}
