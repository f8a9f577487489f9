//! What a run does to the weights, held against arithmetic.

use std::path::Path;

use tch::{Kind, Tensor};
use trainer::checkpoint::TensorFile;

use crate::fixture::{FULL, Fixture, lora};

/// Each tensor of a file, in float64.
fn tensors(path: &Path) -> Vec<(String, Tensor)> {
    let file = TensorFile::open(path).unwrap();
    let read = |name: String| {
        let tensor = file.tensor(&name).unwrap().to_kind(Kind::Double);
        (name, tensor)
    };
    file.names().into_iter().map(read).collect()
}

/// Largest difference of an element.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

/// With gradients clipped to nothing, decay alone moves weights: matrices by a known factor,
/// norms and biases not at all.
#[test]
fn decay_shrinks_matrices_alone_and_clipped_gradients_move_nothing() {
    let fixture = Fixture::new();
    let spec = FULL.replace(
        "maxSteps: 6",
        "maxSteps: 3, lrScheduler: Constant, weightDecay: 2.0, maxGradNorm: 1.0e-9, adamEpsilon: 1.0e-2",
    );
    let spec = spec.replace("1.0e-3, warmupSteps: 1", "1.0e-2, warmupSteps: 0");
    fixture.train(&spec).completed();
    let before = tensors(&fixture.path("model/model.safetensors"));
    let after = tensors(&fixture.path("out/model/model.safetensors"));
    assert_eq!(before.len(), after.len());
    // 1 - rate x decay, three times.
    let factor = 0.98_f64.powi(3);
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        let expected = match before.dim() {
            1 => before.shallow_clone(),
            _ => before * factor,
        };
        let off = difference(after, &expected);
        assert!(off < 1e-6, "{name}: {off:e}");
    }
    let unclipped = spec.replace("maxGradNorm: 1.0e-9", "maxGradNorm: 0.0");
    fixture.start(&unclipped, "unclipped").end().completed();
    let moved = tensors(&fixture.path("unclipped/model/model.safetensors"));
    let off = moved
        .iter()
        .zip(&after)
        .map(|(a, b)| difference(&a.1, &b.1));
    assert!(off.fold(0.0, f64::max) > 1e-5, "the check cannot tell");
}

/// `W + alpha / rank x B A` for each adapter, and every other weight as it was.
#[test]
fn merged_weights_are_the_base_and_the_scaled_update() {
    let fixture = Fixture::new();
    let spec = lora().replace("rank: 4", "rank: 4, alpha: 12.0");
    fixture.train(&spec).completed();
    let adapter = tensors(&fixture.path("out/adapter/adapter_model.safetensors"));
    let update = |weight: &str| {
        let module = weight.strip_prefix("model.")?.strip_suffix(".weight")?;
        let part = |part: &str| {
            let suffix = format!("{module}.{part}.weight");
            let found = adapter.iter().find(|(name, _)| name.ends_with(&suffix));
            found.map(|(_, tensor)| tensor)
        };
        Some(part("lora_B")?.matmul(part("lora_A")?) * (12.0 / 4.0))
    };
    let before = tensors(&fixture.path("model/model.safetensors"));
    let after = tensors(&fixture.path("out/model/model.safetensors"));
    let mut updated = 0;
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        let Some(update) = update(name) else {
            assert_eq!(before, after, "{name}");
            continue;
        };
        updated += 1;
        assert!(update.abs().max().double_value(&[]) > 1e-5, "{name}");
        let off = difference(after, &(before + update));
        assert!(off < 1e-7, "{name}: {off:e}");
    }
    // Seven linear layers in each of the two blocks.
    assert_eq!(updated, 14);
    assert_eq!(adapter.len(), 28);
}
