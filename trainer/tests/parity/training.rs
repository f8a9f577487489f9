//! A short training run, for the tests that need its losses or what it leaves behind.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::{run, trainer};

const LIMIT: Duration = Duration::from_secs(600);

/// A VLFineTune over local folders; `spec` is merged into it, section by section.
pub fn document(model: &Path, data: &Path, spec: Value) -> Value {
    let uri = |path: &Path| format!("file://{}", path.display());
    let mut document = json!({
        "apiVersion": "vlft.dev/v1alpha1",
        "kind": "VLFineTune",
        "metadata": {"name": "parity"},
        "spec": {
            "model": {"uri": uri(model)},
            "dataset": {"train": [{"uri": uri(data)}], "maxLength": 512},
            "precision": "Float32",
            "workers": {"device": "CPU"},
        },
    });
    for (section, value) in spec.as_object().unwrap() {
        document["spec"][section] = value.clone();
    }
    document
}

/// Runs `trainer run` into `output` and returns the loss of each step.
pub fn train(document: &Value, output: &Path) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    // JSON is YAML.
    let file = folder.path().join("finetune.yaml");
    fs::write(&file, document.to_string()).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (file, output) = (path(&file), path(output));
    let command = trainer(&["run", &file, "--output-dir", &output]);
    let finished = run(command, LIMIT);
    assert!(
        finished.status.success(),
        "{}\n{}",
        document,
        finished.stderr
    );
    let events = finished
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    events
        .filter(|event: &Value| event["message"] == "step")
        .filter_map(|event| event["loss"].as_f64())
        .collect()
}
