//! LoRA updates as changes of full weights.

use std::collections::HashMap;

use tch::{Kind, Tensor};

use super::Trained;
use crate::error::{Error, Result};
use crate::models::hf::{PEFT_PREFIX, module_on_disk};
use crate::models::{Method, Weights};

pub(super) const A: &str = ".lora_A.weight";
pub(super) const B: &str = ".lora_B.weight";

/// `scale * B A`, to be added to a weight `[out, in]`.
pub(super) struct Delta {
    a: Tensor,
    b: Tensor,
    scale: f64,
}

impl Delta {
    /// The merged weight, at least in float32; the caller casts it back.
    pub fn applied_to(&self, weight: &Tensor) -> Result<Tensor> {
        let kind = match weight.kind() {
            Kind::Double => Kind::Double,
            _ => Kind::Float,
        };
        let _guard = tch::no_grad_guard();
        let host = |tensor: &Tensor| tensor.f_to_device(tch::Device::Cpu)?.f_to_kind(kind);
        let update = host(&self.b)?.f_matmul(&host(&self.a)?)?;
        Ok(host(weight)?.f_add(&update.f_mul_scalar(self.scale)?)?)
    }
}

/// The update of each weight that has an adapter, by the weight's name on disk. Empty without
/// LoRA.
pub(super) fn deltas(
    method: &Method,
    trained: &Trained,
    source: &Weights,
) -> Result<HashMap<String, Delta>> {
    let Method::Lora(lora) = method else {
        return Ok(HashMap::new());
    };
    let mut deltas = HashMap::new();
    for (name, a) in trained {
        let Some(module) = name
            .strip_suffix(A)
            .and_then(|m| m.strip_prefix(PEFT_PREFIX))
        else {
            continue;
        };
        let b = trained.get(&format!("{PEFT_PREFIX}{module}{B}"));
        let on_disk = module_on_disk(source, module);
        let (Some(b), Some(on_disk)) = (b, on_disk) else {
            return Err(Error::Bug(format!("`{name}` belongs to no weight")));
        };
        let delta = Delta {
            a: a.shallow_clone(),
            b: b.shallow_clone(),
            scale: lora.alpha / lora.rank as f64,
        };
        deltas.insert(format!("{on_disk}.weight"), delta);
    }
    Ok(deltas)
}
