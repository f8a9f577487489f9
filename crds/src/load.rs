//! YAML -> [`VLFineTune`]: the only reader. It finds what the API server would refuse, by the
//! same schema and CEL rules, and names the field.

use std::path::Path;

use kube::CustomResourceExt;
use serde_json::Value;

use crate::finetune::VLFineTune;

/// Why a document cannot be used; each message names the field and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{path}: cannot be read: {source}; check the path")]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error("not a YAML document: {0}")]
    Yaml(#[from] serde_yaml::Error),
    #[error("{0}")]
    Kind(String),
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

/// Reads and checks a file with one VLFineTune.
pub fn load_file(path: &Path) -> Result<VLFineTune, LoadError> {
    let text = std::fs::read_to_string(path).map_err(|source| LoadError::Read {
        path: path.display().to_string(),
        source,
    })?;
    load_str(&text)
}

/// Reads and checks a document with one VLFineTune.
pub fn load_str(text: &str) -> Result<VLFineTune, LoadError> {
    let value: Value = serde_yaml::from_str(text)?;
    check_kind(&value)?;
    let mut problems = unknown_fields(&value);
    let mut non_finite = Vec::new();
    walk_non_finite(&serde_yaml::from_str(text)?, "", &mut non_finite);
    let finetune = match typed(value) {
        Ok(finetune) if non_finite.is_empty() => finetune,
        outcome => {
            // A null that stands for such a number is no second problem.
            let other = outcome.err().filter(|_| non_finite.is_empty());
            problems.extend(non_finite.into_iter().chain(other));
            return Err(LoadError::Invalid(problems));
        }
    };
    problems.extend(schema_problems(&finetune));
    if problems.is_empty() {
        Ok(finetune)
    } else {
        Err(LoadError::Invalid(problems))
    }
}

fn check_kind(value: &Value) -> Result<(), LoadError> {
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (field("apiVersion"), field("kind"));
    if version == "vlft.dev/v1alpha1" && kind == "VLFineTune" {
        return Ok(());
    }
    Err(LoadError::Kind(format!(
        "apiVersion and kind are `{version}` and `{kind}`; write `vlft.dev/v1alpha1` and `VLFineTune`"
    )))
}

fn typed(value: Value) -> Result<VLFineTune, String> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| format!("{}: {}", error.path(), error.inner()))
}

/// Fields that the schema does not have, with the nearest name it has.
fn unknown_fields(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(spec) = value.get("spec") {
        walk_unknown(spec, &spec_schema(), "spec", &mut found);
    }
    found
}

fn walk_unknown(value: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let Some(known) = schema.get("properties").and_then(Value::as_object) else {
                return;
            };
            for (name, field) in fields {
                let path = format!("{path}.{name}");
                match known.get(name) {
                    Some(schema) => walk_unknown(field, schema, &path, found),
                    None => found.push(unknown_message(&path, name, known.keys())),
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                for (i, item) in items.iter().enumerate() {
                    walk_unknown(item, schema, &format!("{path}[{i}]"), found);
                }
            }
        }
        _ => {}
    }
}

/// Numbers that JSON does not have. On the way into a [`Value`] they become null, which is no
/// different from a field that is absent.
fn walk_non_finite(value: &serde_yaml::Value, path: &str, found: &mut Vec<String>) {
    match value {
        serde_yaml::Value::Number(number) if !number.is_finite() => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            found.push(format!("{path}: {number} is not finite; write a number"));
        }
        serde_yaml::Value::Mapping(fields) => {
            for (name, field) in fields {
                let name = name.as_str().unwrap_or("?");
                let dot = if path.is_empty() { "" } else { "." };
                walk_non_finite(field, &format!("{path}{dot}{name}"), found);
            }
        }
        serde_yaml::Value::Sequence(items) => {
            for (i, item) in items.iter().enumerate() {
                walk_non_finite(item, &format!("{path}[{i}]"), found);
            }
        }
        _ => {}
    }
}

fn unknown_message<'a>(path: &str, name: &str, known: impl Iterator<Item = &'a String>) -> String {
    let nearest = known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((score, candidate)) if score > 0.8 => {
            format!("{path}: unknown field; did you mean `{candidate}`?")
        }
        _ => format!("{path}: unknown field; remove it"),
    }
}

fn spec_schema() -> Value {
    let crd = serde_json::to_value(VLFineTune::crd()).unwrap_or_default();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
        .cloned()
        .unwrap_or_default()
}

/// Bounds, patterns and enums by JSON schema; cross-field rules by CEL.
fn schema_problems(finetune: &VLFineTune) -> Vec<String> {
    let spec = serde_json::to_value(&finetune.spec).unwrap_or_default();
    let mut problems = match jsonschema::validator_for(&spec_schema()) {
        Ok(validator) => validator
            .iter_errors(&spec)
            .map(|error| format!("spec{}: {error}", dotted(error.instance_path().as_str())))
            .collect(),
        Err(error) => vec![format!("the resource's own schema is broken: {error}")],
    };
    if let Err(errors) = finetune.validate_cel() {
        problems.extend(errors.iter().map(|error| {
            let path = error.field_path.trim_start_matches('.');
            if path.is_empty() {
                error.message.clone()
            } else {
                format!("{path}: {}", error.message)
            }
        }));
    }
    problems
}

