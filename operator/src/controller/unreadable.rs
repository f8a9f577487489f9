//! Objects that the API server stores and this release cannot read, for example after a
//! rollback from a newer one: they are told so, and the others go on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::Action;
use serde_json::json;
use vlft_crds::VLFineTune;
use vlft_crds::contract::truncate_end;
use vlft_crds::status::{MAX_MESSAGE_BYTES, condition};

use super::validate::INVALID;
use super::{Context, Error};

/// Says so in the condition `Accepted`. (client)
pub async fn reject(ctx: &Context, invalid: &InvalidObject) -> Result<Action, Error> {
    let meta = &invalid.metadata;
    let mut message = format!(
        "this release cannot read the resource: {}; correct the field or upgrade the operator",
        invalid.error
    );
    truncate_end(&mut message, MAX_MESSAGE_BYTES);
    // The same patch each time: the API server leaves an unchanged object alone.
    let since = meta
        .creation_timestamp
        .clone()
        .unwrap_or(Time(Timestamp::UNIX_EPOCH));
    let accepted = Condition {
        type_: condition::ACCEPTED.to_owned(),
        status: "False".to_owned(),
        reason: INVALID.to_owned(),
        message,
        last_transition_time: since,
        observed_generation: meta.generation,
    };
    let body = json!({ "status": {
        "observedGeneration": meta.generation,
        "reason": INVALID,
        "conditions": [accepted],
    } });
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let api: Api<PartialObjectMeta<VLFineTune>> = Api::namespaced(ctx.client.clone(), namespace);
    let name = meta.name.as_deref().unwrap_or_default();
    let patch = Patch::Merge(body);
    match api
        .patch_status(name, &PatchParams::default(), &patch)
        .await
    {
        Ok(_) => Ok(Action::await_change()),
        Err(error) => Err(Error::write("status", error)),
    }
}
