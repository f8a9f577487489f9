//! PersistentVolumeClaim for checkpoints and the trained model.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{labels, owned_meta};
use crate::controller::validate::{CheckpointClaim, ValidatedFineTune};

/// The claim, where the spec names no existing one. Without `deletionPolicy: Delete` it has
/// no owner: deleting a resource does not delete a trained model.
pub fn build(valid: &ValidatedFineTune) -> Option<PersistentVolumeClaim> {
    let CheckpointClaim::Managed {
        name,
        size,
        storage_class,
        shared,
        delete,
    } = &valid.checkpoints
    else {
        return None;
    };
    let mut metadata = owned_meta(valid, name.clone(), labels(valid));
    if !delete {
        metadata.owner_references = None;
    }
    let mode = if *shared {
        "ReadWriteMany"
    } else {
        "ReadWriteOnce"
    };
    Some(PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![mode.to_owned()]),
            storage_class_name: storage_class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(size.clone()))].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{as_json, labels_json, owner_json, validated};

    #[test]
    fn whole_object_has_no_owner_by_default() {
        let expected = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": "captions-checkpoints",
                "namespace": "team",
                "labels": labels_json(),
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": "20Gi" } },
            },
        });
        assert_eq!(as_json(&build(&validated()).unwrap()), expected);
    }

    #[test]
    fn goes_with_the_resource_only_if_asked_to() {
        let mut valid = validated();
        if let CheckpointClaim::Managed { delete, .. } = &mut valid.checkpoints {
            *delete = true;
        }
        let claim = as_json(&build(&valid).unwrap());
        assert_eq!(claim["metadata"]["ownerReferences"], json!([owner_json()]));
    }

    #[test]
    fn an_existing_claim_is_left_alone() {
        let mut valid = validated();
        valid.checkpoints = CheckpointClaim::Existing {
            name: "mine".to_owned(),
        };
        assert!(build(&valid).is_none());
    }
}
