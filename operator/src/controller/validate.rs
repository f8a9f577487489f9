//! Spec -> [`ValidatedFineTune`]: after it nothing can be wrong, and `build` cannot fail.
//! Knows no client and no clock.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use vlft_crds::checkpoint::DeletionPolicy;
use vlft_crds::parallelism::Strategy;
use vlft_crds::plan::batch::batch_plan;
use vlft_crds::plan::gpu::GpuMemory;
use vlft_crds::plan::preflight::{MEMORY_EXCEEDS_GPU, MemoryCheck, Outcome, Preflight, preflight};
use vlft_crds::plan::remedy;
use vlft_crds::quantity;
use vlft_crds::unsupported::unsupported_parts;
use vlft_crds::uri::Uri;
use vlft_crds::{VLFineTune, VLFineTuneSpec};

use super::build::names;

mod rules;

/// What the operator was installed with.
#[derive(Debug, Clone, Default)]
pub struct Defaults {
    /// Trainer image where the spec names none.
    pub trainer_image: Option<String>,
}

/// Why a spec cannot be acted on: reason and message of the condition `Accepted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub reason: &'static str,
    pub message: String,
    /// Where memory is the reason.
    pub memory: Option<Box<MemoryCheck>>,
}

/// A field holds what it must not hold.
pub const INVALID: &str = "Invalid";
/// This release cannot act on a part of the spec.
pub const NOT_SUPPORTED: &str = "NotSupported";
/// Several pods would need a volume that only one node may mount.
pub const VOLUME_NOT_SHARED: &str = "VolumeNotShared";

/// Access modes of the claims that exist already, by name.
pub type ClaimModes = BTreeMap<String, Vec<String>>;

/// The checkpoint volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointClaim {
    Existing {
        name: String,
    },
    Managed {
        name: String,
        size: String,
        storage_class: Option<String>,
        shared: bool,
        delete: bool,
    },
}

impl CheckpointClaim {
    pub fn name(&self) -> &str {
        match self {
            Self::Existing { name } | Self::Managed { name, .. } => name,
        }
    }
}

/// Threads of each trainer process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    Fixed(i64),
    /// As many as the container may use: its node's CPUs.
    OfNode,
}

/// A VLFineTune that can be built.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidatedFineTune {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    /// With what memory decides and what earlier attempts led to filled in.
    pub spec: VLFineTuneSpec,
    /// What is known of the run's memory.
    pub memory: MemoryCheck,
    pub image: String,
    /// Claims that models and data are read from.
    pub inputs: BTreeSet<String>,
    pub checkpoints: CheckpointClaim,
    pub threads: Threads,
    /// The resolved VLFineTune as the trainer reads it, YAML.
    pub document: String,
}

/// Checks a VLFineTune against what it needs from cluster and release.
pub fn validate(
    finetune: &VLFineTune,
    claims: &ClaimModes,
    gpu: Option<GpuMemory>,
    defaults: &Defaults,
) -> Result<ValidatedFineTune, Rejection> {
    let spec = &adjusted(finetune);
    let name = rules::resource_name(finetune)?;
    rules::supported(&unsupported_parts(spec))?;
    batch_plan(spec, 1).map_err(|error| invalid(error.to_string()))?;
    rules::pod_overrides(spec)?;
    rules::quantities(spec)?;
    let inputs = input_claims(spec)?;
    let checkpoints = checkpoint_claim(&name, spec);
    rules::volumes_are_shared(spec, &inputs, checkpoints.name(), claims)?;
    let image = spec
        .workers
        .image
        .clone()
        .or_else(|| defaults.trainer_image.clone());
    let image = image.ok_or_else(|| {
        invalid("spec.workers.image: the operator was installed without a trainer image; name one")
    })?;
    let Preflight { spec, memory } = preflight(spec, gpu);
    let memory = within_gpu(memory)?;
    Ok(ValidatedFineTune {
        namespace: finetune.metadata.namespace.clone().unwrap_or_default(),
        uid: finetune.metadata.uid.clone().unwrap_or_default(),
        document: document(finetune, &spec, &image)?,
        threads: threads(&spec),
        spec,
        memory,
        name,
        image,
        inputs,
        checkpoints,
    })
}

