//! Rotary positions: frequencies, and which position axis turns which of them.

use tch::{Kind, Tensor};

use crate::error::Result;
use crate::models::config::{Section, limits};
use crate::models::layers::inverse_frequencies;

/// How a decoder's heads turn with positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Size of a head.
    pub size: i64,
    pub theta: f64,
    pub scaling: Scaling,
    pub axes: Axes,
}

/// What is done to the frequencies for longer contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    None,
    /// All are divided.
    Linear {
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are divided, those between blended.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
}

/// Which of a token's positions turns which frequency.
#[derive(Debug, Clone, PartialEq)]
pub enum Axes {
    /// One position.
    One,
    /// Sections of frequencies, the first by time, the second by row, the third by column
    /// (Qwen2-VL).
    Chunked(Vec<i64>),
    /// Time, row and column by turns; where row's and column's share ends, time alone (Qwen3-VL).
    Interleaved(Vec<i64>),
}

impl Rope {
    /// Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (4).
    pub fn read(s: Section, size: i64, theta: f64) -> Result<Self> {
        let scaling = s.part("rope_parameters").or_else(|| s.part("rope_scaling"));
        let flat = s.positive_or("rope_theta", MAX_THETA, theta)?;
        let Some(rope) = scaling else {
            return Ok(Self::one(size, flat, Scaling::None));
        };
        Ok(Self {
            size,
            theta: rope.positive_or("rope_theta", MAX_THETA, flat)?,
            scaling: Scaling::read(rope)?,
            axes: Axes::read(rope, size)?,
        })
    }

    /// Gemma 3's two: for full attention and for layers with a window. transformers 5 nests
    /// them in `rope_parameters`; 4 scales the former alone.
    pub fn gemma3(s: Section, size: i64) -> Result<[Self; 2]> {
        let nested = s.part("rope_parameters");
        let of = |kind: &'static str| nested.and_then(|both| both.part(kind));
        if let (Some(full), Some(local)) = (of("full_attention"), of("sliding_attention")) {
            let read = |part: Section, theta: f64| -> Result<Self> {
                let theta = part.positive_or("rope_theta", MAX_THETA, theta)?;
                Ok(Self::one(size, theta, Scaling::read(part)?))
            };
            return Ok([read(full, 1e6)?, read(local, 1e4)?]);
        }
        let local = s.positive_or("rope_local_base_freq", MAX_THETA, 1e4)?;
        Ok([
            Self::read(s, size, 1e6)?,
            Self::one(size, local, Scaling::None),
        ])
    }

    fn one(size: i64, theta: f64, scaling: Scaling) -> Self {
        Self {
            size,
            theta,
            scaling,
            axes: Axes::One,
        }
    }

    /// The same sections, taken by turns.
    pub fn interleaved(self) -> Self {
        let axes = match self.axes {
            Axes::Chunked(sections) => Axes::Interleaved(sections),
            other => other,
        };
        Self { axes, ..self }
    }

    /// Number of position axes.
    pub fn axes(&self) -> i64 {
        match self.axes {
            Axes::One => 1,
            Axes::Chunked(_) | Axes::Interleaved(_) => 3,
        }
    }

    /// `[D/2]` float32 frequencies.
    pub fn frequencies(&self) -> Result<Tensor> {
        self.scaling
            .apply(&inverse_frequencies(self.size, self.theta)?)
    }

    /// `[D/2]` int64: the axis that turns each frequency.
    pub fn axis_of_frequency(&self) -> Vec<i64> {
        let half = self.size / 2;
        match &self.axes {
            Axes::One => vec![0; usize::try_from(half).unwrap_or(0)],
            Axes::Chunked(sections) => {
                let axes = (0..3).cycle().zip(sections);
                axes.flat_map(|(axis, length)| (0..*length).map(move |_| axis))
                    .collect()
            }
            Axes::Interleaved(sections) => {
                let share = |axis: usize| 3 * sections.get(axis).copied().unwrap_or(0);
                let axis = |i: i64| match i % 3 {
                    1 if i < share(1) => 1,
                    2 if i < share(2) => 2,
                    _ => 0,
                };
                (0..half).map(axis).collect()
            }
        }
    }
}

/// Above every published base.
const MAX_THETA: f64 = 1e12;

