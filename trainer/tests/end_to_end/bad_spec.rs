//! Documents that make no sense: each is refused before anything is read or written, by field.

use vlft_crds::status::FailureClass;

use crate::fixture::{FULL, Fixture, each};

/// What is changed in [`FULL`], and what the message must name.
const TABLE: &[(&str, &str, &[&str])] = &[
    // Fields.
    (
        "maxSteps",
        "maxStep",
        &["spec.training.maxStep", "did you mean `maxSteps`"],
    ),
    (
        "checkpoint:",
        "checkpoints:",
        &["spec.checkpoints", "did you mean `checkpoint`"],
    ),
    (
        "full: {}",
        "full: {}, lora: {}",
        &["spec.method", "exactly one of"],
    ),
    ("full: {}", "", &["spec.method", "exactly one of"]),
    (
        "maxSteps: 6",
        "maxSteps: 6, maxSteps: 7",
        &["training", "maxSteps"],
    ),
    (
        "device: CPU",
        "device: TPU",
        &["spec.workers.device", "TPU"],
    ),
    // Signs and kinds.
    (
        "1.0e-3",
        "-1.0e-3",
        &["spec.training.learningRate", "-0.001"],
    ),
    ("1.0e-3", "fast", &["spec.training.learningRate", "fast"]),
    ("1.0e-3", "'0.001'", &["spec.training.learningRate"]),
    (
        "maxSteps: 6",
        "maxSteps: 0",
        &["spec.training.maxSteps", "0 is less than"],
    ),
    (
        "maxSteps: 6",
        "maxSteps: 1.5",
        &["spec.training.maxSteps", "1.5"],
    ),
    (
        "microBatchSize: 2",
        "microBatchSize: 0",
        &["spec.training.microBatchSize", "0 is less than"],
    ),
    (
        "microBatchSize: 2",
        "microBatchSize: 3",
        &["globalBatchSize", "multiple of"],
    ),
    // What is no number.
    ("1.0e-3", ".nan", &["spec.training.learningRate", "NaN"]),
    ("1.0e-3", ".inf", &["spec.training.learningRate", "inf"]),
    ("1.0e-3", "-.inf", &["spec.training.learningRate", "inf"]),
    ("1.0e-3", "1.0e999", &["spec.training.learningRate"]),
    (
        "warmupSteps: 1",
        "warmupRatio: .nan",
        &["spec.training.warmupRatio", "NaN"],
    ),
    (
        "warmupSteps: 1",
        "maxGradNorm: .nan",
        &["spec.training.maxGradNorm", "NaN"],
    ),
    (
        "warmupSteps: 1",
        "maxGradNorm: .inf",
        &["spec.training.maxGradNorm", "inf"],
    ),
    (
        "full: {}",
        "lora: { alpha: .nan }",
        &["spec.method.lora.alpha", "NaN"],
    ),
    (
        "full: {}",
        "lora: { dropout: .nan }",
        &["spec.method.lora.dropout", "NaN"],
    ),
    // What is far too large.
    (
        "globalBatchSize: 4, microBatchSize: 2",
        "globalBatchSize: 1000000000000",
        &["spec.training.globalBatchSize", "1000000000000"],
    ),
    (
        "microBatchSize: 2",
        "microBatchSize: 1000000000000",
        &["spec.training.microBatchSize"],
    ),
    (
        "globalBatchSize: 4, microBatchSize: 2",
        "globalBatchSize: -9223372036854775808, microBatchSize: -1",
        &[
            "spec.training.globalBatchSize",
            "spec.training.microBatchSize",
        ],
    ),
    (
        "microBatchSize: 2",
        "microBatchSize: 4611686018427387904",
        &["spec.training.microBatchSize"],
    ),
    (
        "maxSteps: 6",
        "maxSteps: 9223372036854775807",
        &["spec.training.maxSteps"],
    ),
    (
        "maxSteps: 6",
        "maxSteps: 99999999999999999999999",
        &["spec.training.maxSteps"],
    ),
    ("maxSteps: 6", "epochs: 1.0e300", &["spec.training.epochs"]),
    ("maxSteps: 6", "seed: -1", &["spec.training.seed"]),
    ("1.0e-3", "1.0e300", &["spec.training.learningRate"]),
    (
        "full: {}",
        "lora: { rank: 1000000000 }",
        &["spec.method.lora.rank", "1000000000"],
    ),
    ("full: {}", "lora: { rank: 0 }", &["spec.method.lora.rank"]),
    (
        "full: {}",
        "lora: { dropout: 1.0 }",
        &["spec.method.lora.dropout"],
    ),
    (
        "device: CPU",
        "device: CPU, processesPerReplica: 4611686018427387904, replicas: 4",
        &["spec.workers.processesPerReplica"],
    ),
    (
        "everySteps: 3",
        "everySteps: 3, keepLast: 1000000000000",
        &["spec.checkpoint.keepLast"],
    ),
    // Modules that no model has.
    (
        "full: {}",
        "lora: { targetModules: [no_such_proj] }",
        &["method.lora.targetModules", "no_such_proj"],
    ),
    (
        "full: {}",
        "lora: { targetModules: ['('] }",
        &["method.lora.targetModules", "("],
    ),
];