/// `/training/learningRate` -> `.training.learningRate`, list positions in brackets.
fn dotted(pointer: &str) -> String {
    pointer
        .split('/')
        .skip(1)
        .map(|part| match part.parse::<usize>() {
            Ok(index) => format!("[{index}]"),
            Err(_) => format!(".{part}"),
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const MINIMAL: &str = "\
apiVersion: vlft.dev/v1alpha1
kind: VLFineTune
metadata: { name: captions }
spec:
  model: { uri: pvc://models/qwen2-vl }
  dataset:
    train: [{ uri: pvc://data/captions }]
";

    pub(crate) fn minimal() -> VLFineTune {
        load_str(MINIMAL).unwrap()
    }

    fn problem(extra: &str) -> String {
        load_str(&format!("{MINIMAL}{extra}"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn eight_lines_are_enough() {
        let finetune = minimal();
        assert!(MINIMAL.lines().count() <= 8);
        assert_eq!(finetune.spec.workers.world_size(), 1);
        assert!(finetune.spec.method.lora.is_some());
    }

    #[test]
    fn problems_name_field_and_remedy() {
        for (extra, parts) in [
            (
                "  training: { learningRat: 1 }",
                vec!["spec.training.learningRat", "`learningRate`"],
            ),
            (
                "  training: { learningRate: -1.0 }",
                vec!["spec.training.learningRate", "minimum"],
            ),
            (
                "  training: { learningRate: fast }",
                vec!["spec.training.learningRate"],
            ),
            (
                "  method: { full: {}, lora: {} }",
                vec!["spec.method", "exactly one"],
            ),
            ("  precision: Float8", vec!["spec.precision", "Float8"]),
            (
                "  training: { warmupRatio: .nan }",
                vec!["spec.training.warmupRatio: NaN is not finite"],
            ),
            (
                "  method: { lora: { alpha: -.inf } }",
                vec!["spec.method.lora.alpha: -inf is not finite"],
            ),
            (
                "  workers: { device: CPU, gpu: { count: 2 } }",
                vec!["spec.workers", "device: GPU"],
            ),
            (
                "  training: { globalBatchSize: 10, microBatchSize: 4 }",
                vec!["globalBatchSize", "multiple"],
            ),
            (
                "  checkpoint: { volume: { claimName: a, size: 1Gi } }",
                vec!["checkpoint.volume", "claimName"],
            ),
            (
                "  workers: { resources: { limits: { nvidia.com/gpu: 1 } } }",
                vec!["workers.gpu"],
            ),
        ] {
            let message = problem(extra);
            for part in parts {
                assert!(message.contains(part), "`{part}` is missing in: {message}");
            }
        }
    }

    /// What would be ignored where it stands.
    #[test]
    fn fields_without_effect_are_refused() {
        for (extra, parts) in [
            (
                "  checkpoint: { volume: { claimName: a, storageClassName: fast } }",
                ["checkpoint.volume", "storageClassName"],
            ),
            (
                "  checkpoint: { volume: { claimName: a }, deletionPolicy: Delete }",
                ["spec.checkpoint", "Retain"],
            ),
            (
                "  runPolicy: { deleteAfterFinished: true }",
                ["spec.runPolicy", "ttlSecondsAfterFinished"],
            ),
            (
                "  evaluation: { everySteps: 5 }",
                ["evaluation.everySteps", "dataset.validation"],
            ),
            (
                "  method: { full: {}, towers: { language: { train: false, learningRate: 0.1 } } }",
                ["spec.method.towers.language", "learningRate"],
            ),
            (
                "  method: { full: {}, towers: { vision: { train: false }, projector: { train: false }, language: { train: false } } }",
                ["method.towers", "nothing would train"],
            ),
            (
                "  method: { full: {} }\n  output: { adapter: Adapter }",
                ["output.adapter", "Merged"],
            ),
            (
                "  workers: { gpu: { product: A }, nodeSelector: { nvidia.com/gpu.product: B } }",
                ["spec.workers", "remove one"],
            ),
        ] {
            let message = problem(extra);
            for part in parts {
                assert!(message.contains(part), "`{part}` is missing in: {message}");
            }
        }
    }

    #[test]
    fn missing_dataset_and_long_name_are_named() {
        let message = load_str("apiVersion: vlft.dev/v1alpha1\nkind: VLFineTune\nmetadata: {name: a}\nspec: {model: {uri: 'pvc://m'}}")
            .unwrap_err()
            .to_string();
        assert!(message.contains("dataset"), "{message}");
        let long = MINIMAL.replace("captions }\nspec", &format!("{} }}\nspec", "a".repeat(41)));
        let message = load_str(&long).unwrap_err().to_string();
        assert!(message.contains("40 characters"), "{message}");
    }

    #[test]
    fn other_kinds_are_refused() {
        let message = load_str("kind: Job").unwrap_err().to_string();
        assert!(message.contains("VLFineTune"), "{message}");
    }
}
