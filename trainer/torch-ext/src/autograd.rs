//! Backward with output gradients, and presetting `.grad`.

use std::ffi::{c_char, c_int, c_void};

use tch::Tensor;

use crate::error::{Result, checked, handle};

unsafe extern "C" {
    fn vlft_backward(
        outputs: *const *mut c_void,
        grads: *const *mut c_void,
        count: usize,
        message: *mut *mut c_char,
    ) -> c_int;
    fn vlft_set_grad(leaf: *mut c_void, grad: *mut c_void, message: *mut *mut c_char) -> c_int;
}

/// Adds the vector-Jacobian product of each `(output, gradient)` pair into the `.grad` of every
/// leaf below, and frees the graph. A gradient has its output's shape and kind.
pub fn backward(outputs: &[(&Tensor, &Tensor)]) -> Result<()> {
    let roots: Vec<_> = outputs.iter().map(|(output, _)| handle(output)).collect();
    let seeds: Vec<_> = outputs.iter().map(|(_, grad)| handle(grad)).collect();
    // SAFETY: both arrays hold `len` handles of live tensors.
    checked(|m| unsafe { vlft_backward(roots.as_ptr(), seeds.as_ptr(), roots.len(), m) })
}

/// Makes `grad` the leaf's `.grad`, so that autograd adds into it in place; `None` clears it.
/// The kinds may differ (float32 gradient under a bfloat16 leaf), the shapes may not.
pub fn set_grad(leaf: &Tensor, grad: Option<&Tensor>) -> Result<()> {
    let grad = grad.map_or(std::ptr::null_mut(), handle);
    // SAFETY: handles of live tensors, or null for "clear".
    checked(|m| unsafe { vlft_set_grad(handle(leaf), grad, m) })
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::*;
    use crate::Error;

    #[test]
    fn backward_adds_into_views_of_a_flat_gradient() -> Result<()> {
        let flat = Tensor::from_slice(&[1.0f64, 2.0, 3.0, 4.0]);
        let grads = Tensor::zeros([4], (Kind::Double, tch::Device::Cpu));
        let leaf = flat.narrow(0, 1, 2).detach().set_requires_grad(true);
        set_grad(&leaf, Some(&grads.narrow(0, 1, 2)))?;
        for _ in 0..2 {
            let out = &leaf * &leaf;
            backward(&[(&out, &Tensor::from_slice(&[1.0f64, 10.0]))])?;
        }
        assert_eq!(
            Vec::<f64>::try_from(&grads).unwrap(),
            [0.0, 8.0, 120.0, 0.0]
        );
        Ok(())
    }

    #[test]
    fn a_float_gradient_collects_under_a_bfloat16_leaf() -> Result<()> {
        let leaf = Tensor::from_slice(&[1.0f32])
            .to_kind(Kind::BFloat16)
            .set_requires_grad(true);
        let grad = Tensor::from_slice(&[1e-3f32]);
        set_grad(&leaf, Some(&grad))?;
        backward(&[(
            &(&leaf * 1.0),
            &Tensor::from_slice(&[1.0f32]).to_kind(Kind::BFloat16),
        )])?;
        assert_eq!(grad.kind(), Kind::Float);
        assert_eq!(grad.double_value(&[0]), f64::from(1.0f32 + 1e-3f32));
        Ok(())
    }

    #[test]
    fn a_wrong_shape_is_an_error_with_its_reason() {
        let leaf = Tensor::from_slice(&[1.0f32, 2.0]).set_requires_grad(true);
        let error = set_grad(&leaf, Some(&Tensor::from_slice(&[0.0f32]))).unwrap_err();
        assert!(
            matches!(&error, Error::Torch(m) if m.contains("leaf has shape [2]")),
            "{error}"
        );
        let out = Tensor::from_slice(&[1.0f32]);
        assert!(
            backward(&[(&out, &out)]).is_err(),
            "no graph below the output"
        );
    }
}
