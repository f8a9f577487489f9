//! Inputs, logits, loss and the gradient of every parameter.

use std::path::Path;
use std::time::Duration;

use crate::compare::{Differences, Noise, Tolerance, compare};
use crate::process::{succeed, trainer};
use crate::reference::Reference;
use crate::table::Table;

const LIMIT: Duration = Duration::from_secs(120);
/// Double precision leaves no room for a different formula, single only for its own rounding.
const PRECISIONS: [(&str, Tolerance); 2] =
    [("Float64", Tolerance(1e-9)), ("Float32", Tolerance(1e-4))];
/// Bounded by transformers' own distance to its results in float32.
const COARSE: &str = "BFloat16";

/// Of every variant and case of a family, in every precision.
pub fn results_equal(family: &str) {
    let reference = Reference::of(family);
    let mut table = Table::new(family);
    let mut failures = Vec::new();
    for variant in &reference.variants {
        for (precision, tolerance) in PRECISIONS {
            for case in &reference.cases {
                let found = check(&reference, [variant, case, precision], tolerance);
                table.add(variant, precision, &found);
                let at = |failure| format!("{variant} {case} {precision}: {failure}");
                failures.extend(found.failures.into_iter().map(at));
            }
        }
    }
    // Rounding knows nothing of how a checkpoint was saved.
    let variant = &reference.variants[0];
    let found = coarse_check(&reference, variant);
    table.add(variant, COARSE, &found);
    let at = |failure| format!("{variant} {COARSE}: {failure}");
    failures.extend(found.failures.into_iter().map(at));
    println!("{table}");
    assert!(failures.is_empty(), "{table}\n{}", failures.join("\n"));
}

fn check(
    reference: &Reference,
    [variant, case, precision]: [&str; 3],
    tolerance: Tolerance,
) -> Differences {
    let folder = tempfile::tempdir().unwrap();
    let ours = folder.path().join("ours.safetensors");
    let (model, data) = (reference.model(variant), reference.data(case));
    forward(&model, &data, precision, true, &ours);
    let theirs = reference.tensors(variant, case, precision);
    compare(&ours, &theirs, tolerance)
}

fn coarse_check(reference: &Reference, variant: &str) -> Differences {
    let folder = tempfile::tempdir().unwrap();
    let ours = folder.path().join("ours.safetensors");
    let mut noise = Noise::default();
    for case in &reference.cases {
        let (model, data) = (reference.model(variant), reference.data(case));
        forward(&model, &data, COARSE, true, &ours);
        let theirs = reference.tensors(variant, case, COARSE);
        noise.add(&ours, &theirs, &reference.tensors(variant, case, "Float32"));
    }
    noise.finish()
}

/// Runs `trainer forward`.
pub fn forward(model: &Path, data: &Path, precision: &str, gradients: bool, out: &Path) {
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (model, data, out) = (path(model), path(data), path(out));
    let mut arguments = vec![
        "forward", &model, "--data", &data, "--out", &out, "--dtype", precision,
    ];
    if gradients {
        arguments.push("--grads");
    }
    succeed(trainer(&arguments), LIMIT);
}
