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

    fn is_input(self) -> bool {
        matches!(self, Self::Ids | Self::Labels | Self::Grid | Self::Pixels)
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
    let mut found = Differences::default();
    let pairs = found.pairs(read(ours), read(theirs));
    for (name, got, expected) in &pairs {
        found.add(name, got, expected, tolerance.0);
    }
    found
}

/// Distances of two results in a coarse precision, ours and the reference's, to the reference's
/// in a fine one; added up over cases.
#[derive(Debug, Default)]
pub struct Noise {
    /// Squared distances of ours and theirs, squared size.
    sums: BTreeMap<Check, [f64; 3]>,
    pub found: Differences,
}

/// Two sets of rounding errors of one kind differ in size by about this factor at most: of many
/// numbers, and of a few.
const NOISE_FACTOR: f64 = 1.25;
const LOSS_NOISE_FACTOR: f64 = 3.0;

impl Noise {
    pub fn add(&mut self, ours: &Path, theirs: &Path, fine: &Path) {
        let theirs = read(theirs);
        for (name, got, expected) in self.found.pairs(read(ours), read(fine)) {
            let check = Check::of(&name);
            if check.is_input() {
                self.found.add(&name, &got, &expected, 0.0);
                continue;
            }
            let sum = self.sums.entry(check).or_default();
            sum[0] += squared_distance(&got, &expected);
            sum[1] += squared_distance(&theirs[&name], &expected);
            sum[2] += squared_distance(&expected.zeros_like(), &expected);
        }
    }

    /// Ours must be no farther from the fine results than the reference's own.
    pub fn finish(mut self) -> Differences {
        for (check, [ours, theirs, size]) in self.sums {
            let factor = match check {
                Check::Loss => LOSS_NOISE_FACTOR,
                _ => NOISE_FACTOR,
            };
            let [ours, theirs] = [ours, theirs].map(|sum| (sum / size).sqrt());
            let name = format!("{check}, the reference's own noise being {theirs:.1e}");
            self.found.record(check, &name, ours, factor * theirs);
        }
        self.found
    }
}

type Named = BTreeMap<String, Tensor>;

fn read(file: &Path) -> Named {
    let tensors = Tensor::read_safetensors(file);
    let tensors = tensors.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    tensors.into_iter().collect()
}

/// A tensor's name, ours, theirs.
type Pair = (String, Tensor, Tensor);

impl Differences {
    /// Tensors that both have in one shape; the others are failures.
    fn pairs(&mut self, mut ours: Named, theirs: Named) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for (name, expected) in theirs {
            match ours.remove(&name) {
                Some(got) if got.size() == expected.size() => pairs.push((name, got, expected)),
                Some(got) => {
                    let (got, expected) = (got.size(), expected.size());
                    let failure = format!("{name}: shape {got:?}, expected {expected:?}");
                    self.failures.push(failure);
                }
                None => self.failures.push(format!("{name}: missing")),
            }
        }
        let unexpected = ours.keys();
        let unexpected = unexpected.map(|name| format!("{name}: the reference has none"));
        self.failures.extend(unexpected);
        pairs
    }

    /// Inputs must be equal to the bit, results within the bound.
    fn add(&mut self, name: &str, got: &Tensor, expected: &Tensor, bound: f64) {
        let check = Check::of(name);
        let bound = if check.is_input() { 0.0 } else { bound };
        self.record(check, name, relative_difference(got, expected), bound);
    }

    fn record(&mut self, check: Check, name: &str, difference: f64, bound: f64) {
        // Negated, so that NaN fails.
        if difference.is_nan() || difference > bound {
            let failure = format!("{name}: {difference:.2e} > {bound:.1e}");
            self.failures.push(failure);
        }
        let worst = self.worst.entry(check).or_insert((-1.0, String::new()));
        if difference > worst.0 || difference.is_nan() {
            *worst = (difference, name.to_owned());
        }
    }
}

fn squared_distance(a: &Tensor, b: &Tensor) -> f64 {
    let difference = a.to_kind(Kind::Double) - b.to_kind(Kind::Double);
    difference.square().sum(Kind::Double).double_value(&[])
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
