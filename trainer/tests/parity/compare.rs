//! Compares two safetensors files tensor by tensor and collects the largest differences.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use tch::{Kind, Tensor};

/// Largest `|ours - theirs| / |theirs|` (Frobenius norms) that passes.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance(pub f64);

/// What a row of the table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    Ids,
    Labels,
    Grid,
    Pixels,
    Logits,
    Loss,
    Gradients,
}

/// Differences found, worst first for each check.
#[derive(Debug, Default)]
pub struct Differences {
    pub worst: BTreeMap<Check, (f64, String)>,
    pub failures: Vec<String>,
}

impl Check {
    fn of(name: &str) -> Self {
        match name.rsplit('.').next() {
            _ if name.starts_with("grad.") => Self::Gradients,
            Some("input_ids") => Self::Ids,
            Some("labels") => Self::Labels,
            Some("image_grid_thw") => Self::Grid,
            Some("pixel_values") => Self::Pixels,
            Some("logits") => Self::Logits,
            Some("loss") => Self::Loss,
            _ => panic!("`{name}` is no tensor that the reference should hold"),
        }
    }

    /// Inputs must be equal to the bit, results within the tolerance.
    fn bound(self, tolerance: Tolerance) -> f64 {
        match self {
            Self::Ids | Self::Labels | Self::Grid | Self::Pixels => 0.0,
            Self::Logits | Self::Loss | Self::Gradients => tolerance.0,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Ids => "token ids",
            Self::Labels => "labels",
            Self::Grid => "image grids",
            Self::Pixels => "pixel values",
            Self::Logits => "logits",
            Self::Loss => "loss",
            Self::Gradients => "gradients",
        };
        f.pad(name)
    }
}

/// Every tensor of either file must be in both, of one shape, and within bounds.
pub fn compare(ours: &Path, theirs: &Path, tolerance: Tolerance) -> Differences {
    let (mut ours, theirs) = (read(ours), read(theirs));
    let mut found = Differences::default();
    for (name, expected) in theirs {
        match ours.remove(&name) {
            Some(got) => found.add(&name, &got, &expected, tolerance),
            None => found.failures.push(format!("{name}: missing")),
        }
    }
    found.failures.extend(
        ours.keys()
            .map(|name| format!("{name}: the reference has none")),
    );
    found
}

fn read(file: &Path) -> BTreeMap<String, Tensor> {
    let tensors = Tensor::read_safetensors(file);
    let tensors = tensors.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    tensors.into_iter().collect()
}

impl Differences {
    fn add(&mut self, name: &str, got: &Tensor, expected: &Tensor, tolerance: Tolerance) {
        if got.size() != expected.size() {
            let (got, expected) = (got.size(), expected.size());
            self.failures
                .push(format!("{name}: shape {got:?}, expected {expected:?}"));
            return;
        }
        let check = Check::of(name);
        let difference = relative_difference(got, expected);
        let bound = check.bound(tolerance);
        // Negated, so that NaN fails.
        if difference.is_nan() || difference > bound {
            self.failures
                .push(format!("{name}: {difference:.2e} > {bound:.0e}"));
        }
        let worst = self.worst.entry(check).or_insert((-1.0, String::new()));
        if difference > worst.0 || difference.is_nan() {
            *worst = (difference, name.to_owned());
        }
    }
}

/// Relative to the expected tensor's norm; absolute where that is zero.
pub fn relative_difference(got: &Tensor, expected: &Tensor) -> f64 {
    let (got, expected) = (got.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let norm = expected.norm().double_value(&[]);
    let difference = (got - expected).norm().double_value(&[]);
    if norm > 0.0 {
        difference / norm
    } else {
        difference
    }
}