/// The spec with what earlier attempts led to, and with what was decided when the current attempt
/// was claimed: it stays, whatever GPUs there are now.
pub fn adjusted(finetune: &VLFineTune) -> VLFineTuneSpec {
    let mut spec = finetune.spec.clone();
    let Some(status) = &finetune.status else {
        return spec;
    };
    let open = status.attempts.last().filter(|a| a.verdict.is_none());
    if let Some(size) = open.and_then(|attempt| attempt.micro_batch_size)
        && spec.training.micro_batch_size.is_none()
    {
        remedy::Change::MicroBatchSize(size).apply(&mut spec);
    }
    if let Some(strategy) = open.and_then(|attempt| attempt.strategy)
        && spec.parallelism.strategy == Strategy::Auto
    {
        spec.parallelism.strategy = strategy;
    }
    remedy::apply_all(&mut spec, &status.adjustments);
    spec
}

/// A run whose states alone exceed every GPU is refused; an estimate refuses nothing.
fn within_gpu(memory: MemoryCheck) -> Result<MemoryCheck, Rejection> {
    if memory.outcome != Outcome::Exceeds {
        return Ok(memory);
    }
    Err(Rejection {
        reason: MEMORY_EXCEEDS_GPU,
        message: memory.message.clone(),
        memory: Some(Box::new(memory)),
    })
}

/// The claims a spec names, before anything of it is checked: their access modes are looked
/// up where several pods must share them.
pub fn claims_to_look_up(finetune: &VLFineTune) -> Vec<String> {
    let spec = &finetune.spec;
    if spec.workers.replicas < 2 {
        return Vec::new();
    }
    let name = finetune.metadata.name.as_deref().unwrap_or_default();
    let mut claims = input_claims(spec).unwrap_or_default();
    claims.insert(checkpoint_claim(name, spec).name().to_owned());
    claims.into_iter().collect()
}

fn invalid(message: impl Into<String>) -> Rejection {
    Rejection {
        reason: INVALID,
        message: message.into(),
        memory: None,
    }
}

fn input_claims(spec: &VLFineTuneSpec) -> Result<BTreeSet<String>, Rejection> {
    let mut locations = vec![("spec.model.uri".to_owned(), spec.model.uri.as_str())];
    for (list, sources) in [
        ("train", &spec.dataset.train),
        ("validation", &spec.dataset.validation),
    ] {
        for (i, source) in sources.iter().enumerate() {
            let field = format!("spec.dataset.{list}[{i}]");
            locations.push((format!("{field}.uri"), &source.uri));
            let root = source.image_root.as_deref();
            locations.extend(root.map(|root| (format!("{field}.imageRoot"), root)));
        }
    }
    let fork = spec
        .resume_from
        .as_ref()
        .and_then(|from| from.path.as_deref());
    locations.extend(fork.map(|path| ("spec.resumeFrom.path".to_owned(), path)));
    let mut claims = BTreeSet::new();
    for (field, location) in locations {
        let uri = Uri::parse(location).map_err(|error| invalid(format!("{field}: {error}")))?;
        claims.extend(uri.claim().map(str::to_owned));
    }
    Ok(claims)
}

fn checkpoint_claim(name: &str, spec: &VLFineTuneSpec) -> CheckpointClaim {
    let volume = &spec.checkpoint.volume;
    match &volume.claim_name {
        Some(claim) => CheckpointClaim::Existing {
            name: claim.clone(),
        },
        None => CheckpointClaim::Managed {
            name: names::checkpoint_claim(name),
            size: volume.size.clone().unwrap_or_default().0,
            storage_class: volume.storage_class_name.clone(),
            shared: spec.workers.replicas > 1,
            delete: spec.checkpoint.deletion_policy == DeletionPolicy::Delete,
        },
    }
}

/// The CPUs a container may use, shared by its processes.
fn threads(spec: &VLFineTuneSpec) -> Threads {
    let resources = &spec.workers.resources;
    let cpu = resources
        .limits
        .get("cpu")
        .or_else(|| resources.requests.get("cpu"));
    let processes = spec.workers.processes().max(1);
    match cpu.and_then(|cpu| quantity::parse(&cpu.0)) {
        Some(cpus) => Threads::Fixed((cpus.ceil() as i64 / processes).max(1)),
        None if processes == 1 => Threads::OfNode,
        None => Threads::Fixed(1),
    }
}