/// Names that are told for what stands beside [`FULL`].
const MORE: &[(&str, &[&str])] = &[
    (
        "  output: { maxShardSize: 1.5Gi }\n",
        &["spec.output.maxShardSize", "5Gi"],
    ),
    (
        "  runPolicy: { hangTimeoutSeconds: -5 }\n",
        &["spec.runPolicy.hangTimeoutSeconds"],
    ),
    ("  precision: Float8\n", &["spec.precision", "Float8"]),
    (
        "  precisions: Float32\n",
        &["spec.precisions", "did you mean `precision`"],
    ),
];

#[test]
fn each_is_refused_by_field() {
    let fixture = Fixture::new();
    let changed = TABLE.iter().map(|(from, to, parts)| {
        assert!(FULL.contains(from), "{from}");
        (FULL.replacen(from, to, 1), parts)
    });
    let more = MORE
        .iter()
        .map(|(extra, parts)| (format!("{FULL}{extra}"), parts));
    each(changed.chain(more), |(spec, parts)| {
        println!("{spec}");
        fixture.train(&spec).failed(FailureClass::UserError, parts);
        let checkpoints = fixture.path("out/checkpoints");
        let started = checkpoints.is_dir() && !fixture.names("out/checkpoints").is_empty();
        assert!(!started, "it trained:\n{spec}");
    });
}

/// maxLength is the dataset's, beside its sources.
#[test]
fn lengths_and_pixels_have_bounds() {
    let fixture = Fixture::new();
    for (field, parts) in [
        (
            "maxLength: 1152921504606846976",
            ["spec.dataset.maxLength", "1152921504606846976"],
        ),
        ("maxLength: 1", ["spec.dataset.maxLength", "1 is less than"]),
        (
            "maxPixels: 1000000000000",
            ["spec.dataset.maxPixels", "1000000000000"],
        ),
        (
            "minPixels: 5000, maxPixels: 1000",
            ["minPixels", "must not exceed"],
        ),
        ("prompt: 5", ["spec.dataset.prompt", "string"]),
    ] {
        fixture.document(FULL);
        fixture.replace("run.yaml", "validation:", &format!("{field}, validation:"));
        let document = std::fs::read_to_string(fixture.path("run.yaml")).unwrap();
        let ended = fixture.run_document(&document);
        ended.failed(FailureClass::UserError, &parts);
    }
}

#[test]
fn a_file_that_is_no_document_is_named() {
    let fixture = Fixture::new();
    for (text, part) in [
        ("", "vlft.dev/v1alpha1"),
        ("kind: Job\n", "VLFineTune"),
        ("a: [1, 2", "not a YAML document"),
        ("a: *b\n", "not a YAML document"),
        ("\u{0}", "not a YAML document"),
        (
            "apiVersion: vlft.dev/v1alpha1\nkind: VLFineTune\nmetadata: {name: a}\n",
            "spec",
        ),
    ] {
        let ended = fixture.run_document(text);
        ended.failed(FailureClass::UserError, &["run.yaml", part]);
    }
    let nested = "[".repeat(10_000);
    let ended = fixture.run_document(&nested);
    ended.failed(FailureClass::UserError, &["run.yaml"]);
    std::fs::remove_file(fixture.path("run.yaml")).unwrap();
    let missing = fixture.trainer(&["run", "run.yaml"]);
    assert_eq!(missing.status.code(), Some(10));
    let message = String::from_utf8_lossy(&missing.stderr);
    assert!(
        message.contains("error: ") && message.contains("check the path"),
        "{message}"
    );
}
