//! The nearest plan that fits, for a run that does not.

use super::{gibibytes, is_supported, smallest_total};
use crate::finetune::VLFineTuneSpec;
use crate::method::{Method, Qlora};
use crate::parallelism::{Offload, Strategy};
use crate::plan::model_shape::ModelShape;
use crate::training::Precision;

/// A change of a spec and how it is written.
pub(super) type Alternative = (String, VLFineTuneSpec);

/// The nearest plan that fits, in words.
pub(super) fn advice(spec: &VLFineTuneSpec, shape: &ModelShape, gpu: i64) -> String {
    let fitting = alternatives(spec).into_iter().find_map(|(words, with)| {
        let total = smallest_total(shape, &with);
        (is_supported(&with) && total <= gpu).then_some((words, total))
    });
    match fitting {
        Some((words, total)) => format!("{words} would take {}", gibibytes(total)),
        None => "no plan of this release fits; use GPUs with more memory".to_owned(),
    }
}

/// Plans in the order of how far they are from the one asked for: first those that compute the
/// same, then those that round more, then those that train less.
pub(super) fn alternatives(spec: &VLFineTuneSpec) -> Vec<Alternative> {
    let mut all = Vec::new();
    let mut add = |words: String, change: &dyn Fn(&mut VLFineTuneSpec)| {
        let mut with = spec.clone();
        change(&mut with);
        if with != *spec {
            all.push((words, with));
        }
    };
    add("training.microBatchSize: 1".into(), &|s| {
        s.training.micro_batch_size = Some(1)
    });
    add(
        "training.microBatchSize: 1 with gradientCheckpointing".into(),
        &recompute,
    );
    for strategy in [Strategy::Zero1, Strategy::Zero2, Strategy::Zero3] {
        let words = format!("parallelism.strategy: {}", strategy.as_str());
        add(words, &|s| {
            recompute(s);
            s.parallelism.strategy = strategy;
        });
    }
    for count in [2, 4, 8] {
        let words = format!("parallelism.strategy: Zero3 on {count} GPUs");
        add(words, &|s| more_gpus(s, count));
    }
    for offload in [Offload::Optimizer, Offload::Parameters] {
        let words = format!("parallelism.offload: {}", offload.as_str());
        add(words, &|s| {
            recompute(s);
            s.parallelism.offload = offload;
        });
    }
    let half = Some(Precision::BFloat16);
    add("precision: BFloat16".into(), &|s| {
        recompute(s);
        s.precision = half;
    });
    if spec.method.full.is_some() {
        add("method.lora".into(), &|s| s.method = only_lora(&s.method));
    }
    add("method.qlora".into(), &|s| s.method = only_qlora(&s.method));
    all
}

fn recompute(spec: &mut VLFineTuneSpec) {
    spec.training.micro_batch_size = Some(1);
    spec.training.gradient_checkpointing = Some(true);
}

/// All states sharded over so many GPUs of one pod.
fn more_gpus(spec: &mut VLFineTuneSpec, count: i64) {
    let more = spec.workers.gpus_per_replica() < count;
    let ranks = spec.workers.replicas * count;
    let divides = spec.training.global_batch_size % ranks.max(1) == 0;
    if more && divides {
        spec.workers.gpu.get_or_insert_default().count = count;
        spec.workers.processes_per_replica = None;
        spec.parallelism.strategy = Strategy::Zero3;
        recompute(spec);
    }
}

fn only_lora(method: &Method) -> Method {
    Method {
        towers: method.towers.clone(),
        ..Method::default()
    }
}

fn only_qlora(method: &Method) -> Method {
    let lora = method.lora.clone().unwrap_or_default();
    Method {
        lora: None,
        qlora: Some(Qlora {
            lora,
            double_quantization: true,
        }),
        towers: method.towers.clone(),
        ..Method::default()
    }
}
