//! The formula of `crds/src/plan/memory.rs` against what libtorch's CPU tensors really take at
//! the peak of a step. CUDA context, NCCL and the caching allocator are terms of their own there
//! and not seen here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use tch::{Device, Kind, Tensor};
use trainer::batch::{Batch, Cursor, IGNORE_INDEX, VisionBatch};
use trainer::engine::{EngineOptions, Precision, Recompute};
use trainer::models::qwen2_vl::preset::{Preset, TokenIds};
use trainer::models::{self, LoraOptions, LoraTargets, Method, ModelOptions, Towers, random};
use trainer::optim::{AdamW, AdamWSettings, LearningRates, clip_grad_norm, grad_norm};
use vlft_crds::VLFineTuneSpec;
use vlft_crds::plan::memory::{MemoryParts, Workload, estimate};
use vlft_crds::plan::model_shape::{ModelShape, read_config};

/// Largest difference between prediction and measurement.
const TOLERANCE: f64 = 0.03;

const VOCABULARY: usize = 4096;
/// Samples of so many tokens, of which an image of 12 x 12 patches takes a quarter of their number.
const LENGTH: i64 = 128;
const SIDE: i64 = 12;
const IMAGE_TOKENS: i64 = SIDE * SIDE / 4;
const PATCH_VALUES: i64 = 3 * 2 * 14 * 14;

/// One plan: what the document says, and how many samples run at once.
struct Case {
    spec: String,
    samples: i64,
}

const FULL: &str = "method: { full: {} }";
const LORA: &str = "method: { lora: { rank: 16 } }";
const LORA_ALL: &str =
    "method: { lora: { rank: 16 }, towers: { vision: {}, projector: {}, language: {} } }";
const TEXT: &str = "method: { full: {}, towers: { vision: { train: false }, projector: { train: false }, language: {} } }";

/// Methods x precisions x recomputation; bfloat16 is slow on many CPUs, so not all of all.
fn cases() -> Vec<Case> {
    let mixed = ["Float32", "BFloat16Mixed"];
    let mut cases = Vec::new();
    for (method, precisions, samples) in [
        (FULL, &mixed[..], 4),
        (FULL, &["BFloat16"][..], 1),
        (LORA, &mixed[..], 4),
        (LORA, &["BFloat16"][..], 1),
        (LORA_ALL, &mixed[..], 1),
        (TEXT, &mixed[..], 4),
    ] {
        for precision in precisions {
            for recompute in [false, true] {
                let spec = format!(
                    "  {method}\n  precision: {precision}\n  training: {{ gradientCheckpointing: {recompute} }}\n"
                );
                cases.push(Case { spec, samples });
            }
        }
    }
    cases
}

fn load(extra: &str) -> VLFineTuneSpec {
    let text = format!(
        "apiVersion: vlft.dev/v1alpha1\nkind: VLFineTune\nmetadata: {{ name: measured }}\nspec:\n  \
         model: {{ uri: file:///m }}\n  dataset: {{ train: [{{ uri: file:///d }}] }}\n  workers: {{ \
         device: CPU }}\n{extra}"
    );
    vlft_crds::load::load_str(&text).unwrap().spec
}

/// The model of 65 million parameters, in bfloat16 or float32 as it would be read.
fn write_model(folder: &Path) -> ModelShape {
    let ids = TokenIds {
        vocabulary: VOCABULARY,
        end_of_text: 0,
        end_of_turn: 1,
        vision_start: 2,
        vision_end: 3,
        vision_pad: 4,
        image_pad: 5,
        video_pad: 6,
    };
    let config = Preset::Small.config(&ids);
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let tensors = Preset::Small.tensors(VOCABULARY);
    random::write_safetensors(&folder.join("model.safetensors"), &tensors, 1).unwrap();
    read_config(&config).unwrap()
}

fn options(spec: &VLFineTuneSpec) -> ModelOptions {
    use vlft_crds::plan::resolve;
    use vlft_crds::training::Precision as Spec;
    let towers = resolve::towers(spec);
    let recompute = resolve::gradient_checkpointing(spec);
    let method = match &spec.method.lora {
        None => Method::Full,
        Some(lora) => Method::Lora(LoraOptions {
            rank: lora.rank,
            alpha: lora.alpha,
            dropout: 0.0,
            targets: LoraTargets::AllLinear,
        }),
    };
    ModelOptions {
        engine: EngineOptions {
            precision: match resolve::precision(spec) {
                Spec::Float32 => Precision::Float32,
                Spec::BFloat16 => Precision::BFloat16,
                _ => Precision::BFloat16Mixed,
            },
            device: Device::Cpu,
            recompute: Recompute {
                vision: recompute,
                language: recompute,
            },
            loss_chunk: None,
            seed: 1,
        },
        method,
        towers: Towers {
            vision: towers.vision,
            projector: towers.projector,
            language: towers.language,
        },
    }
}

