//! The single checks of a spec; each names the field and the remedy.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use vlft_crds::quantity;
use vlft_crds::unsupported::Unsupported;
use vlft_crds::{VLFineTune, VLFineTuneSpec};

use super::{ClaimModes, NOT_SUPPORTED, Rejection, VOLUME_NOT_SHARED, invalid};

/// Longest name: pod host names are made from it.
const MAX_NAME: usize = 40;
/// Prefixes of labels and annotations that are not the user's.
const RESERVED_PREFIXES: [&str; 3] = ["vlft.dev/", "batch.kubernetes.io/", "kueue.x-k8s.io/"];

pub fn resource_name(finetune: &VLFineTune) -> Result<String, Rejection> {
    let name = finetune.metadata.name.clone().unwrap_or_default();
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(inner)
        && !name.ends_with('-');
    if good {
        return Ok(name);
    }
    Err(invalid(format!(
        "metadata.name: `{name}` must have at most {MAX_NAME} characters, a-z, 0-9 and -, and start with a letter"
    )))
}

pub fn supported(parts: &[Unsupported]) -> Result<(), Rejection> {
    if parts.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = parts.iter().map(ToString::to_string).collect();
    Err(Rejection {
        reason: NOT_SUPPORTED,
        message: lines.join("\n"),
        memory: None,
    })
}

pub fn pod_overrides(spec: &VLFineTuneSpec) -> Result<(), Rejection> {
    let overrides = &spec.workers.pod_overrides;
    for variable in &overrides.env {
        if variable.name.starts_with("VLFT_") {
            return Err(invalid(format!(
                "spec.workers.podOverrides.env: `{}` is reserved for the operator; rename it",
                variable.name
            )));
        }
    }
    let keys = [
        ("labels", &overrides.labels),
        ("annotations", &overrides.annotations),
    ];
    for (field, map) in keys {
        let reserved = |key: &&String| {
            RESERVED_PREFIXES
                .iter()
                .any(|prefix| key.starts_with(prefix))
                || key.as_str() == vlft_crds::contract::label::MANAGED_BY
        };
        if let Some(key) = map.keys().find(reserved) {
            return Err(invalid(format!(
                "spec.workers.podOverrides.{field}: `{key}` is reserved for the operator; remove it"
            )));
        }
    }
    Ok(())
}

pub fn quantities(spec: &VLFineTuneSpec) -> Result<(), Rejection> {
    let workers = &spec.workers;
    of_map(
        "spec.workers.resources.requests",
        &workers.resources.requests,
    )?;
    of_map("spec.workers.resources.limits", &workers.resources.limits)?;
    let single = [
        (
            "spec.checkpoint.volume.size",
            spec.checkpoint.volume.size.as_ref(),
        ),
        (
            "spec.workers.podOverrides.shmSize",
            workers.pod_overrides.shm_size.as_ref(),
        ),
        (
            "spec.workers.gpu.memory",
            workers.gpu.as_ref().and_then(|gpu| gpu.memory.as_ref()),
        ),
        (
            "spec.output.maxShardSize",
            Some(&spec.output.max_shard_size),
        ),
    ];
    for (field, value) in single {
        if let Some(value) = value {
            positive(field, value)?;
        }
    }
    Ok(())
}

fn of_map(field: &str, map: &BTreeMap<String, Quantity>) -> Result<(), Rejection> {
    map.iter()
        .try_for_each(|(key, value)| positive(&format!("{field}.{key}"), value))
}

fn positive(field: &str, value: &Quantity) -> Result<(), Rejection> {
    match quantity::parse(&value.0) {
        Some(amount) if amount > 0.0 => Ok(()),
        _ => Err(invalid(format!(
            "{field}: `{}` is not a positive quantity; write for example 500m, 4 or 16Gi",
            value.0
        ))),
    }
}

/// Several pods need volumes that several nodes may mount.
pub fn volumes_are_shared(
    spec: &VLFineTuneSpec,
    inputs: &BTreeSet<String>,
    checkpoints: &str,
    modes: &ClaimModes,
) -> Result<(), Rejection> {
    if spec.workers.replicas < 2 {
        return Ok(());
    }
    let any = |claim: &str, wanted: &[&str]| match modes.get(claim) {
        Some(modes) => modes.iter().any(|mode| wanted.contains(&mode.as_str())),
        // A claim that does not exist yet: the pods wait for it and say so.
        None => true,
    };
    let mut unshared: Vec<&str> = Vec::new();
    if !any(checkpoints, &["ReadWriteMany"]) {
        unshared.push(checkpoints);
    }
    let inputs = inputs.iter().map(String::as_str);
    unshared.extend(inputs.filter(|claim| !any(claim, &["ReadWriteMany", "ReadOnlyMany"])));
    if unshared.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} replicas cannot share the claim {}: it lacks ReadWriteMany; use a claim that has it, or one replica",
        spec.workers.replicas,
        unshared.join(", ")
    );
    Err(Rejection {
        reason: VOLUME_NOT_SHARED,
        message,
        memory: None,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EnvVar;

    use super::*;
    use crate::fixtures::minimal;

    #[test]
    fn names_that_cannot_name_a_service_are_refused() {
        for name in ["Upper", "9th", "dot.ted", "end-", "", &"a".repeat(41)] {
            let mut finetune = minimal();
            finetune.metadata.name = Some(name.to_owned());
            assert!(resource_name(&finetune).is_err(), "{name}");
        }
        assert_eq!(resource_name(&minimal()).unwrap(), "captions");
    }

    #[test]
    fn reserved_names_in_overrides_are_refused() {
        let mut spec = minimal().spec;
        spec.workers.pod_overrides.labels = [("team".to_owned(), "a".to_owned())].into();
        assert!(pod_overrides(&spec).is_ok());
        spec.workers.pod_overrides.labels =
            [("vlft.dev/attempt".to_owned(), "9".to_owned())].into();
        assert!(
            pod_overrides(&spec)
                .unwrap_err()
                .message
                .contains("vlft.dev/attempt")
        );
        let mut spec = minimal().spec;
        let name = "VLFT_ATTEMPT".to_owned();
        spec.workers.pod_overrides.env = vec![EnvVar {
            name,
            ..EnvVar::default()
        }];
        assert!(
            pod_overrides(&spec)
                .unwrap_err()
                .message
                .contains("VLFT_ATTEMPT")
        );
    }

    #[test]
    fn broken_quantities_name_their_field() {
        let mut spec = minimal().spec;
        let memory = Quantity("lots".to_owned());
        spec.workers.resources.limits = [("memory".to_owned(), memory)].into();
        let message = quantities(&spec).unwrap_err().message;
        assert!(
            message.contains("spec.workers.resources.limits.memory"),
            "{message}"
        );
        assert!(message.contains("lots"), "{message}");
    }

    #[test]
    fn several_pods_need_shared_volumes() {
        let mut spec = minimal().spec;
        let inputs: BTreeSet<String> = ["data".to_owned()].into();
        let modes = |mode: &str| ClaimModes::from([("ckpt".to_owned(), vec![mode.to_owned()])]);
        let check = |spec: &VLFineTuneSpec, mode: &str| {
            volumes_are_shared(spec, &inputs, "ckpt", &modes(mode))
        };
        assert!(check(&spec, "ReadWriteOnce").is_ok());
        spec.workers.replicas = 2;
        assert!(check(&spec, "ReadWriteMany").is_ok());
        let rejection = check(&spec, "ReadWriteOnce").unwrap_err();
        assert_eq!(rejection.reason, VOLUME_NOT_SHARED);
        assert!(rejection.message.contains("ckpt"), "{}", rejection.message);
    }
}
