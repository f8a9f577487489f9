//! What a short LoRA run leaves behind loads elsewhere, for any family.

use std::path::Path;

use serde::Deserialize;
use serde_json::json;
use tch::Tensor;

use crate::compare::relative_difference;
use crate::digits;
use crate::forward::forward;
use crate::generation::{Continuation, generate};
use crate::reference::{Reference, run_script};
use crate::training::{document, train};

const VARIANT: &str = "untied";
const SAMPLES: usize = 4;

/// What elsewhere.py prints.
#[derive(Debug, Deserialize)]
struct Elsewhere {
    base: Vec<f64>,
    with_adapter: Vec<f64>,
    merged: Vec<f64>,
    continuations: Vec<Continuation>,
}

/// The adapter in PEFT on the base model, and the merged folder in transformers, compute what the
/// trainer computes with the merged folder; all three generate the same text.
pub fn adapter_and_merged_load_elsewhere(family: &str) {
    let base = Reference::of(family).model(VARIANT);
    let folder = tempfile::tempdir().unwrap();
    let data = digits::write("train", SAMPLES, folder.path());
    let training = json!({
        "maxSteps": 3, "globalBatchSize": SAMPLES, "learningRate": 0.02, "warmupSteps": 0,
    });
    let spec = json!({"method": {"lora": {"rank": 4, "alpha": 16.0}}, "training": training});
    let out = folder.path().join("out");
    train(&document(&base, folder.path(), spec), &out);
    let (merged, adapter) = (out.join("model"), out.join("adapter"));

    let paths = [&base, &data, &adapter, &merged].map(|path| path.to_str().unwrap());
    let arguments = [&[family][..], &paths].concat();
    let found: Elsewhere =
        serde_json::from_str(&run_script("5", "elsewhere.py", &arguments)).unwrap();
    let ours = first_logits(&merged, &data, folder.path());
    let effect = relative_difference(&Tensor::from_slice(&found.base), &ours);
    assert!(
        effect > 1e-2,
        "{family}: the adapter does nothing ({effect:.1e})"
    );
    for (name, theirs) in [("PEFT", found.with_adapter), ("merged", found.merged)] {
        let difference = relative_difference(&Tensor::from_slice(&theirs), &ours);
        println!("{family}: logits to {name} {difference:.1e}, adapter's effect {effect:.1e}");
        assert!(difference < 1e-4, "{family}: {name}: {difference:.1e}");
    }
    assert_eq!(
        generate(&merged, &data),
        found.continuations,
        "{family}: merged"
    );
    assert_eq!(
        generate(&adapter, &data),
        found.continuations,
        "{family}: adapter"
    );
}

/// Logits of the first record, flat.
fn first_logits(model: &Path, data: &Path, folder: &Path) -> Tensor {
    let out = folder.join("ours.safetensors");
    forward(model, data, "Float32", false, &out);
    let tensors = Tensor::read_safetensors(out).unwrap();
    let mut tensors = tensors.into_iter();
    let found = tensors.find(|(name, _)| name == "sample.0.logits");
    found.unwrap().1.view(-1).to_kind(tch::Kind::Double)
}
