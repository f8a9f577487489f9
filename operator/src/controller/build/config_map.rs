//! ConfigMap with the resolved document: an edit of the resource never reaches a running
//! attempt.

use k8s_openapi::api::core::v1::ConfigMap;
use vlft_crds::contract::DOCUMENT_KEY;

use super::{attempt_labels, names, owned_meta};
use crate::controller::validate::ValidatedFineTune;

pub fn build(valid: &ValidatedFineTune, attempt: i64) -> ConfigMap {
    let name = names::attempt(&valid.name, attempt);
    ConfigMap {
        metadata: owned_meta(valid, name, attempt_labels(valid, attempt)),
        data: Some([(DOCUMENT_KEY.to_owned(), valid.document.clone())].into()),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::{as_json, owner_json, validated};

    #[test]
    fn whole_object() {
        let valid = validated();
        let expected = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "captions-1",
                "namespace": "team",
                "labels": {
                    "app.kubernetes.io/managed-by": "vlfinetune-operator",
                    "vlft.dev/attempt": "1",
                    "vlft.dev/finetune": "captions",
                    "vlft.dev/finetune-uid": "uid-1",
                },
                "ownerReferences": [owner_json()],
            },
            "immutable": true,
            "data": { "finetune.yaml": valid.document },
        });
        assert_eq!(as_json(&build(&valid, 1)), expected);
    }
}
