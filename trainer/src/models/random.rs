//! First values of a new model's tensors: the same seed and names give the same bytes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use safetensors::{Dtype, View};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// One float32 tensor of a new model.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomTensor {
    pub name: String,
    pub shape: Vec<usize>,
    fill: Fill,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fill {
    Zeros,
    Ones,
    Normal { std: f64 },
}

impl RandomTensor {
    /// Normally distributed around 0.
    pub fn normal(name: &str, shape: &[usize], std: f64) -> Self {
        Self::new(name, shape, Fill::Normal { std })
    }

    /// A vector of ones.
    pub fn ones(name: &str, len: usize) -> Self {
        Self::new(name, &[len], Fill::Ones)
    }

    /// A vector of zeros.
    pub fn zeros(name: &str, len: usize) -> Self {
        Self::new(name, &[len], Fill::Zeros)
    }

    fn new(name: &str, shape: &[usize], fill: Fill) -> Self {
        Self {
            name: name.to_owned(),
            shape: shape.to_vec(),
            fill,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its values in row-major order. They depend on seed and name alone, so that a model keeps
    /// the rest of its values when one layer changes.
    fn values(&self, seed: u64) -> Vec<f32> {
        match self.fill {
            Fill::Zeros => vec![0.0; self.len()],
            Fill::Ones => vec![1.0; self.len()],
            Fill::Normal { std } => normal_values(self.len(), std, &self.name, seed),
        }
    }
}

/// Writes the tensors as one safetensors file that transformers reads. A storage error names the
/// file.
pub fn write_safetensors(path: &Path, tensors: &[RandomTensor], seed: u64) -> Result<()> {
    let views = tensors
        .iter()
        .map(|tensor| (tensor.name.clone(), Values { tensor, seed }));
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path)
        .map_err(|error| Error::Storage(format!("{}: {error}", path.display())))
}

/// A tensor whose values are made when they are written.
struct Values<'a> {
    tensor: &'a RandomTensor,
    seed: u64,
}

impl View for Values<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.tensor.values(self.seed);
        Cow::Owned(
            values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        )
    }

    fn data_len(&self) -> usize {
        self.tensor.len() * size_of::<f32>()
    }
}

/// Box-Muller over ChaCha8 keyed by seed and name.
fn normal_values(len: usize, std: f64, name: &str, seed: u64) -> Vec<f32> {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(name.as_bytes());
    let mut rng = ChaCha8Rng::from_seed(hash.finalize().into());
    let mut values = Vec::with_capacity(len + 1);
    while values.len() < len {
        let radius = std * (-2.0 * (1.0 - unit(&mut rng)).ln()).sqrt();
        let angle = std::f64::consts::TAU * unit(&mut rng);
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(len);
    values
}

/// Uniform in `0..1`, 53 bits.
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_values_have_their_moments_and_depend_on_seed_and_name() {
        let values = normal_values(40_001, 0.02, "a.weight", 1);
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / 40_001.0;
        let square = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 40_001.0;
        assert!(mean.abs() < 5e-4, "{mean}");
        assert!((square.sqrt() - 0.02).abs() < 3e-4, "{}", square.sqrt());
        assert_eq!(values, normal_values(40_001, 0.02, "a.weight", 1));
        assert_ne!(values, normal_values(40_001, 0.02, "b.weight", 1));
        assert_ne!(values, normal_values(40_001, 0.02, "a.weight", 2));
    }
}