impl Scaling {
    fn read(s: Section) -> Result<Self> {
        let key = if s.get("rope_type").is_some() {
            "rope_type"
        } else {
            "type"
        };
        let factor = || s.positive_or("factor", 1e6, 1.0);
        match s.text_or(key, "default")? {
            "default" | "mrope" => Ok(Self::None),
            "linear" => Ok(Self::Linear { factor: factor()? }),
            "llama3" => Ok(Self::Llama3 {
                factor: factor()?,
                low: s.positive_or("low_freq_factor", 1e6, 1.0)?,
                high: s.positive_or("high_freq_factor", 1e6, 4.0)?,
                original: s.positive_or("original_max_position_embeddings", 1e9, 8192.0)?,
            }),
            other => Err(s.error(
                key,
                &format!("is {other}; supported are default, linear, llama3 and mrope"),
            )),
        }
    }

    fn apply(self, frequencies: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(frequencies.shallow_clone()),
            Self::Linear { factor } => Ok(frequencies.f_div_scalar(factor)?),
            Self::Llama3 {
                factor,
                low,
                high,
                original,
            } => {
                // In float32 throughout, as the reference computes them.
                let (longest, shortest) = (original / low, original / high);
                let tau = 2.0 * std::f64::consts::PI;
                let lengths = frequencies.f_reciprocal()?.f_mul_scalar(tau)?;
                let divided = frequencies.f_div_scalar(factor)?;
                let scaled = divided.f_where_self(&lengths.f_gt(longest)?, frequencies)?;
                let smooth = lengths.f_reciprocal()?.f_mul_scalar(original)?;
                let smooth = smooth.f_sub_scalar(low)?.f_div_scalar(high - low)?;
                let rest = smooth.f_neg()?.f_add_scalar(1.0)?;
                let blended = rest
                    .f_mul(&scaled)?
                    .f_div_scalar(factor)?
                    .f_add(&smooth.f_mul(&scaled)?)?;
                let between = lengths
                    .f_ge(shortest)?
                    .f_logical_and(&lengths.f_le(longest)?)?;
                Ok(blended.f_where_self(&between, &scaled)?)
            }
        }
    }
}

impl Axes {
    fn read(s: Section, size: i64) -> Result<Self> {
        let Some(sections) = s.integers("mrope_section")? else {
            return Ok(Self::One);
        };
        let half = size / 2;
        let fits = sections.len() == 3
            && sections.iter().all(|n| (1..=limits::WIDTH).contains(n))
            && sections.iter().sum::<i64>() == half;
        if !fits {
            let problem = format!(
                "is {sections:?}; it must be three positive integers that sum to half the head \
                 size, {half}"
            );
            return Err(s.error("mrope_section", &problem));
        }
        Ok(Self::Chunked(sections))
    }
}

/// Angles `[T, D/2]` float32 from positions `[A, T]`: frequency `i` turns by the positions of
/// axis `axis_h[i]`.
pub fn angles(positions_at: &Tensor, frequencies_h: &Tensor, axis_h: &[i64]) -> Result<Tensor> {
    let positions_ta = positions_at.f_to_kind(Kind::Float)?.f_tr()?;
    let chosen_th = positions_ta.f_index_select(1, &Tensor::f_from_slice(axis_h)?)?;
    Ok(chosen_th.f_mul(frequencies_h)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(axes: Axes) -> Rope {
        Rope {
            size: 16,
            theta: 1e4,
            scaling: Scaling::None,
            axes,
        }
    }

    #[test]
    fn each_section_follows_its_axis() {
        let positions = Tensor::from_slice(&[1i64, 2, 10, 20, 100, 200]).view([3, 2]);
        let frequencies = Tensor::from_slice(&[1.0f32, 0.5, 0.25, 0.125]);
        let axes = [0, 1, 1, 2];
        let angles = angles(&positions, &frequencies, &axes).unwrap();
        let expected = [1.0f32, 5.0, 2.5, 12.5, 2.0, 10.0, 5.0, 25.0];
        assert_eq!(Vec::<f32>::try_from(angles.view(-1)).unwrap(), expected);
    }

    #[test]
    fn interleaved_axes_take_turns_until_their_share_ends() {
        let axes = rope(Axes::Interleaved(vec![4, 2, 2])).axis_of_frequency();
        assert_eq!(axes, [0, 1, 2, 0, 1, 2, 0, 0]);
        let chunked = rope(Axes::Chunked(vec![2, 3, 3])).axis_of_frequency();
        assert_eq!(chunked, [0, 0, 1, 1, 1, 2, 2, 2]);
    }
}