/// Samples of one image and text; every text token is supervised.
fn batch(samples: i64) -> Batch {
    let long = (Kind::Int64, Device::Cpu);
    let (tokens, patches) = (samples * LENGTH, samples * SIDE * SIDE);
    let starts = Tensor::arange(samples, long) * LENGTH;
    let within = Tensor::arange(IMAGE_TOKENS, long);
    let placeholders = (starts.unsqueeze(1) + within.unsqueeze(0)).view(-1);
    let ids = Tensor::full([tokens], 7, long).index_fill(0, &placeholders, 5);
    let positions = Tensor::arange(tokens, long)
        .remainder(LENGTH)
        .expand([3, -1], false);
    let labels = Tensor::full([tokens], 9, long);
    Batch {
        input_ids_t: ids,
        labels_t: labels.index_fill(0, &placeholders, IGNORE_INDEX),
        position_ids_at: positions.contiguous(),
        segments: vec![LENGTH; samples as usize],
        vision: Some(VisionBatch {
            pixel_values_pd: Tensor::zeros([patches, PATCH_VALUES], (Kind::Float, Device::Cpu)),
            grids_thw: vec![[1, SIDE, SIDE]; samples as usize],
            originals_hw: vec![[14 * SIDE, 14 * SIDE]; samples as usize],
            placeholder_positions_n: placeholders,
        }),
        supervised_tokens: samples * (LENGTH - IMAGE_TOKENS),
        cursor: Cursor::default(),
    }
}

/// Bytes at the peak of a step; all states are there from the start.
fn measure(folder: &Path, spec: &VLFineTuneSpec, samples: i64) -> i64 {
    let before = torch_ext::cpu_memory().current;
    let mut model = models::load(folder, &options(spec)).unwrap();
    let settings = AdamWSettings {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
    };
    let mut optimizer = AdamW::new(model.parameters().buffers(), settings).unwrap();
    let batch = batch(samples);
    torch_ext::reset_cpu_peak();
    model.parameters_mut().zero_grad().unwrap();
    let supervised = batch.supervised_tokens as f64;
    model.forward_backward(&batch, supervised, 1).unwrap();
    let buffers = model.parameters_mut().buffers_mut();
    let norm = grad_norm(buffers).unwrap();
    clip_grad_norm(buffers, norm, 1.0).unwrap();
    optimizer
        .step(buffers, &LearningRates::uniform(1e-4))
        .unwrap();
    torch_ext::cpu_memory().peak - before
}

/// What the formula says, with what is only so on a CPU: frozen weights of the file's own kind
/// stay mapped, and the loader's float32 pixels lie beside their narrower copy.
fn predict(shape: &ModelShape, spec: &VLFineTuneSpec, samples: i64) -> i64 {
    use vlft_crds::training::Precision as Spec;
    let workload = Workload {
        tokens: samples * LENGTH,
        patches: samples * SIDE * SIDE,
        supervised: samples * (LENGTH - IMAGE_TOKENS),
    };
    let parts: MemoryParts = estimate(shape, spec, workload);
    let narrow = spec.precision != Some(Spec::Float32);
    let frozen = match spec.method.full {
        Some(_) => frozen_towers(shape, spec),
        None => shape.parameters(),
    };
    let mapped = if narrow { 0 } else { 4 * frozen };
    let pixels = if narrow {
        4 * workload.patches * PATCH_VALUES
    } else {
        0
    };
    parts.total() - mapped + pixels
}

fn frozen_towers(shape: &ModelShape, spec: &VLFineTuneSpec) -> i64 {
    use vlft_crds::plan::memory::trained_parameters;
    shape.parameters() - trained_parameters(shape, spec)
}

#[test]
fn the_formula_is_within_three_percent_of_what_is_allocated() {
    torch_ext::install_cpu_allocator().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let shape = write_model(folder.path());
    let mut wrong = Vec::new();
    for Case {
        spec: text,
        samples,
    } in cases()
    {
        let spec = load(&text);
        let measured = measure(folder.path(), &spec, samples);
        let predicted = predict(&shape, &spec, samples);
        let error = predicted as f64 / measured as f64 - 1.0;
        let line = format!(
            "{:>7.1} MB predicted, {:>7.1} MB measured, {:>+6.1} %: {samples} samples, {}",
            predicted as f64 / 1e6,
            measured as f64 / 1e6,
            100.0 * error,
            text.replace('\n', " "),
        );
        println!("{line}");
        if error.abs() > TOLERANCE {
            wrong.push(line);
        }
    }
    assert!(
        wrong.is_empty(),
        "beyond {TOLERANCE}:\n{}",
        wrong.join("\n")
    );
}
