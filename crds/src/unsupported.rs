//! What the resource already has words for, but this release does not do yet. One list for
//! operator and trainer: nothing is ever ignored in silence.
//!
//! Every section is taken apart without `..`, so that a new field does not compile before it is
//! said here who acts on it. `_` is a field that is acted on.

use crate::checkpoint::{Checkpoint, CheckpointVolume};
use crate::dataset::{Dataset, DatasetFormat, DatasetSource, Truncation};
use crate::evaluation::Evaluation;
use crate::finetune::VLFineTuneSpec;
use crate::method::{Lora, Method};
use crate::model::Model;
use crate::output::Output;
use crate::parallelism::Parallelism;
use crate::run_policy::RunPolicy;
use crate::scheduling::{Gang, Scheduling};
use crate::training::{Precision, Training};
use crate::uri::Uri;
use crate::workers::{Gpu, PodOverrides, Workers};

/// Remedy for what is in no reachable place.
const COPY: &str = "copy it to a volume and use pvc://CLAIM/PATH";
const REMOVE: &str = "remove it";

/// A field whose value cannot be acted on, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// Path of the field, from `spec`.
    pub field: String,
    pub remedy: &'static str,
}

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: not supported yet; {}", self.field, self.remedy)
    }
}

/// Every part of the spec that this release cannot act on.
pub fn unsupported_parts(spec: &VLFineTuneSpec) -> Vec<Unsupported> {
    let VLFineTuneSpec {
        model,
        dataset,
        method,
        precision,
        training,
        parallelism,
        workers,
        checkpoint,
        evaluation,
        output,
        scheduling,
        run_policy,
        resume_from,
    } = spec;
    let mut found = Found::default();
    of_model(model, &mut found);
    of_dataset(dataset, &mut found);
    of_method(method, &mut found);
    let half = *precision == Some(Precision::Float16Mixed);
    let others = "use Float32, BFloat16Mixed or BFloat16";
    found.note(half, "spec.precision", others);
    of_training(training);
    of_parallelism(parallelism);
    of_workers(workers, &mut found);
    of_checkpoint(checkpoint);
    of_evaluation(evaluation, &mut found);
    of_output(output, &mut found);
    of_scheduling(scheduling, &mut found);
    of_run_policy(run_policy, workers, &mut found);
    let own = "remove it: a run resumes from its own checkpoints";
    found.note(resume_from.is_some(), "spec.resumeFrom", own);
    found.0
}

#[derive(Default)]
struct Found(Vec<Unsupported>);

impl Found {
    fn note(&mut self, present: bool, field: impl Into<String>, remedy: &'static str) {
        if present {
            let field = field.into();
            self.0.push(Unsupported { field, remedy });
        }
    }
}

fn is_remote(uri: &str) -> bool {
    matches!(
        Uri::parse(uri),
        Ok(Uri::Hub { .. } | Uri::ObjectStore { .. })
    )
}

fn of_model(model: &Model, found: &mut Found) {
    let Model {
        uri,
        // Goes with hf:// alone: the trainer looks for it in the local cache.
        revision: _,
        // The estimate of memory starts from it.
        base_model: _,
        credentials_secret_ref,
    } = model;
    found.note(is_remote(uri), "spec.model.uri", COPY);
    let secret = credentials_secret_ref.is_some();
    found.note(secret, "spec.model.credentialsSecretRef", REMOVE);
}

fn of_dataset(dataset: &Dataset, found: &mut Found) {
    let Dataset {
        train,
        validation,
        format,
        prompt: _,
        system_prompt: _,
        min_pixels: _,
        max_pixels: _,
        max_length: _,
        truncation,
        packing,
        preflight,
    } = dataset;
    of_sources(train, "spec.dataset.train", found);
    of_sources(validation, "spec.dataset.validation", found);
    let format = matches!(
        format,
        Some(
            DatasetFormat::Conversations
                | DatasetFormat::QuestionAnswer
                | DatasetFormat::Parquet
                | DatasetFormat::WebDataset
        )
    );
    found.note(format, "spec.dataset.format", "use ImageText or Messages");
    let cut = *truncation == Truncation::Text;
    found.note(cut, "spec.dataset.truncation", "use Drop or Error");
    found.note(*packing, "spec.dataset.packing", REMOVE);
    let first = "run `trainer validate` first";
    found.note(*preflight, "spec.dataset.preflight", first);
}

fn of_sources(sources: &[DatasetSource], list: &str, found: &mut Found) {
    found.note(sources.len() > 1, list, "give one source only");
    for (i, source) in sources.iter().enumerate() {
        let DatasetSource {
            uri,
            image_root,
            weight,
            credentials_secret_ref,
        } = source;
        let field = |name: &str| format!("{list}[{i}].{name}");
        found.note(is_remote(uri), field("uri"), COPY);
        let root = image_root.as_deref().is_some_and(is_remote);
        found.note(root, field("imageRoot"), COPY);
        found.note(weight.is_some(), field("weight"), REMOVE);
        let secret = credentials_secret_ref.is_some();
        found.note(secret, field("credentialsSecretRef"), REMOVE);
    }
}

