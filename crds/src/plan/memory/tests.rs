use super::*;
use crate::load::load_str;
use crate::plan::model_shape::in_catalog;

const GB: i64 = 1_000_000_000;

fn shape(name: &str) -> ModelShape {
    in_catalog(name).unwrap().shape
}

fn seven_b() -> ModelShape {
    shape("Qwen/Qwen2-VL-7B-Instruct")
}

fn spec(extra: &str) -> VLFineTuneSpec {
    let text = format!("{}{extra}", crate::load::tests::MINIMAL);
    load_str(&text)
        .unwrap_or_else(|e| panic!("{extra}: {e}"))
        .spec
}

/// One sample of 1,024 tokens, a quarter of them of an image.
const SAMPLE: Workload = Workload {
    tokens: 1024,
    patches: 1024,
    supervised: 768,
};

fn gigabytes(parts: MemoryParts) -> f64 {
    parts.total() as f64 / GB as f64
}

/// The tutorial's table for a 7B model at 1,024 tokens; docs/memory.md has the differences.
#[test]
fn the_tutorials_table() {
    for (extra, low, high) in [
        ("  method: { full: {} }\n  precision: Float32", 120.0, 150.0),
        ("  method: { full: {} }\n  precision: BFloat16", 60.0, 80.0),
        (
            "  precision: BFloat16\n  training: { gradientCheckpointing: false }",
            20.0,
            40.0,
        ),
    ] {
        let total = gigabytes(estimate(&seven_b(), &spec(extra), SAMPLE));
        assert!((low..high).contains(&total), "{extra}: {total:.1} GB");
    }
}

/// 16 and 8 bytes a trained parameter, exactly, but for the padding to 64 bytes.
#[test]
fn states_are_the_bytes_of_the_precision() {
    for (precision, bytes) in [("Float32", 16), ("BFloat16Mixed", 16), ("BFloat16", 8)] {
        let spec = spec(&format!(
            "  method: {{ full: {{}} }}\n  precision: {precision}"
        ));
        let shape = shape("Qwen/Qwen2-VL-2B-Instruct");
        assert_eq!(lower_bound(&shape, &spec), bytes * shape.parameters());
        assert_eq!(trained_parameters(&shape, &spec), shape.parameters());
    }
}

/// 16 parameters a rank for each of 28 blocks' seven linear layers.
#[test]
fn lora_trains_its_matrices_alone() {
    let shape = seven_b();
    let spec = spec("  method: { lora: { rank: 8 } }\n  precision: BFloat16");
    let per_block: i64 = [(3584, 3584), (3584, 512), (3584, 512), (3584, 3584)]
        .into_iter()
        .chain([(3584, 18944), (3584, 18944), (18944, 3584)])
        .map(|(inputs, outputs)| 8 * (inputs + outputs))
        .sum();
    assert_eq!(trained_parameters(&shape, &spec), 28 * per_block);
    let states = lower_bound(&shape, &spec);
    assert_eq!(states, 2 * shape.parameters() + 8 * 28 * per_block);
}

#[test]
fn targets_and_towers_narrow_what_trains() {
    let shape = seven_b();
    let all = trained_parameters(&shape, &spec("  method: { lora: {} }"));
    let some = spec("  method: { lora: { targetModules: [q_proj, mlp.up_proj] } }");
    let two = 16 * 28 * (3584 + 3584 + 3584 + 18944);
    assert_eq!(trained_parameters(&shape, &some), two);
    let more = spec("  method: { lora: {}, towers: { vision: { train: true } } }");
    assert!(trained_parameters(&shape, &more) > all);
    let frozen = "  method: { full: {}, towers: { vision: { train: false } } }";
    let trained = trained_parameters(&shape, &spec(frozen));
    assert_eq!(trained, shape.parameters() - 631_183_360);
}

#[test]
fn qlora_holds_linear_layers_in_half_a_byte() {
    let shape = seven_b();
    let lora = lower_bound(&shape, &spec("  method: { lora: {} }"));
    let qlora = lower_bound(&shape, &spec("  method: { qlora: {} }"));
    // Embedding and head stay in bfloat16.
    assert!((6 * GB..9 * GB).contains(&qlora), "{qlora}");
    assert!(lora > 16 * GB, "{lora}");
}

#[test]
fn freeze_trains_the_last_layers_alone() {
    let shape = seven_b();
    let spec = spec("  method: { freeze: { trainableLayers: 2 } }\n  precision: BFloat16");
    assert_eq!(trained_parameters(&shape, &spec), 2 * 233_057_792);
}

fn sharded(strategy: &str, ranks: i64) -> MemoryParts {
    let text = format!(
        "  method: {{ full: {{}} }}\n  parallelism: {{ strategy: {strategy} }}\n  workers: {{ gpu: {{ count: {ranks} }} }}"
    );
    estimate(&seven_b(), &spec(&text), SAMPLE)
}

