//! Fused AdamW on flat slices, CPU and CUDA.

use std::ffi::{c_char, c_int, c_void};

use tch::Tensor;

use crate::error::{Result, checked, handle};

/// Hyperparameters of one call.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct AdamW {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub weight_decay: f64,
    pub eps: f64,
}

/// One flat slice with its state; all five on one device, the first four `[N]` of one kind.
#[derive(Debug)]
pub struct AdamWSlice<'a> {
    pub parameter: &'a Tensor,
    pub grad: &'a Tensor,
    pub exp_avg: &'a Tensor,
    pub exp_avg_sq: &'a Tensor,
    /// float32 scalar, already advanced to the number of this step (from 1).
    pub step: &'a Tensor,
}

unsafe extern "C" {
    fn vlft_fused_adamw(
        tensors: *const *mut c_void,
        count: usize,
        scalars: *const AdamW,
        grad_scale: *mut c_void,
        found_inf: *mut c_void,
        message: *mut *mut c_char,
    ) -> c_int;
}

/// Updates parameters and moments in place (`torch._fused_adamw_`). With `scale`
/// `(grad_scale, found_inf)`, both float32 scalars, gradients are divided by the first and
/// nothing changes if the second is 1.
pub fn fused_adamw_(
    slices: &[AdamWSlice],
    settings: AdamW,
    scale: Option<(&Tensor, &Tensor)>,
) -> Result<()> {
    let tensors: Vec<_> = slices
        .iter()
        .flat_map(|s| [s.parameter, s.grad, s.exp_avg, s.exp_avg_sq, s.step].map(handle))
        .collect();
    let null = std::ptr::null_mut();
    let (grad_scale, found_inf) =
        scale.map_or((null, null), |(scale, inf)| (handle(scale), handle(inf)));
    // SAFETY: five handles of live tensors a slice; libtorch checks shapes, kinds and devices.
    tch::no_grad(|| {
        checked(|m| unsafe {
            let scalars = &raw const settings;
            vlft_fused_adamw(
                tensors.as_ptr(),
                slices.len(),
                scalars,
                grad_scale,
                found_inf,
                m,
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    /// The update written out, AdamW (Loshchilov and Hutter), bias-corrected.
    fn reference(w: f64, g: f64, s: AdamW) -> f64 {
        let (m, v) = ((1.0 - s.beta1) * g, (1.0 - s.beta2) * g * g);
        let (mh, vh) = (m / (1.0 - s.beta1), v / (1.0 - s.beta2));
        w * (1.0 - s.lr * s.weight_decay) - s.lr * mh / (vh.sqrt() + s.eps)
    }

    #[test]
    fn first_step_equals_the_formula() -> Result<()> {
        let options = (Kind::Double, Device::Cpu);
        let settings = AdamW {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.01,
            eps: 1e-8,
        };
        let w = Tensor::from_slice(&[1.0f64, -2.0, 0.5]);
        let g = Tensor::from_slice(&[0.3f64, 0.0, -4.0]);
        let (m, v) = (Tensor::zeros([3], options), Tensor::zeros([3], options));
        let step = Tensor::from(1.0f32);
        let expected: Vec<f64> = [(1.0, 0.3), (-2.0, 0.0), (0.5, -4.0)]
            .iter()
            .map(|&(w, g)| reference(w, g, settings))
            .collect();
        let slice = AdamWSlice {
            parameter: &w,
            grad: &g,
            exp_avg: &m,
            exp_avg_sq: &v,
            step: &step,
        };
        fused_adamw_(&[slice], settings, None)?;
        for (got, want) in Vec::<f64>::try_from(&w).unwrap().iter().zip(expected) {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
        Ok(())
    }

    #[test]
    fn a_found_infinity_skips_the_update() -> Result<()> {
        let options = (Kind::Float, Device::Cpu);
        let settings = AdamW {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.0,
            eps: 1e-8,
        };
        let w = Tensor::from_slice(&[1.0f32]);
        let g = Tensor::from_slice(&[f32::INFINITY]);
        let (m, v) = (Tensor::zeros([1], options), Tensor::zeros([1], options));
        let step = Tensor::from(1.0f32);
        let slice = AdamWSlice {
            parameter: &w,
            grad: &g,
            exp_avg: &m,
            exp_avg_sq: &v,
            step: &step,
        };
        let (scale, inf) = (Tensor::from(1.0f32), Tensor::from(1.0f32));
        fused_adamw_(&[slice], settings, Some((&scale, &inf)))?;
        assert_eq!(w.double_value(&[0]), 1.0);
        Ok(())
    }
}