fn of_method(method: &Method, found: &mut Found) {
    let Method {
        full: _,
        lora,
        qlora,
        freeze,
        adapter,
        towers: _,
    } = method;
    let others = [
        (qlora.is_some(), "spec.method.qlora"),
        (freeze.is_some(), "spec.method.freeze"),
        (adapter.is_some(), "spec.method.adapter"),
    ];
    for (present, field) in others {
        found.note(present, field, "use method.full or method.lora");
    }
    if let Some(lora) = lora {
        let Lora {
            rank: _,
            alpha: _,
            dropout: _,
            target_modules: _,
            use_dora,
            use_rslora: _,
        } = lora;
        found.note(*use_dora, "spec.method.lora.useDora", REMOVE);
    }
}

/// The trainer acts on all of them.
fn of_training(training: &Training) {
    let Training {
        epochs: _,
        max_steps: _,
        global_batch_size: _,
        micro_batch_size: _,
        learning_rate: _,
        lr_scheduler: _,
        warmup_steps: _,
        warmup_ratio: _,
        weight_decay: _,
        adam_beta1: _,
        adam_beta2: _,
        adam_epsilon: _,
        max_grad_norm: _,
        seed: _,
        gradient_checkpointing: _,
        loss_chunk: _,
        log_every_steps: _,
        max_non_finite_steps: _,
    } = training;
}

/// The trainer acts on both.
fn of_parallelism(parallelism: &Parallelism) {
    let Parallelism {
        strategy: _,
        offload: _,
    } = parallelism;
}

/// The operator acts on what it can put into a pod.
fn of_workers(workers: &Workers, found: &mut Found) {
    let Workers {
        replicas: _,
        processes_per_replica: _,
        device: _,
        gpu,
        resources: _,
        image: _,
        image_pull_policy: _,
        image_pull_secrets: _,
        node_selector: _,
        tolerations: _,
        pod_overrides,
        network_policy: _,
    } = workers;
    if let Some(gpu) = gpu {
        let Gpu {
            resource_name: _,
            count: _,
            product: _,
            memory: _,
        } = gpu;
    }
    of_pod_overrides(pod_overrides, found);
}

fn of_pod_overrides(overrides: &PodOverrides, found: &mut Found) {
    let PodOverrides {
        labels: _,
        annotations: _,
        env: _,
        service_account_name: _,
        runtime_class_name: _,
        scheduler_name: _,
        topology_spread_constraints: _,
        resource_claim_templates,
        shm_size: _,
        termination_grace_period_seconds: _,
        run_as_user: _,
        fs_group: _,
    } = overrides;
    let claims = !resource_claim_templates.is_empty();
    let field = "spec.workers.podOverrides.resourceClaimTemplates";
    found.note(claims, field, REMOVE);
}

/// The trainer acts on the first two, the operator on the volume.
fn of_checkpoint(checkpoint: &Checkpoint) {
    let Checkpoint {
        every_steps: _,
        keep_last: _,
        volume,
        deletion_policy: _,
    } = checkpoint;
    let CheckpointVolume {
        claim_name: _,
        size: _,
        storage_class_name: _,
    } = volume;
}

fn of_evaluation(evaluation: &Evaluation, found: &mut Found) {
    const GENERATE: &str = "remove it: run `trainer generate` on the exported model";
    let Evaluation {
        every_steps: _,
        metrics,
        max_samples,
        max_new_tokens,
        early_stopping,
    } = evaluation;
    found.note(!metrics.is_empty(), "spec.evaluation.metrics", GENERATE);
    let some = max_samples.is_some();
    found.note(some, "spec.evaluation.maxSamples", GENERATE);
    // Its default is always there.
    let tokens = *max_new_tokens != Evaluation::default().max_new_tokens;
    found.note(tokens, "spec.evaluation.maxNewTokens", GENERATE);
    let stop = early_stopping.is_some();
    found.note(stop, "spec.evaluation.earlyStopping", REMOVE);
}

fn of_output(output: &Output, found: &mut Found) {
    let Output {
        uri,
        adapter: _,
        max_shard_size: _,
    } = output;
    let beside = "remove it: the model is exported beside the checkpoints";
    found.note(uri.is_some(), "spec.output.uri", beside);
}

fn of_scheduling(scheduling: &Scheduling, found: &mut Found) {
    let Scheduling {
        queue_name: _,
        gang,
        priority_class_name: _,
    } = scheduling;
    found.note(*gang != Gang::None, "spec.scheduling.gang", "use None");
}

fn of_run_policy(policy: &RunPolicy, workers: &Workers, found: &mut Found) {
    let RunPolicy {
        backoff_limit: _,
        active_deadline_seconds: _,
        ttl_seconds_after_finished: _,
        delete_after_finished: _,
        suspend: _,
        backoff_limit_per_class: _,
        oom_policy: _,
        oom_may_reduce: _,
        hang_timeout_seconds,
        node_lost_timeout_seconds: _,
    } = policy;
    // It is how long ranks wait for each other.
    let hang = hang_timeout_seconds.is_some() && workers.world_size() == 1;
    let alone = "remove it: one process waits for nobody";
    found.note(hang, "spec.runPolicy.hangTimeoutSeconds", alone);
}

#[cfg(test)]
mod tests;
