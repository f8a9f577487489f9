use super::*;
use crate::load::load_str;
use crate::load::tests::MINIMAL;
use crate::plan::model_shape::in_catalog;

const HARDWARE: Hardware = Hardware {
    gpu_memory: 80 << 30,
    flops_per_second: 4e14,
    bytes_per_second: 4e10,
};

fn shape() -> ModelShape {
    in_catalog("Qwen/Qwen2-VL-7B-Instruct").unwrap().shape
}

fn spec(extra: &str) -> VLFineTuneSpec {
    load_str(&format!("{MINIMAL}{extra}")).unwrap().spec
}

fn full(strategy: &str, gpus: i64) -> VLFineTuneSpec {
    spec(&format!(
        "  method: {{ full: {{}} }}\n  parallelism: {{ strategy: {strategy} }}\n  workers: {{ gpu: {{ count: {gpus} }} }}"
    ))
}

#[test]
fn a_ring_sends_all_but_one_part_and_an_all_reduce_twice() {
    let traffic = Traffic {
        all_reduce: 1000,
        reduce_scatter: 500,
        all_gather: 500,
    };
    assert_eq!(traffic.sent(1), 0);
    assert_eq!(traffic.sent(2), 1500);
    assert_eq!(traffic.sent(4), 2250);
}

#[test]
fn gradients_travel_in_float32_and_weights_in_bfloat16() {
    let shape = shape();
    let n = shape.parameters();
    let ddp = traffic(&shape, &full("DDP", 4), 3);
    assert_eq!((ddp.all_reduce, ddp.all_gather), (4 * n, 0));
    // Padded to a multiple of 4 x 32 elements for each buffer.
    let zero1 = traffic(&shape, &full("Zero1", 4), 3);
    let close = |a: i64, b: i64| (a - b).abs() < b / 10_000;
    assert!(
        close(zero1.reduce_scatter, 4 * n) && close(zero1.all_gather, 2 * n),
        "{zero1:?}"
    );
    let zero2 = traffic(&shape, &full("Zero2", 4), 3);
    assert_eq!(zero2.reduce_scatter, 3 * zero1.reduce_scatter);
    assert_eq!(zero2.all_gather, zero1.all_gather);
    let zero3 = traffic(&shape, &full("Zero3", 4), 3);
    assert_eq!(zero3.reduce_scatter, 3 * zero1.reduce_scatter);
    // Twice for each of three micro-batches, but for the head, which is used once.
    let head = 2 * 152_064 * 3_584;
    assert!(
        close(zero3.all_gather, 6 * zero1.all_gather - 3 * head),
        "{zero3:?}"
    );
    assert_eq!(traffic(&shape, &full("DDP", 1), 3), Traffic::default());
}

#[test]
fn lora_sends_its_matrices_and_level_three_gathers_what_is_frozen() {
    let shape = shape();
    let lora = |strategy: &str| {
        spec(&format!(
            "  parallelism: {{ strategy: {strategy} }}\n  workers: {{ gpu: {{ count: 2 }} }}"
        ))
    };
    let ddp = traffic(&shape, &lora("DDP"), 1);
    assert!(ddp.all_reduce < shape.parameters() / 20, "{ddp:?}");
    let zero3 = traffic(&shape, &lora("Zero3"), 1);
    // Backward comes down to the first decoder block: only these are gathered twice.
    let blocks = shape.units.iter();
    let blocks = blocks.filter(|unit| matches!(unit.kind, UnitKind::Decoder(_)));
    let blocks: i64 = blocks.map(|unit| unit.count * unit.parameters()).sum();
    let frozen = 2 * (shape.parameters() + blocks);
    let adapters = 2 * 2 * ddp.all_reduce / 4;
    let padding = (zero3.all_gather - frozen - adapters).abs();
    assert!(padding < frozen / 10_000, "{zero3:?}, {frozen}, {adapters}");
}

/// Six operations a parameter and token (Kaplan et al. 2020), and two more with recomputation.
#[test]
fn operations_of_text_are_six_a_parameter_and_token() {
    let shape = shape();
    let workload = Workload {
        tokens: 16,
        patches: 0,
        supervised: 16,
    };
    let mut spec = spec("  method: { full: {} }\n  training: { gradientCheckpointing: false }");
    spec.dataset.max_length = 16;
    let blocks = 28.0 * 233_057_792.0;
    let head = 152_064.0 * 3584.0;
    let expected = 6.0 * 16.0 * (blocks + head);
    let found = step_flops(&shape, &spec, workload);
    assert!(
        (found / expected - 1.0).abs() < 0.001,
        "{found:e} {expected:e}"
    );
    spec.training.gradient_checkpointing = Some(true);
    let again = step_flops(&shape, &spec, workload) - found;
    assert!(
        (again / (2.0 * 16.0 * blocks) - 1.0).abs() < 0.001,
        "{again:e}"
    );
    // Frozen weights need no gradient of their own, a frozen tower below none at all.
    spec.method = serde_json::from_str(r#"{"lora": {}}"#).unwrap();
    let lora = step_flops(&shape, &spec, workload);
    assert!(lora < found + again - 16.0 * 2.0 * blocks * 0.9, "{lora:e}");
}

#[test]
fn a_step_is_compute_and_communication() {
    let mut spec = full("DDP", 8);
    spec.training.global_batch_size = 64;
    spec.training.micro_batch_size = Some(2);
    let found = predict(&shape(), &spec, HARDWARE);
    assert_eq!((found.micro_batch_size, found.accumulation_steps), (2, 4));
    assert_eq!(found.tokens, 64 * 2048);
    assert!(!found.fits, "16 bytes a parameter");
    let sent = found.traffic.sent(8) as f64 / 4e10;
    assert!((found.communication_seconds - sent).abs() < 1e-9);
    let (overlapped, apart) = found.step_seconds();
    assert!(overlapped < apart && apart < 2.0 * overlapped + 1e-9);
    let faster = Hardware {
        flops_per_second: 8e14,
        ..HARDWARE
    };
    let half = predict(&shape(), &spec, faster).compute_seconds * 2.0;
    assert!((half / found.compute_seconds - 1.0).abs() < 1e-9);
}

#[test]
fn level_three_fits_where_whole_states_do_not() {
    let mut spec = full("Zero3", 8);
    spec.training.global_batch_size = 64;
    let found = predict(&shape(), &spec, HARDWARE);
    assert!(found.fits, "{:?}", found.memory);
    assert!(found.micro_batch_size > 1);
}