fn document(
    finetune: &VLFineTune,
    spec: &VLFineTuneSpec,
    image: &str,
) -> Result<String, Rejection> {
    let mut spec = spec.clone();
    spec.workers.image = Some(image.to_owned());
    let mut resolved = VLFineTune::new("", spec);
    resolved.metadata = ObjectMeta {
        name: finetune.metadata.name.clone(),
        namespace: finetune.metadata.namespace.clone(),
        uid: finetune.metadata.uid.clone(),
        ..ObjectMeta::default()
    };
    serde_yaml::to_string(&resolved).map_err(|error| invalid(format!("spec: {error}")))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;
    use crate::fixtures::{defaults, minimal};

    fn validated(finetune: &VLFineTune) -> Result<ValidatedFineTune, Rejection> {
        validate(finetune, &ClaimModes::new(), None, &defaults())
    }

    #[test]
    fn the_minimal_spec_is_accepted_with_its_claims() {
        let valid = validated(&minimal()).unwrap();
        assert_eq!(valid.inputs.iter().collect::<Vec<_>>(), ["data", "models"]);
        assert_eq!(valid.checkpoints.name(), "captions-checkpoints");
        assert_eq!(valid.threads, Threads::OfNode);
    }

    #[test]
    fn the_document_is_what_the_trainer_loads() {
        let valid = validated(&minimal()).unwrap();
        let loaded = vlft_crds::load::load_str(&valid.document).unwrap();
        assert_eq!(loaded.spec.workers.image.as_deref(), Some("trainer:test"));
        assert_eq!(loaded.spec.model, minimal().spec.model);
        assert_eq!(loaded.metadata.uid.as_deref(), Some("uid-1"));
    }

    #[test]
    fn what_memory_decides_reaches_the_trainer() {
        let mut finetune = minimal();
        finetune.spec.model.base_model = Some("Qwen/Qwen2-VL-7B-Instruct".to_owned());
        let on = |finetune: &VLFineTune, gib: i64| {
            let gpu = Some(GpuMemory::of(gib << 30));
            validate(finetune, &ClaimModes::new(), gpu, &defaults())
        };
        let size = |valid: &ValidatedFineTune| {
            let document = vlft_crds::load::load_str(&valid.document).unwrap();
            assert_eq!(document.spec.training, valid.spec.training);
            valid.spec.training.micro_batch_size.unwrap()
        };
        let chosen = size(&on(&finetune, 80).unwrap());
        assert!(chosen > 1, "{chosen}");
        // A claimed attempt keeps its micro-batch, and an out-of-memory lowers it.
        let attempt = vlft_crds::status::Attempt {
            micro_batch_size: Some(chosen),
            ..Default::default()
        };
        let mut status = vlft_crds::VLFineTuneStatus {
            attempts: vec![attempt],
            ..Default::default()
        };
        finetune.status = Some(status.clone());
        assert_eq!(size(&on(&finetune, 24).unwrap()), chosen);
        status.adjustments = vec![vlft_crds::status::Adjustment {
            field: "training.microBatchSize".to_owned(),
            to: "1".to_owned(),
            ..Default::default()
        }];
        finetune.status = Some(status);
        assert_eq!(size(&on(&finetune, 80).unwrap()), 1);
        finetune.spec.method = serde_json::from_str(r#"{"full": {}}"#).unwrap();
        let rejection = on(&finetune, 80).unwrap_err();
        assert_eq!(rejection.reason, MEMORY_EXCEEDS_GPU);
        assert!(rejection.memory.unwrap().parts.is_some());
    }

    #[test]
    fn threads_are_the_cpus_of_each_process() {
        let mut finetune = minimal();
        let cpu = |text: &str| [("cpu".to_owned(), Quantity(text.to_owned()))].into();
        finetune.spec.workers.resources.requests = cpu("8");
        assert_eq!(threads(&finetune.spec), Threads::Fixed(8));
        finetune.spec.workers.resources.limits = cpu("1500m");
        assert_eq!(threads(&finetune.spec), Threads::Fixed(2));
        finetune.spec.workers.processes_per_replica = Some(4);
        assert_eq!(threads(&finetune.spec), Threads::Fixed(1));
    }

    #[test]
    fn without_any_image_the_field_is_named() {
        let none = Defaults::default();
        let rejection = validate(&minimal(), &ClaimModes::new(), None, &none).unwrap_err();
        assert!(
            rejection.message.contains("spec.workers.image"),
            "{}",
            rejection.message
        );
    }

    #[test]
    fn unsupported_parts_are_named_and_not_ignored() {
        let mut finetune = minimal();
        finetune.spec.model.uri = "hf://Qwen/Qwen2-VL-7B-Instruct".to_owned();
        let rejection = validated(&finetune).unwrap_err();
        assert_eq!(rejection.reason, NOT_SUPPORTED);
        assert!(
            rejection.message.contains("spec.model.uri"),
            "{}",
            rejection.message
        );
    }

    #[test]
    fn locations_that_leave_their_volume_are_refused() {
        let mut finetune = minimal();
        finetune.spec.dataset.train[0].uri = "pvc://data/../other".to_owned();
        let rejection = validated(&finetune).unwrap_err();
        assert_eq!(rejection.reason, INVALID);
        assert!(
            rejection.message.contains("spec.dataset.train[0].uri"),
            "{}",
            rejection.message
        );
    }
}
