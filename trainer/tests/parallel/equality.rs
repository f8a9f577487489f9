//! One rank, two and four end with the same weights, in double precision.

use trainer::engine::Precision;

use crate::fixture::Fixture;
use crate::harness::{FULL, LORA, difference, loss_difference, spec, train};

#[test]
fn fifty_steps_in_double_precision_are_the_same_on_any_number_of_ranks() {
    for method in [FULL, LORA] {
        let fixture = Fixture::new("");
        let double = Precision::Float64;
        let alone = train(&fixture, &spec(method, 50, 8), 1, "alone", double);
        // Accumulation 4 x 2 = 1 x 8, then the same batch over two and four ranks.
        for (ranks, micro) in [(1, 2), (2, 4), (2, 1), (4, 2)] {
            let run = format!("run-{ranks}-{micro}");
            let spec = spec(method, 50, micro);
            let several = train(&fixture, &spec, ranks, &run, double);
            let off = difference(&several, &alone);
            println!("{method}, {ranks} ranks x {micro}: {off:.1e}");
            assert!(off <= 1e-9, "{method}: {ranks} ranks x {micro}: {off:e}");
        }
    }
}

/// The losses: Adam's first steps turn the rounding of tiny gradients into whole updates.
#[test]
fn three_steps_in_single_precision_have_the_same_loss() {
    let fixture = Fixture::new("");
    let single = Precision::Float32;
    let alone = train(&fixture, &spec(FULL, 3, 8), 1, "alone", single);
    let four = train(&fixture, &spec(FULL, 3, 2), 4, "four", single);
    let off = loss_difference(&four, &alone);
    assert!(off <= 1e-5, "{off:e}");
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let fixture = Fixture::new("");
    // With a constant rate a shorter run is the beginning of a longer one.
    let spec = |steps, micro| {
        spec(FULL, steps, micro).replace("warmupSteps: 5", "warmupSteps: 5, lrScheduler: Constant")
    };
    let double = Precision::Float64;
    let alone = train(&fixture, &spec(12, 8), 1, "alone", double);
    train(&fixture, &spec(4, 4), 2, "changing", double);
    let one = train(&fixture, &spec(8, 8), 1, "changing", double);
    let four = train(&fixture, &spec(12, 2), 4, "changing", double);
    let off = difference(&four, &alone);
    assert!(off <= 1e-9, "{off:e}");
    assert!(
        difference(&one, &alone) > 1e-6,
        "the check cannot tell runs apart"
    );
}
