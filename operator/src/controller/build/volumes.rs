//! Volumes of a trainer pod, and where its container sees them.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, PersistentVolumeClaimVolumeSource, Volume,
    VolumeMount,
};
use vlft_crds::contract::{CHECKPOINTS_PATH, DOCUMENT_PATH, VOLUMES_PATH};

use super::names;
use crate::controller::validate::ValidatedFineTune;

pub fn volumes(valid: &ValidatedFineTune, attempt: i64) -> Vec<Volume> {
    let shm_size = valid.spec.workers.pod_overrides.shm_size.clone();
    let shm = EmptyDirVolumeSource {
        medium: Some("Memory".to_owned()),
        size_limit: shm_size,
        ..EmptyDirVolumeSource::default()
    };
    let mut volumes = vec![
        Volume {
            name: "document".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: names::attempt(&valid.name, attempt),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        // NCCL and data loaders exchange tensors through shared memory.
        empty_dir("shm", shm),
        empty_dir("tmp", EmptyDirVolumeSource::default()),
    ];
    volumes.extend(claims(valid).map(|(volume, claim)| Volume {
        name: volume,
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: None,
        }),
        ..Volume::default()
    }));
    volumes
}

pub fn mounts(valid: &ValidatedFineTune) -> Vec<VolumeMount> {
    let folder = DOCUMENT_PATH
        .rsplit_once('/')
        .map_or("/", |(folder, _)| folder);
    let mut mounts = vec![
        mount("document", folder, true),
        mount("shm", "/dev/shm", false),
        mount("tmp", "/tmp", false),
    ];
    for (volume, claim) in claims(valid) {
        if claim == valid.checkpoints.name() {
            mounts.push(mount(&volume, CHECKPOINTS_PATH, false));
        }
        if valid.inputs.contains(claim) {
            mounts.push(mount(&volume, &format!("{VOLUMES_PATH}/{claim}"), true));
        }
    }
    mounts
}

/// Each claim once, under a volume name of its own: claim names can be too long for one.
fn claims(valid: &ValidatedFineTune) -> impl Iterator<Item = (String, &str)> {
    let checkpoints = valid.checkpoints.name();
    let inputs = valid.inputs.iter().map(String::as_str);
    let inputs = inputs
        .filter(move |claim| *claim != checkpoints)
        .enumerate();
    let inputs = inputs.map(|(i, claim)| (format!("input-{i}"), claim));
    std::iter::once(("checkpoints".to_owned(), checkpoints)).chain(inputs)
}

fn empty_dir(name: &str, source: EmptyDirVolumeSource) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(source),
        ..Volume::default()
    }
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::validate::CheckpointClaim;
    use crate::fixtures::validated;

    #[test]
    fn a_claim_for_data_and_checkpoints_is_one_volume_with_two_mounts() {
        let mut valid = validated();
        valid.checkpoints = CheckpointClaim::Existing {
            name: "data".to_owned(),
        };
        let volumes: Vec<String> = volumes(&valid, 1).into_iter().map(|v| v.name).collect();
        assert_eq!(
            volumes,
            ["document", "shm", "tmp", "checkpoints", "input-0"]
        );
        let mounted: Vec<(String, String, bool)> = mounts(&valid)
            .into_iter()
            .filter(|m| m.name == "checkpoints")
            .map(|m| (m.name, m.mount_path, m.read_only.unwrap_or(false)))
            .collect();
        let mount = |path: &str, ro| ("checkpoints".to_owned(), path.to_owned(), ro);
        assert_eq!(
            mounted,
            [
                mount("/vlft/checkpoints", false),
                mount("/vlft/volumes/data", true)
            ]
        );
    }
}
