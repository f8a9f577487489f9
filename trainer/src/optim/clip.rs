//! Clipping by the global gradient norm, as `torch.nn.utils.clip_grad_norm_`.

use tch::{Kind, Tensor};

use crate::engine::FlatBuffer;
use crate::error::Result;

/// PyTorch's guard against a division by zero.
const EPSILON: f64 = 1e-6;

/// L2 norm over the gradients of all touched buffers; at least float32 inside, whatever the
/// gradients' kind. NaN or infinite if any gradient is.
pub fn grad_norm(buffers: &[FlatBuffer]) -> Result<f64> {
    let mut norms = Vec::new();
    for buffer in buffers.iter().filter(|buffer| buffer.touched) {
        let kind = match buffer.grad.kind() {
            Kind::Double => Kind::Double,
            _ => Kind::Float,
        };
        norms.push(
            buffer
                .grad
                .f_norm_scalaropt_dim_dtype(2.0, [0i64].as_slice(), false, kind)?,
        );
    }
    if norms.is_empty() {
        return Ok(0.0);
    }
    // One transfer from the device, however many buffers there are.
    let total = Tensor::f_stack(&norms, 0)?
        .f_to_kind(Kind::Double)?
        .f_norm()?;
    Ok(total.f_double_value(&[])?)
}

/// Scales gradients of global norm `norm` (from [`grad_norm`]) down to `max_norm`.
pub fn clip_grad_norm(buffers: &mut [FlatBuffer], norm: f64, max_norm: f64) -> Result<()> {
    let coefficient = max_norm / (norm + EPSILON);
    if coefficient < 1.0 {
        for buffer in buffers.iter_mut().filter(|buffer| buffer.touched) {
            let _ = buffer.grad.f_mul_scalar_(coefficient)?;
        }
    }
    Ok(())
}
