//! What a spec means where it leaves something open: chosen here, for operator and trainer.

use crate::finetune::VLFineTuneSpec;
use crate::training::Precision;
use crate::workers::Device;

/// Which towers a method acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainedTowers {
    pub vision: bool,
    pub projector: bool,
    pub language: bool,
}

/// BFloat16Mixed on GPUs and Float32 on CPUs, unless the spec says.
pub fn precision(spec: &VLFineTuneSpec) -> Precision {
    match (spec.precision, spec.workers.device) {
        (Some(precision), _) => precision,
        (None, Device::Cpu) => Precision::Float32,
        (None, Device::Gpu) => Precision::BFloat16Mixed,
    }
}

/// Whether activations are recomputed: on GPUs, unless the spec says. On a CPU memory is plenty
/// and compute is not.
pub fn gradient_checkpointing(spec: &VLFineTuneSpec) -> bool {
    let on_gpu = spec.workers.device == Device::Gpu;
    spec.training.gradient_checkpointing.unwrap_or(on_gpu)
}

/// All towers with `full`, the language model alone otherwise, unless the spec says.
pub fn towers(spec: &VLFineTuneSpec) -> TrainedTowers {
    match &spec.method.towers {
        Some(towers) => TrainedTowers {
            vision: towers.vision.train,
            projector: towers.projector.train,
            language: towers.language.train,
        },
        None => {
            let all = spec.method.full.is_some();
            TrainedTowers {
                vision: all,
                projector: all,
                language: true,
            }
        }
    }
}

/// Bytes of one element: of what the optimizer updates, and of what units compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindBytes {
    pub storage: i64,
    pub compute: i64,
}

/// Sizes of the kinds of a precision.
pub fn kind_bytes(precision: Precision) -> KindBytes {
    let (storage, compute) = match precision {
        Precision::Float32 => (4, 4),
        Precision::BFloat16Mixed | Precision::Float16Mixed => (4, 2),
        Precision::BFloat16 => (2, 2),
    };
    KindBytes { storage, compute }
}