#[test]
fn each_level_of_zero_shards_one_more_state() {
    let [ddp, one, two, three] = ["DDP", "Zero1", "Zero2", "Zero3"].map(|s| sharded(s, 4));
    assert_eq!(one.optimizer, sharded("Zero3", 4).optimizer);
    assert!((ddp.optimizer / 4 - one.optimizer).abs() < GB / 100);
    assert_eq!(ddp.gradients / GB, one.gradients / GB);
    assert!((ddp.gradients / 4 - two.gradients).abs() < GB / 100);
    // bfloat16 weights are whole below level 3, float32 masters a slice from level 1 on.
    assert_eq!(two.weights / GB, 16);
    assert_eq!((three.weights, three.masters / GB), (0, 8));
    assert!(ddp.states() > one.states() && one.states() > two.states());
    assert!(three.states() * 10 <= ddp.states() * 3, "{three:?}");
    assert!(three.working > 2 * GB, "two units are whole: {three:?}");
}

#[test]
fn one_rank_shards_nothing() {
    assert_eq!(sharded("Zero3", 1), sharded("DDP", 1));
}

#[test]
fn offload_moves_states_to_the_host() {
    let base = "  method: { full: {} }\n  parallelism: { offload: ";
    let optimizer = spec(&format!("{base}Optimizer }}"));
    let parts = estimate(&seven_b(), &optimizer, SAMPLE);
    assert_eq!((parts.optimizer, parts.masters), (0, 0));
    assert_eq!(parts.weights, 2 * seven_b().parameters());
    assert_eq!(parts.host, 12 * seven_b().parameters());
    let single = spec(&format!("{base}Optimizer }}\n  precision: Float32"));
    let parts = estimate(&seven_b(), &single, SAMPLE);
    assert_eq!(parts.weights, 4 * seven_b().parameters());
    assert_eq!(parts.host, 12 * seven_b().parameters());
    let parameters = spec(&format!("{base}Parameters }}"));
    let parts = estimate(&seven_b(), &parameters, SAMPLE);
    assert_eq!(parts.weights, 0);
    assert!(parts.working > 2 * GB);
}

#[test]
fn recomputation_keeps_inputs_instead_of_graphs() {
    let on = spec("  method: { full: {} }\n  training: { gradientCheckpointing: true }");
    let off = spec("  method: { full: {} }\n  training: { gradientCheckpointing: false }");
    let [on, off] = [on, off].map(|spec| estimate(&seven_b(), &spec, SAMPLE));
    assert!(on.activations * 4 < off.activations, "{on:?} {off:?}");
    assert!(on.vision * 4 < off.vision, "{on:?} {off:?}");
    // Without it the bfloat16 copies of all units live until their backward.
    assert!(off.working > 15 * GB, "{off:?}");
}

#[test]
fn a_frozen_tower_keeps_no_graph() {
    let lora = spec("  method: { lora: {} }\n  training: { gradientCheckpointing: false }");
    let full = spec("  method: { full: {} }\n  training: { gradientCheckpointing: false }");
    let [lora, full] = [lora, full].map(|spec| estimate(&seven_b(), &spec, SAMPLE));
    assert!(lora.vision * 10 < full.vision, "{lora:?} {full:?}");
}

#[test]
fn the_total_is_the_sum_of_its_parts_and_grows_with_the_batch() {
    let spec = spec("  method: { full: {} }");
    let shape = seven_b();
    let of = |samples| estimate(&shape, &spec, Workload::largest(&shape, &spec, samples));
    let (one, two) = (of(1), of(2));
    assert_eq!(one.total(), one.states() + one.transient() + one.overhead);
    assert_eq!(one.states(), two.states());
    assert!(two.transient() > one.transient());
}

#[test]
fn the_chunk_bounds_the_logits() {
    let small = spec(
        "  method: { full: {} }\n  training: { lossChunk: 512, gradientCheckpointing: false }\n  precision: BFloat16",
    );
    let parts = estimate(&seven_b(), &small, SAMPLE);
    let large = spec(
        "  method: { full: {} }\n  training: { lossChunk: 768, gradientCheckpointing: false }\n  precision: BFloat16",
    );
    let more = estimate(&seven_b(), &large, SAMPLE);
    assert_eq!(more.logits - parts.logits, 8 * (768 - 512) * 152_064);
}

/// Whatever a document may ask for, nothing overflows.
#[test]
fn absurd_sizes_saturate() {
    let mut spec = spec("  method: { full: {} }");
    spec.dataset.max_length = i64::MAX;
    let shape = shape("Qwen/Qwen2-VL-72B-Instruct");
    let workload = Workload::largest(&shape, &spec, i64::MAX);
    assert_eq!(estimate(&shape, &spec, workload).total(), i64::MAX);
}
