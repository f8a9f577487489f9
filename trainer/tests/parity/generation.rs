//! Greedy generation: the same token ids and the same text.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::process::{succeed, trainer};
use crate::reference::Reference;

const LIMIT: Duration = Duration::from_secs(120);

/// One continuation, as `trainer generate --out` and the reference write it.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Continuation {
    pub ids: Vec<u32>,
    pub text: String,
}

/// Of every variant and case of a family.
pub fn greedy_text_equals(family: &str) {
    let reference = Reference::of(family);
    for variant in &reference.variants {
        let file = reference.folder.join(variant).join("generated.json");
        let expected: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        for case in &reference.cases {
            let expected: Vec<Continuation> =
                serde_json::from_value(expected[case].clone()).unwrap();
            let got = generate(&reference.model(variant), &reference.data(case));
            assert_eq!(got, expected, "{family} {variant} {case}");
        }
    }
}

/// Runs `trainer generate` for every record of a file; 12 tokens, as the reference.
pub fn generate(model: &Path, data: &Path) -> Vec<Continuation> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (model, data) = (path(model), path(data));
    let arguments = [
        "generate",
        &model,
        "--data",
        &data,
        "--max-new-tokens",
        "12",
        "--out",
    ];
    let mut command = trainer(&arguments);
    command.arg(&out);
    succeed(command, LIMIT);
    let text = fs::read_to_string(out).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
