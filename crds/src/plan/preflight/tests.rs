use super::advice::alternatives;
use super::*;
use crate::load::load_str;
use crate::load::tests::MINIMAL;

const GIB: i64 = 1 << 30;

/// A 7B model by its name, with whatever follows.
fn spec(extra: &str) -> VLFineTuneSpec {
    let model = "qwen2-vl, baseModel: Qwen/Qwen2-VL-7B-Instruct }";
    let text = format!("{}{extra}", MINIMAL.replace("qwen2-vl }", model));
    load_str(&text)
        .unwrap_or_else(|e| panic!("{extra}: {e}"))
        .spec
}

fn on(gib: i64, extra: &str) -> Preflight {
    preflight(&spec(extra), Some(GpuMemory::of(gib * GIB)))
}

#[test]
fn a_doomed_run_is_told_what_would_fit() {
    let full = on(
        80,
        "  method: { full: {} }\n  training: { globalBatchSize: 16 }",
    );
    assert_eq!(
        (full.memory.outcome, full.memory.reason),
        (Outcome::Exceeds, MEMORY_EXCEEDS_GPU)
    );
    for word in [
        "Qwen/Qwen2-VL-7B-Instruct",
        "123.6 GiB",
        "80.0 GiB",
        "would take",
    ] {
        assert!(
            full.memory.message.contains(word),
            "{word} is missing in {}",
            full.memory.message
        );
    }
    // What is advised does fit, and is something that this release can do.
    let advised = alternatives(&full.spec).into_iter();
    let advised = advised
        .filter(|(words, _)| full.memory.message.contains(&format!("{words} would take")))
        .map(|(_, spec)| spec);
    let mut advised: Vec<_> = advised.collect();
    let advised = advised
        .pop()
        .unwrap_or_else(|| panic!("{}", full.memory.message));
    assert!(is_supported(&advised));
    let again = preflight(&advised, Some(GpuMemory::of(80 * GIB)));
    assert_eq!(
        again.memory.outcome,
        Outcome::Fits,
        "{}",
        again.memory.message
    );
}

#[test]
fn where_nothing_fits_more_memory_is_asked_for() {
    let tiny = on(4, "  method: { full: {} }");
    assert_eq!(tiny.memory.outcome, Outcome::Exceeds);
    assert!(
        tiny.memory.message.contains("GPUs with more memory"),
        "{}",
        tiny.memory.message
    );
}

#[test]
fn an_absent_micro_batch_is_the_largest_that_fits() {
    let lora = "  training: { globalBatchSize: 32 }";
    let chosen = on(80, lora);
    assert_eq!(
        chosen.memory.outcome,
        Outcome::Fits,
        "{}",
        chosen.memory.message
    );
    let size = chosen.spec.training.micro_batch_size.unwrap();
    assert!(size > 1 && 32 % size == 0, "{size}");
    let shape = in_catalog("Qwen/Qwen2-VL-7B-Instruct").unwrap().shape;
    let total = |size| at_micro_batch(&shape, &chosen.spec, size).total();
    assert!(total(size) <= 80 * GIB);
    assert!(size == 32 || total(size * 2) > 80 * GIB, "{size}");
    let smaller = on(24, lora).spec.training.micro_batch_size.unwrap();
    assert!(smaller < size, "{smaller} {size}");
}

#[test]
fn a_given_micro_batch_is_kept_and_may_be_at_risk() {
    let asked = on(
        40,
        "  training: { globalBatchSize: 64, microBatchSize: 64 }",
    );
    assert_eq!(
        (asked.memory.outcome, asked.memory.reason),
        (Outcome::AtRisk, ESTIMATE_EXCEEDS_GPU)
    );
    assert_eq!(asked.spec.training.micro_batch_size, Some(64));
    assert!(
        asked.memory.message.contains("microBatchSize: 1"),
        "{}",
        asked.memory.message
    );
}

/// It may still land on the larger one.
#[test]
fn a_run_is_doomed_only_if_it_fits_nowhere() {
    let gpus = GpuMemory {
        smallest: 24 * GIB,
        largest: 141 * GIB,
    };
    let full = preflight(&spec("  method: { full: {} }"), Some(gpus));
    assert_eq!(
        full.memory.outcome,
        Outcome::AtRisk,
        "{}",
        full.memory.message
    );
}

#[test]
fn what_is_not_known_is_said_and_blocks_nothing() {
    let unnamed = load_str(MINIMAL).unwrap().spec;
    let result = preflight(&unnamed, Some(GpuMemory::of(GIB)));
    assert_eq!(
        (result.memory.outcome, result.memory.reason),
        (Outcome::Unknown, MODEL_UNKNOWN)
    );
    assert!(
        result.memory.message.contains("spec.model.baseModel"),
        "{}",
        result.memory.message
    );
    assert_eq!((result.memory.parts, result.spec), (None, unnamed.clone()));
    let mut other = unnamed;
    other.model.base_model = Some("org/other".to_owned());
    let result = preflight(&other, None);
    assert!(
        result.memory.message.contains("org/other"),
        "{}",
        result.memory.message
    );
    let result = preflight(&spec(""), None);
    assert_eq!(
        (result.memory.outcome, result.memory.reason),
        (Outcome::Unknown, GPU_UNKNOWN)
    );
    assert!(
        result.memory.message.contains("gpu.memory"),
        "{}",
        result.memory.message
    );
    assert!(result.memory.parts.is_some());
}

#[test]
fn the_name_on_the_hub_is_enough() {
    let mut spec = load_str(MINIMAL).unwrap().spec;
    spec.model.uri = "hf://Qwen/Qwen2-VL-2B-Instruct".to_owned();
    assert_eq!(
        base_model(&spec).as_deref(),
        Some("Qwen/Qwen2-VL-2B-Instruct")
    );
    assert_eq!(
        preflight(&spec, Some(GpuMemory::of(80 * GIB)))
            .memory
            .outcome,
        Outcome::Fits
    );
}
