//! Every strategy and every offload trains as one process that holds everything.

use trainer::engine::Precision;

use crate::fixture::Fixture;
use crate::harness::{FULL, LORA, difference, loss_difference, spec, train};

const STRATEGIES: [&str; 3] = ["Zero1", "Zero2", "Zero3"];

/// A spec with `spec.parallelism` and more lines.
pub fn sharded(base: &str, parallelism: &str) -> String {
    format!("{base}  parallelism: {{ {parallelism} }}\n")
}

#[test]
fn fifty_steps_in_double_precision_are_the_same_with_every_strategy() {
    for method in [FULL, LORA] {
        let fixture = Fixture::new("");
        let double = Precision::Float64;
        let alone = train(&fixture, &spec(method, 50, 8), 1, "alone", double);
        for strategy in STRATEGIES {
            // Two micro-batches on two ranks, then one on four.
            for (ranks, micro) in [(2, 2), (4, 2)] {
                let run = format!("{strategy}-{ranks}");
                let base = spec(method, 50, micro);
                let spec = sharded(&base, &format!("strategy: {strategy}"));
                let several = train(&fixture, &spec, ranks, &run, double);
                let off = difference(&several, &alone);
                println!("{method}, {strategy}, {ranks} ranks x {micro}: {off:.1e}");
                assert!(off <= 1e-9, "{method}, {strategy} on {ranks}: {off:e}");
            }
        }
    }
}

#[test]
fn recomputed_units_are_gathered_as_well() {
    let fixture = Fixture::new("");
    let double = Precision::Float64;
    let base = spec(FULL, 6, 4);
    let alone = train(&fixture, &base, 1, "alone", double);
    let recompute = base.replace(
        "weightDecay: 0.1",
        "weightDecay: 0.1, gradientCheckpointing: true",
    );
    let spec = sharded(&recompute, "strategy: Zero3");
    let off = difference(&train(&fixture, &spec, 2, "two", double), &alone);
    assert!(off <= 1e-9, "{off:e}");
}

#[test]
fn offloaded_states_and_parameters_train_the_same() {
    let fixture = Fixture::new("");
    let double = Precision::Float64;
    let base = spec(LORA, 6, 4);
    let alone = train(&fixture, &base, 1, "alone", double);
    for (ranks, parallelism) in [
        (1, "offload: Optimizer"),
        (1, "offload: Parameters"),
        (2, "strategy: DDP, offload: Parameters"),
        (2, "strategy: Zero2, offload: Optimizer"),
        (2, "strategy: Zero3, offload: Parameters"),
    ] {
        let spec = sharded(&base, parallelism);
        let off = difference(&train(&fixture, &spec, ranks, parallelism, double), &alone);
        assert!(off <= 1e-9, "{parallelism} on {ranks}: {off:e}");
    }
}

/// Two summands have no order, so that sharding changes not a bit of the gradients; of the norm
/// that would clip them it does.
#[test]
fn masters_are_sharded_under_mixed_precision() {
    let fixture = Fixture::new("");
    let mixed = Precision::BFloat16Mixed;
    let base = spec(FULL, 4, 4).replace("weightDecay: 0.1", "weightDecay: 0.1, maxGradNorm: 0");
    let whole = train(&fixture, &base, 2, "whole", mixed);
    for strategy in STRATEGIES {
        let spec = sharded(&base, &format!("strategy: {strategy}"));
        let off = difference(&train(&fixture, &spec, 2, strategy, mixed), &whole);
        assert_eq!(off, 0.0, "{strategy}");
    }
}

/// With clipping. The losses: Adam makes whole updates of the rounding of gradients that are zero
/// but for it, as those of key biases.
#[test]
fn three_steps_in_single_precision_have_the_same_loss_with_every_strategy() {
    let fixture = Fixture::new("");
    let single = Precision::Float32;
    let alone = train(&fixture, &spec(FULL, 3, 8), 1, "alone", single);
    for strategy in STRATEGIES {
        let spec = sharded(&spec(FULL, 3, 2), &format!("strategy: {strategy}"));
        let four = train(&fixture, &spec, 4, strategy, single);
        let off = loss_difference(&four, &alone);
        assert!(off <= 1e-5, "{strategy}: {off:e}");
    }
}

#[test]
fn a_run_goes_on_with_another_strategy_and_number_of_ranks() {
    let fixture = Fixture::new("");
    // With a constant rate a shorter run is the beginning of a longer one.
    let spec = |steps, micro, strategy: &str| {
        let base = spec(FULL, steps, micro);
        let base = base.replace("warmupSteps: 5", "warmupSteps: 5, lrScheduler: Constant");
        sharded(&base, &format!("strategy: {strategy}"))
    };
    let double = Precision::Float64;
    let alone = train(&fixture, &spec(16, 8, "DDP"), 1, "alone", double);
    let begun = train(&fixture, &spec(4, 4, "Zero3"), 2, "changing", double);
    train(&fixture, &spec(8, 8, "DDP"), 1, "changing", double);
    train(&fixture, &spec(12, 2, "Zero2"), 4, "changing", double);
    let ended = train(&fixture, &spec(16, 4, "Zero1"), 2, "changing", double);
    let off = difference(&ended, &alone);
    assert!(off <= 1e-9, "{off:e}");
    assert!(
        difference(&begun, &alone) > 1e-6,
        "the check cannot tell runs apart"
    );
}
