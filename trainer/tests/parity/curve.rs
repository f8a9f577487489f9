//! Fifty training steps against plain PyTorch.

use std::fs;

use serde_json::json;
use trainer::data::Order;

use crate::digits;
use crate::reference::{Reference, run_script};
use crate::training::{document, train};

const STEPS: u64 = 50;
const BATCH: u64 = 8;
const MICRO_BATCH: u64 = 4;
/// No multiple of the batch, so that batches span epochs.
const SAMPLES: u32 = 20;
const SEED: u64 = 7;
const RATE: f64 = 1e-3;
const WARMUP: u64 = 5;
const DECAY: f64 = 0.1;
/// Largest difference of a step's loss, in nats.
const TOLERANCE: f64 = 1e-3;

const FAMILY: &str = "qwen2_vl";

#[test]
fn fifty_steps_follow_plain_pytorch() {
    let reference = Reference::of(FAMILY);
    let folder = tempfile::tempdir().unwrap();
    let data = digits::write("train", SAMPLES as usize, folder.path());
    let model = reference.model("tied");
    let training = json!({
        "maxSteps": STEPS, "globalBatchSize": BATCH, "microBatchSize": MICRO_BATCH,
        "learningRate": RATE, "warmupSteps": WARMUP, "weightDecay": DECAY, "seed": SEED,
        "maxGradNorm": 1.0, "logEverySteps": 1,
    });
    let spec = json!({"method": {"full": {}}, "training": training});
    let ours = train(
        &document(&model, folder.path(), spec),
        &folder.path().join("out"),
    );

    let plan = folder.path().join("plan.json");
    fs::write(&plan, plan_of_reference().to_string()).unwrap();
    let [model, data, plan] = [&model, &data, &plan].map(|path| path.to_str().unwrap());
    let theirs = run_script("5", "curve.py", &[FAMILY, model, data, plan]);
    let theirs: Vec<f64> = serde_json::from_str(&theirs).unwrap();

    assert_eq!(ours.len() as u64, STEPS);
    assert_eq!(theirs.len() as u64, STEPS);
    let differences = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs());
    let worst = differences.fold(0.0, f64::max);
    println!(
        "{FAMILY}: loss {:.4} to {:.4}, largest difference {worst:.1e}",
        ours[0], ours[49]
    );
    assert!(
        worst <= TOLERANCE,
        "{worst}\nours {ours:?}\ntheirs {theirs:?}"
    );
    assert!(
        theirs[49] < 0.5 * theirs[0],
        "the curve does not fall: {theirs:?}"
    );
}

/// The same hyperparameters in PyTorch's words, and the trainer's own order of samples.
fn plan_of_reference() -> serde_json::Value {
    let orders: Vec<Order> = (0..=STEPS * BATCH / u64::from(SAMPLES))
        .map(|epoch| Order::shuffled(SAMPLES, SEED, epoch))
        .collect();
    let sample = |position: u64| {
        let epoch = (position / u64::from(SAMPLES)) as usize;
        orders[epoch].get(position % u64::from(SAMPLES)).unwrap()
    };
    let step = |step: u64| {
        (step * BATCH..(step + 1) * BATCH)
            .map(sample)
            .collect::<Vec<_>>()
    };
    json!({
        "steps": (0..STEPS).map(step).collect::<Vec<_>>(),
        "learning_rate": RATE, "warmup_steps": WARMUP, "weight_decay": DECAY,
        "betas": [0.9, 0.999], "epsilon": 1e-8, "max_grad_norm": 1.0,
    })
}
