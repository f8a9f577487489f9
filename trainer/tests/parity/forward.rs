//! Inputs, logits, loss and the gradient of every parameter.

use std::path::Path;
use std::time::Duration;

use crate::FAMILIES;
use crate::compare::{Differences, Tolerance, compare};
use crate::process::{succeed, trainer};
use crate::reference::Reference;
use crate::table::Table;

const LIMIT: Duration = Duration::from_secs(120);
/// Double precision leaves no room for a different formula, single only for its own rounding.
const PRECISIONS: [(&str, Tolerance); 2] =
    [("Float64", Tolerance(1e-9)), ("Float32", Tolerance(1e-4))];

#[test]
fn results_equal_those_of_transformers() {
    for family in FAMILIES {
        let reference = Reference::of(family);
        let mut table = Table::default();
        let mut failures = Vec::new();
        for variant in &reference.variants {
            for (precision, tolerance) in PRECISIONS {
                for case in &reference.cases {
                    let found = check(&reference, variant, case, precision, tolerance);
                    table.add(variant, precision, &found);
                    let at = |failure| format!("{variant} {case} {precision}: {failure}");
                    failures.extend(found.failures.into_iter().map(at));
                }
            }
        }
        println!("{family}\n{table}");
        assert!(failures.is_empty(), "{table}\n{}", failures.join("\n"));
    }
}

fn check(
    reference: &Reference,
    variant: &str,
    case: &str,
    precision: &str,
    tolerance: Tolerance,
) -> Differences {
    let folder = tempfile::tempdir().unwrap();
    let ours = folder.path().join("ours.safetensors");
    forward(
        &reference.model(variant),
        &reference.data(case),
        precision,
        true,
        &ours,
    );
    compare(
        &ours,
        &reference.tensors(variant, case, precision),
        tolerance,
    )
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
