//! What a run leaves behind loads elsewhere: transformers 5 and 4, PEFT, and the trainer itself.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use tch::Tensor;

use crate::compare::relative_difference;
use crate::digits;
use crate::forward::forward;
use crate::generation::{Continuation, generate};
use crate::process::{succeed, trainer};
use crate::reference::{Reference, run_script};
use crate::training::{document, train};

const FAMILY: &str = "qwen2_vl";
/// The base checkpoint's layout must not matter: one as each series of transformers saves it.
const VARIANTS: [&str; 2] = ["tied", "hub"];

/// What continuations.py prints.
#[derive(Debug, Deserialize)]
struct Outside {
    continuations: Vec<Continuation>,
    logits: Vec<f64>,
}

struct Trained {
    folder: tempfile::TempDir,
    data: PathBuf,
    base: PathBuf,
}

impl Trained {
    fn model(&self) -> PathBuf {
        self.folder.path().join("out/model")
    }

    fn adapter(&self) -> PathBuf {
        self.folder.path().join("out/adapter")
    }
}

#[test]
fn a_full_model_loads_in_both_series_of_transformers() {
    for variant in VARIANTS {
        let trained = trained(variant, json!({"full": {}}));
        let ours = generate(&trained.model(), &trained.data);
        let theirs = outside(&trained.model(), &trained.data, None);
        assert_eq!(ours, theirs.continuations, "{variant} under transformers 5");
        for series in ["4", "5"] {
            assert_eq!(
                tutorial(series, &trained),
                ours[0],
                "{variant}, the tutorial's script, {series}"
            );
        }
    }
}

#[test]
fn a_lora_loads_in_peft_and_merged_equals_adapter() {
    for variant in VARIANTS {
        let lora = json!({"rank": 4, "alpha": 16.0});
        let trained = trained(variant, json!({"lora": lora}));
        let merged = generate(&trained.model(), &trained.data);
        let adapted = generate(&trained.adapter(), &trained.data);
        assert_eq!(merged, adapted, "{variant}: merged and adapter");

        let with_peft = outside(&trained.base, &trained.data, Some(&trained.adapter()));
        assert_eq!(
            with_peft.continuations, merged,
            "{variant}: PEFT and merged"
        );
        let without = outside(&trained.base, &trained.data, None);
        let expected = Tensor::from_slice(&with_peft.logits);
        let untouched = Tensor::from_slice(&without.logits);
        let effect = relative_difference(&untouched, &expected);
        assert!(
            effect > 1e-2,
            "{variant}: the adapter does nothing ({effect:.1e})"
        );
        let difference = relative_difference(&first_logits(&trained), &expected);
        println!("{variant}: merged to PEFT {difference:.1e}, adapter's effect {effect:.1e}");
        assert!(
            difference < 1e-4,
            "{variant}: merged logits differ from PEFT's: {difference:.1e}"
        );
    }
}

#[test]
fn generate_prints_the_accuracy_of_a_labelled_file() {
    let trained = trained("tied", json!({"full": {}}));
    let summary = trained.folder.path().join("summary.json");
    let [model, data, file] =
        [&trained.model(), &trained.data, &summary].map(|path| path.to_str().unwrap().to_owned());
    let arguments = ["generate", &model, "--data", &data, "--summary", &file];
    let printed = succeed(trainer(&arguments), std::time::Duration::from_secs(120));
    let summary: Value = serde_json::from_slice(&fs::read(summary).unwrap()).unwrap();
    assert_eq!(summary["samples"], 8);
    let exact = summary["exact"].as_u64().unwrap();
    assert!(
        printed.contains(&format!("({exact} of 8 exact)")),
        "{printed}"
    );
}

/// Trains a few steps, enough to move every weight.
fn trained(variant: &str, method: Value) -> Trained {
    let base = Reference::of(FAMILY).model(variant);
    let folder = tempfile::tempdir().unwrap();
    let data = digits::write("train", 8, folder.path());
    let training = json!({
        "maxSteps": 4, "globalBatchSize": 8, "learningRate": 0.01, "warmupSteps": 0,
    });
    let spec = json!({"method": method, "training": training});
    train(
        &document(&base, folder.path(), spec),
        &folder.path().join("out"),
    );
    Trained { folder, data, base }
}

fn outside(model: &Path, data: &Path, adapter: Option<&Path>) -> Outside {
    let mut arguments = vec![FAMILY, model.to_str().unwrap(), data.to_str().unwrap()];
    arguments.extend(adapter.and_then(Path::to_str));
    serde_json::from_str(&run_script("5", "continuations.py", &arguments)).unwrap()
}

fn tutorial(series: &str, trained: &Trained) -> Continuation {
    let text = fs::read_to_string(&trained.data).unwrap();
    let record: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let image = record["messages"][0]["content"][0]["image"]
        .as_str()
        .unwrap();
    let image = trained.folder.path().join(image);
    let model = trained.model();
    let arguments = [
        model.to_str().unwrap(),
        image.to_str().unwrap(),
        digits::PROMPT,
    ];
    serde_json::from_str(&run_script(series, "tutorial.py", &arguments)).unwrap()
}

/// The merged model's logits of the first record, flat.
fn first_logits(trained: &Trained) -> Tensor {
    let out = trained.folder.path().join("ours.safetensors");
    forward(&trained.model(), &trained.data, "Float32", false, &out);
    let tensors = Tensor::read_safetensors(out).unwrap();
    let found = tensors
        .into_iter()
        .find(|(name, _)| name == "sample.0.logits");
    found.unwrap().1.view(-1)
}
