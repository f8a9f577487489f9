//! What the resource already has words for, but this release does not do yet. One list for
//! operator and trainer: nothing is ever ignored in silence.

use crate::dataset::{DatasetFormat, DatasetSource, Truncation};
use crate::finetune::VLFineTuneSpec;
use crate::parallelism::{Offload, Strategy};
use crate::run_policy::OomPolicy;
use crate::scheduling::Gang;
use crate::training::Precision;
use crate::uri::Uri;

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
    let mut found = Vec::new();
    locations(spec, &mut found);
    dataset(spec, &mut found);
    method(spec, &mut found);
    parallelism(spec, &mut found);
    evaluation(spec, &mut found);
    scheduling(spec, &mut found);
    run_policy(spec, &mut found);
    found
}

fn note(found: &mut Vec<Unsupported>, present: bool, field: &str, remedy: &'static str) {
    if present {
        found.push(Unsupported {
            field: field.to_owned(),
            remedy,
        });
    }
}

fn is_remote(uri: &str) -> bool {
    matches!(
        Uri::parse(uri),
        Ok(Uri::Hub { .. } | Uri::ObjectStore { .. })
    )
}

fn locations(spec: &VLFineTuneSpec, found: &mut Vec<Unsupported>) {
    const REMEDY: &str = "copy it to a volume and use pvc://CLAIM/PATH";
    note(found, is_remote(&spec.model.uri), "spec.model.uri", REMEDY);
    let sources = |list: &[DatasetSource], name: &str, found: &mut Vec<Unsupported>| {
        for (i, source) in list.iter().enumerate() {
            let field = format!("spec.dataset.{name}[{i}].uri");
            note(found, is_remote(&source.uri), &field, REMEDY);
            let root = source.image_root.as_deref().is_some_and(is_remote);
            let field = format!("spec.dataset.{name}[{i}].imageRoot");
            note(found, root, &field, REMEDY);
        }
    };
    sources(&spec.dataset.train, "train", found);
    sources(&spec.dataset.validation, "validation", found);
    note(
        found,
        spec.output.uri.is_some(),
        "spec.output.uri",
        "remove it: the model is exported beside the checkpoints",
    );
}

fn dataset(spec: &VLFineTuneSpec, found: &mut Vec<Unsupported>) {
    let dataset = &spec.dataset;
    let format = matches!(
        dataset.format,
        Some(
            DatasetFormat::Conversations
                | DatasetFormat::QuestionAnswer
                | DatasetFormat::Parquet
                | DatasetFormat::WebDataset
        )
    );
    note(
        found,
        format,
        "spec.dataset.format",
        "use ImageText or Messages",
    );
    let mixed = dataset.train.len() > 1 || dataset.validation.len() > 1;
    note(found, mixed, "spec.dataset.train", "give one source only");
    let cut = dataset.truncation == Truncation::Text;
    note(found, cut, "spec.dataset.truncation", "use Drop or Error");
    note(found, dataset.packing, "spec.dataset.packing", "remove it");
    note(
        found,
        dataset.preflight,
        "spec.dataset.preflight",
        "run `trainer validate` first",
    );
}

fn method(spec: &VLFineTuneSpec, found: &mut Vec<Unsupported>) {
    let method = &spec.method;
    let other = [
        (method.qlora.is_some(), "spec.method.qlora"),
        (method.freeze.is_some(), "spec.method.freeze"),
        (method.adapter.is_some(), "spec.method.adapter"),
    ];
    for (present, field) in other {
        note(found, present, field, "use method.full or method.lora");
    }
    let lora = method.lora.as_ref();
    let dora = lora.is_some_and(|lora| lora.use_dora);
    note(found, dora, "spec.method.lora.useDora", "remove it");
    let half = spec.precision == Some(Precision::Float16Mixed);
    note(
        found,
        half,
        "spec.precision",
        "use Float32, BFloat16Mixed or BFloat16",
    );
}

fn parallelism(spec: &VLFineTuneSpec, found: &mut Vec<Unsupported>) {
    const ONE: &str = "use one replica with one process";
    note(
        found,
        spec.workers.replicas > 1,
        "spec.workers.replicas",
        ONE,
    );
    let processes = spec.workers.processes() > 1;
    note(found, processes, "spec.workers.processesPerReplica", ONE);
    let offload = spec.parallelism.offload != Offload::None;
    note(found, offload, "spec.parallelism.offload", "use None");
    let many = spec.workers.world_size() > 1;
    let sharded = !matches!(spec.parallelism.strategy, Strategy::Auto | Strategy::Ddp);
    // With one process every strategy means the same: nothing is sharded.
    note(
        found,
        many && sharded,
        "spec.parallelism.strategy",
        "use Auto",
    );
}

fn evaluation(spec: &VLFineTuneSpec, found: &mut Vec<Unsupported>) {
    let evaluation = &spec.evaluation;
    let text = !evaluation.metrics.is_empty();
    note(
        found,
        text,
        "spec.evaluation.metrics",
        "run `trainer generate` on the exported model",
    );
    let stop = evaluation.early_stopping.is_some();
    note(found, stop, "spec.evaluation.earlyStopping", "remove it");
}

fn scheduling(spec: &VLFineTuneSpec, found: &mut Vec<Unsupported>) {
    let gang = spec.scheduling.gang != Gang::None;
    note(found, gang, "spec.scheduling.gang", "use None");
    let claims = !spec
        .workers
        .pod_overrides
        .resource_claim_templates
        .is_empty();
    note(
        found,
        claims,
        "spec.workers.podOverrides.resourceClaimTemplates",
        "remove it",
    );
}

fn run_policy(spec: &VLFineTuneSpec, found: &mut Vec<Unsupported>) {
    let policy = &spec.run_policy;
    let adapt = policy.oom_policy == OomPolicy::Adapt;
    note(found, adapt, "spec.runPolicy.oomPolicy", "use Fail");
    let hang = policy.hang_timeout_seconds.is_some();
    note(
        found,
        hang,
        "spec.runPolicy.hangTimeoutSeconds",
        "remove it",
    );
    let fork = spec.resume_from.is_some();
    note(
        found,
        fork,
        "spec.resumeFrom",
        "remove it: a run resumes from its own checkpoints",
    );
}
