use super::*;
use crate::load::load_str;
use crate::load::tests::MINIMAL;

fn fields(extra: &str) -> Vec<String> {
    let text = format!("{MINIMAL}{extra}");
    let finetune = load_str(&text).unwrap_or_else(|error| panic!("{extra}: {error}"));
    let found = unsupported_parts(&finetune.spec).into_iter();
    found.map(|part| part.field).collect()
}

/// Each is a document that the API server takes, and the one field that must be named.
const PARTS: &[(&str, &str)] = &[
    ("  precision: Float16Mixed", "spec.precision"),
    ("  method: { qlora: {} }", "spec.method.qlora"),
    (
        "  method: { freeze: { trainableLayers: 2 } }",
        "spec.method.freeze",
    ),
    ("  method: { adapter: {} }", "spec.method.adapter"),
    (
        "  method: { lora: { useDora: true } }",
        "spec.method.lora.useDora",
    ),
    (
        "  workers: { podOverrides: { resourceClaimTemplates: [gpu] } }",
        "spec.workers.podOverrides.resourceClaimTemplates",
    ),
    (
        "  evaluation: { metrics: [RougeL] }",
        "spec.evaluation.metrics",
    ),
    (
        "  evaluation: { maxSamples: 10 }",
        "spec.evaluation.maxSamples",
    ),
    (
        "  evaluation: { maxNewTokens: 10 }",
        "spec.evaluation.maxNewTokens",
    ),
    (
        "  evaluation: { earlyStopping: { patience: 1 } }",
        "spec.evaluation.earlyStopping",
    ),
    ("  output: { uri: pvc://a/b }", "spec.output.uri"),
    ("  scheduling: { gang: PodGroup }", "spec.scheduling.gang"),
    (
        "  runPolicy: { hangTimeoutSeconds: 60 }",
        "spec.runPolicy.hangTimeoutSeconds",
    ),
    ("  resumeFrom: { name: other }", "spec.resumeFrom"),
];

#[test]
fn each_part_is_named() {
    for (extra, field) in PARTS {
        assert_eq!(fields(extra), [*field], "{extra}");
    }
}

const MODEL: &str = "pvc://models/qwen2-vl }";
const DATA: &str = "[{ uri: pvc://data/captions }]";

/// A part of the minimal document, what replaces it, and the one field that must be named.
const REPLACED: &[(&str, &str, &str)] = &[
    (MODEL, "s3://bucket/model }", "spec.model.uri"),
    (
        MODEL,
        "pvc://models/a, credentialsSecretRef: { name: hub } }",
        "spec.model.credentialsSecretRef",
    ),
    (
        DATA,
        "[{ uri: gs://bucket/data }]",
        "spec.dataset.train[0].uri",
    ),
    (
        DATA,
        "[{ uri: pvc://data/a, imageRoot: hf://a/b }]",
        "spec.dataset.train[0].imageRoot",
    ),
    (
        DATA,
        "[{ uri: pvc://d/a, weight: 2 }]",
        "spec.dataset.train[0].weight",
    ),
    (
        DATA,
        "[{ uri: pvc://d/a, credentialsSecretRef: { name: s } }]",
        "spec.dataset.train[0].credentialsSecretRef",
    ),
    (
        DATA,
        "[{ uri: pvc://d/a }, { uri: pvc://d/b }]",
        "spec.dataset.train",
    ),
    (
        DATA,
        "[{ uri: pvc://d/a }]\n    validation: [{ uri: pvc://d/b }, { uri: pvc://d/c }]",
        "spec.dataset.validation",
    ),
    (
        DATA,
        "[{ uri: pvc://d/a }]\n    validation: [{ uri: s3://d/b }]",
        "spec.dataset.validation[0].uri",
    ),
    (
        DATA,
        "[{ uri: pvc://d/a }]\n    format: Parquet",
        "spec.dataset.format",
    ),
    (
        DATA,
        "[{ uri: pvc://d/a }]\n    truncation: Text",
        "spec.dataset.truncation",
    ),
    (
        DATA,
        "[{ uri: pvc://d/a }]\n    packing: true",
        "spec.dataset.packing",
    ),
    (
        DATA,
        "[{ uri: pvc://d/a }]\n    preflight: true",
        "spec.dataset.preflight",
    ),
];

#[test]
fn each_part_of_model_and_data_is_named() {
    for (from, to, field) in REPLACED {
        let text = MINIMAL.replace(from, to);
        assert_ne!(text, MINIMAL);
        let finetune = load_str(&text).unwrap_or_else(|error| panic!("{to}: {error}"));
        let found = unsupported_parts(&finetune.spec);
        let found: Vec<&str> = found.iter().map(|part| part.field.as_str()).collect();
        assert_eq!(found, [*field], "{to}");
    }
}

#[test]
fn what_is_supported_is_not_named() {
    for extra in [
        "",
        "  method: { full: {} }",
        "  parallelism: { strategy: Zero3, offload: Parameters }",
        "  parallelism: { strategy: Zero2 }\n  workers: { gpu: { count: 2 } }",
        "  parallelism: { strategy: DDP }\n  workers: { gpu: { count: 2 } }",
        "  workers: { gpu: { count: 2 } }\n  runPolicy: { hangTimeoutSeconds: 60 }",
        "  workers: { device: CPU, replicas: 2, processesPerReplica: 2 }",
        "  scheduling: { queueName: gpus, priorityClassName: high }",
        "  runPolicy: { suspend: true, ttlSecondsAfterFinished: 5, deleteAfterFinished: true }",
        "  workers: { gpu: { product: H100, memory: 80Gi }, podOverrides: { shmSize: 1Gi } }",
        "  runPolicy: { oomPolicy: Adapt, oomMayReduce: [MaxPixels] }",
        "  runPolicy: { backoffLimitPerClass: [{ class: Hang, limit: 1 }] }",
    ] {
        assert!(fields(extra).is_empty(), "{extra}: {:?}", fields(extra));
    }
}

#[test]
fn the_remedy_is_told() {
    let finetune = load_str(&format!("{MINIMAL}  scheduling: {{ gang: PodGroup }}")).unwrap();
    let words = unsupported_parts(&finetune.spec)[0].to_string();
    assert_eq!(words, "spec.scheduling.gang: not supported yet; use None");
}
