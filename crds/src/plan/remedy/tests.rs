use super::*;
use crate::load::load_str;
use crate::load::tests::MINIMAL;

fn spec(extra: &str) -> VLFineTuneSpec {
    load_str(&format!("{MINIMAL}{extra}")).unwrap().spec
}

/// Every rung from a spec down to where nothing is left.
fn descent(extra: &str) -> Vec<String> {
    let mut spec = spec(extra);
    let mut rungs = Vec::new();
    while let Some(change) = next(&spec) {
        rungs.push(format!(
            "{} {} -> {}",
            change.field(),
            change.from(&spec),
            change.to()
        ));
        change.apply(&mut spec);
        assert!(batch_plan(&spec, GPU_MICRO_BATCH).is_ok(), "{rungs:?}");
        assert!(rungs.len() < 40, "{rungs:?}");
    }
    rungs
}

#[test]
fn on_a_cpu_the_micro_batch_comes_first_then_recomputation() {
    let rungs = descent("  workers: { device: CPU }\n  training: { globalBatchSize: 8 }");
    let expected = [
        "training.microBatchSize 8 -> 4",
        "training.microBatchSize 4 -> 2",
        "training.microBatchSize 2 -> 1",
        "training.gradientCheckpointing false -> true",
        "training.lossChunk chosen -> 128",
        "training.lossChunk 128 -> 32",
    ];
    assert_eq!(rungs[..6], expected);
}

#[test]
fn the_global_batch_stays() {
    let mut spec = spec("  training: { globalBatchSize: 18, microBatchSize: 9 }");
    let plan = |spec: &VLFineTuneSpec| {
        let plan = batch_plan(spec, GPU_MICRO_BATCH).unwrap();
        (plan.micro_batch_size, plan.accumulation_steps)
    };
    for expected in [(9, 2), (3, 6), (1, 18)] {
        assert_eq!(plan(&spec), expected);
        if let Some(change @ Change::MicroBatchSize(_)) = next(&spec) {
            change.apply(&mut spec);
        }
    }
    assert_eq!(next(&spec), Some(Change::LossChunk(128)));
}

#[test]
fn data_is_reduced_only_where_allowed() {
    let at_the_end = "  training: { globalBatchSize: 1, lossChunk: 16 }\n  dataset: { maxLength: 1024, train: [{ uri: pvc://d/a }] }";
    let base = MINIMAL.split("  dataset:").next().unwrap();
    let load = |policy: &str| {
        load_str(&format!("{base}{at_the_end}\n{policy}"))
            .unwrap()
            .spec
    };
    let denied = load("");
    let mut rungs = Vec::new();
    let mut spec = denied.clone();
    while let Some(change) = next(&spec) {
        rungs.push(change);
        change.apply(&mut spec);
    }
    let data = |change: &Change| change.field().starts_with("dataset.");
    assert!(!rungs.iter().any(data), "{rungs:?}");
    let mut spec = denied;
    spec.run_policy.oom_may_reduce = vec![DataReduction::MaxPixels, DataReduction::MaxLength];
    let mut rungs = Vec::new();
    while let Some(change) = next(&spec) {
        rungs.push(change);
        change.apply(&mut spec);
    }
    let reductions: Vec<_> = rungs.into_iter().filter(data).collect();
    assert_eq!(reductions.first(), Some(&Change::MaxPixels(602_112)));
    assert_eq!(reductions.last(), Some(&Change::MaxLength(256)));
    assert_eq!(spec.dataset.max_pixels, Some(75_264));
}

#[test]
fn one_process_is_never_sharded() {
    assert_eq!(sharding(&spec("")), None);
    let two = spec("  workers: { gpu: { count: 2 } }");
    assert_eq!(sharding(&two), Some(Change::Strategy(Strategy::Zero2)));
}

#[test]
fn a_rung_that_the_release_cannot_act_on_is_left_out() {
    let two = spec("  workers: { gpu: { count: 2 } }");
    let change = Change::Strategy(Strategy::Zero3);
    let mut changed = two.clone();
    change.apply(&mut changed);
    let named = unsupported_parts(&changed).len() > unsupported_parts(&two).len();
    assert_eq!(is_supported(change, &two), !named);
}

#[test]
fn changes_are_read_back_and_applied_once_more() {
    let mut spec = spec("  training: { globalBatchSize: 16 }");
    let mut adjustments = Vec::new();
    for _ in 0..4 {
        let Some(change) = next(&spec) else { break };
        assert_eq!(Change::read(change.field(), &change.to()), Some(change));
        adjustments.push(Adjustment {
            field: change.field().to_owned(),
            to: change.to(),
            ..Adjustment::default()
        });
        change.apply(&mut spec);
    }
    let mut again = self::spec("  training: { globalBatchSize: 16 }");
    apply_all(&mut again, &adjustments);
    assert_eq!(again, spec);
    apply_all(&mut again, &adjustments);
    assert_eq!(again, spec);
    assert_eq!(Change::read("training.microBatchSize", "-3"), None);
    assert_eq!(Change::read("other", "1"), None);
}

#[test]
fn an_edit_that_needs_less_is_not_turned_back() {
    let mut spec = spec("  training: { globalBatchSize: 12, microBatchSize: 1 }");
    Change::MicroBatchSize(4).apply(&mut spec);
    assert_eq!(spec.training.micro_batch_size, Some(1));
    // Another global batch: the size is one that divides it.
    spec.training.micro_batch_size = None;
    spec.training.global_batch_size = 9;
    Change::MicroBatchSize(4).apply(&mut spec);
    assert_eq!(spec.training.micro_batch_size, Some(3));
}
