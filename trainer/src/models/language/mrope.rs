//! Rotary angles over several position axes (time, height, width).

use tch::{Kind, Tensor};

use crate::error::Result;

/// Angles `[T, D/2]` float32 from positions `[A, T]`: section `i` of the frequencies turns by
/// the positions of axis `i mod A`. `sections` sum to D/2; one section is plain rotary.
pub fn mrope_angles(
    positions_at: &Tensor,
    inverse_frequencies: &Tensor,
    sections: &[i64],
) -> Result<Tensor> {
    let positions_at = positions_at.f_to_kind(Kind::Float)?;
    let axes = positions_at.size2()?.0.max(1);
    let mut parts = Vec::with_capacity(sections.len());
    let mut start = 0;
    for (axis, length) in (0..axes).cycle().zip(sections) {
        let frequencies = inverse_frequencies.f_narrow(0, start, *length)?;
        let positions_t1 = positions_at.f_select(0, axis)?.f_unsqueeze(1)?;
        parts.push(positions_t1.f_mul(&frequencies)?);
        start += length;
    }
    Ok(Tensor::f_cat(&parts, 1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_section_follows_its_axis() {
        let positions = Tensor::from_slice(&[1i64, 2, 10, 20, 100, 200]).view([3, 2]);
        let frequencies = Tensor::from_slice(&[1.0f32, 0.5, 0.25, 0.125]);
        let angles = mrope_angles(&positions, &frequencies, &[1, 2, 1]).unwrap();
        let expected = [1.0f32, 5.0, 2.5, 12.5, 2.0, 10.0, 5.0, 25.0];
        assert_eq!(Vec::<f32>::try_from(angles.view(-1)).unwrap(), expected);
    }
}
