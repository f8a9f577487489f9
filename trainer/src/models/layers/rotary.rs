//! Rotary position embedding.

use tch::{Device, Kind, Tensor};

use crate::engine::Rotary;
use crate::error::Result;

/// `theta^(-2i/size)` for `i < size / 2`, float32, computed as `transformers` does.
pub fn inverse_frequencies(size: i64, theta: f64) -> Result<Tensor> {
    let even = Tensor::f_arange_start_step(0, size, 2, (Kind::Float, Device::Cpu))?;
    #[allow(clippy::cast_precision_loss)]
    let exponents = even.f_div_scalar(size as f64)?;
    Ok(Tensor::f_pow_scalar(theta, &exponents)?.f_reciprocal()?)
}

/// Cosines and sines of `[T, D/2]` float32 angles, repeated to `[T, D]`. The sines of the first
/// half are negated, which saves [`rotate`] a negation per use.
pub fn rotary(angles_th: &Tensor, kind: Kind, device: Device) -> Result<Rotary> {
    let (cos, sin) = (angles_th.f_cos()?, angles_th.f_sin()?);
    let cos_td = Tensor::f_cat(&[&cos, &cos], 1)?;
    let signed_sin_td = Tensor::f_cat(&[&sin.f_neg()?, &sin], 1)?;
    Ok(Rotary {
        cos_td: cos_td.f_to_device(device)?.f_to_kind(kind)?,
        signed_sin_td: signed_sin_td.f_to_device(device)?.f_to_kind(kind)?,
    })
}

/// Rotates pairs `(i, i + D/2)` of `[T, N, D]`: `x cos + [-x2, x1] sin`.
pub fn rotate(x_tnd: &Tensor, rotary: &Rotary) -> Result<Tensor> {
    let half = rotary.cos_td.size().last().copied().unwrap_or(0) / 2;
    let swapped = x_tnd.f_roll([half].as_slice(), [-1i64].as_slice())?;
    let cos = rotary.cos_td.f_unsqueeze(1)?;
    let sin = rotary.signed_sin_td.f_unsqueeze(1)?;
    Ok(x_tnd.f_mul(&cos)?.f_add(&swapped.f_mul(&sin)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_is_the_complex_product() {
        let angles = Tensor::from_slice(&[0.5f32, 1.5]).view([1, 2]);
        let rotary = rotary(&angles, Kind::Double, Device::Cpu).unwrap();
        let x = Tensor::from_slice(&[1.0f64, 2.0, 3.0, 4.0]).view([1, 1, 4]);
        let got = Vec::<f64>::try_from(rotate(&x, &rotary).unwrap().view(-1)).unwrap();
        // Pairs (1, 3) and (2, 4) turned by 0.5 and 1.5.
        let expected = [
            0.5f64.cos() - 3.0 * 0.5f64.sin(),
            2.0 * 1.5f64.cos() - 4.0 * 1.5f64.sin(),
            3.0 * 0.5f64.cos() + 0.5f64.sin(),
            4.0 * 1.5f64.cos() + 2.0 * 1.5f64.sin(),
        ];
        for (g, e) in got.iter().zip(expected) {
            assert!((g - e).abs() < 1e-6, "{got:?} {expected:?}");
        }
    }

    #[test]
    fn frequencies_fall_geometrically() {
        let got = Vec::<f32>::try_from(inverse_frequencies(4, 100.0).unwrap()).unwrap();
        assert_eq!(got, [1.0, 0.1]);
    }
}
