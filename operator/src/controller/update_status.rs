//! Writes status: one patch, guarded by the resource version that was decided on, and events
//! only once it has succeeded.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt};
use serde_json::{Map, Value, json};
use vlft_crds::status::Attempt;
use vlft_crds::{VLFineTune, VLFineTuneStatus};

use super::decide::{Input, until};
use super::status::{differ_in_progress_only, next_progress_write};
use super::{Context, Error, events};

/// Writes what differs; returns the time after which a withheld write of progress is due.
/// (client)
pub async fn update_status(
    ctx: &Context,
    input: &Input<'_>,
    next: VLFineTuneStatus,
) -> Result<Option<Duration>, Error> {
    let finetune = input.finetune;
    let old = to_json(finetune.status.as_ref())?;
    let Some(difference) = merge_patch(&old, &to_json(Some(&next))?) else {
        return Ok(None);
    };
    if differ_in_progress_only(input.status, &next) {
        let due = next_progress_write(input.status, ctx.progress_write_interval);
        let left = due
            .map(|due| until(input.now, due.0))
            .filter(|left| !left.is_zero());
        if left.is_some() {
            return Ok(left);
        }
    }
    patch(ctx, finetune, difference).await?;
    note_ends(ctx, input.status, &next);
    note_losses(ctx, input.status, &next);
    events::publish(ctx, finetune, &events::between(input.status, &next)).await;
    Ok(None)
}

async fn patch(ctx: &Context, finetune: &VLFineTune, difference: Value) -> Result<(), Error> {
    let api: Api<PartialObjectMeta<VLFineTune>> = ctx.api(finetune);
    let body = json!({
        "metadata": { "resourceVersion": finetune.metadata.resource_version },
        "status": difference,
    });
    let name = finetune.name_any();
    match api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(body))
        .await
    {
        Ok(written) => {
            ctx.writes.record(&written.metadata);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.code == 409 => Err(Error::Conflict),
        // Deleted meanwhile: nobody is left to be told.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(Error::write("status", error)),
    }
}

/// Counts attempts that this write ended.
fn note_ends(ctx: &Context, old: &VLFineTuneStatus, new: &VLFineTuneStatus) {
    let ended = |attempt: &&Attempt| attempt.verdict.is_some();
    let known = |number| {
        old.attempts
            .iter()
            .any(|a| a.number == number && a.verdict.is_some())
    };
    for attempt in new
        .attempts
        .iter()
        .filter(ended)
        .filter(|a| !known(a.number))
    {
        if let Some(verdict) = &attempt.verdict {
            ctx.metrics.attempt_ended(verdict.class);
        }
    }
}

/// Counts what this write added to the ledger of lost work, and to the adjustments.
fn note_losses(ctx: &Context, old: &VLFineTuneStatus, new: &VLFineTuneStatus) {
    let before = old.lost_work.as_ref().map(|lost| &lost.by_cause);
    let after = new.lost_work.iter().flat_map(|lost| &lost.by_cause);
    for (cause, lost) in after {
        let known = before.and_then(|causes| causes.get(cause));
        let (steps, seconds) = known.map_or((0, 0), |known| (known.steps, known.gpu_seconds));
        let grown = |now: i64, before: i64| now.saturating_sub(before).max(0).unsigned_abs();
        let (steps, seconds) = (grown(lost.steps, steps), grown(lost.gpu_seconds, seconds));
        if steps + seconds > 0 {
            ctx.metrics.work_lost(cause, steps, seconds);
        }
    }
    let adjustments = new.adjustments.iter();
    for adjustment in adjustments.filter(|a| !old.adjustments.contains(a)) {
        ctx.metrics.plan_adjusted(&adjustment.field);
    }
}

fn to_json(status: Option<&VLFineTuneStatus>) -> Result<Value, Error> {
    serde_json::to_value(status).map_err(|error| Error::Refused {
        child: "status",
        message: error.to_string(),
    })
}

/// The JSON merge patch (RFC 7386) from one document to another; `None` if they are equal.
fn merge_patch(old: &Value, new: &Value) -> Option<Value> {
    if old == new {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return Some(new.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new {
        let before = old.get(key).unwrap_or(&Value::Null);
        if let Some(difference) = merge_patch(before, value) {
            patch.insert(key.clone(), difference);
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patch_holds_just_what_differs() {
        let old = json!({ "a": 1, "b": { "c": 2, "d": 3 }, "gone": true, "list": [1] });
        let new = json!({ "a": 1, "b": { "c": 4, "d": 3 }, "list": [1, 2] });
        let patch = merge_patch(&old, &new).unwrap();
        assert_eq!(
            patch,
            json!({ "b": { "c": 4 }, "list": [1, 2], "gone": null })
        );
        assert_eq!(merge_patch(&new, &new), None);
        assert_eq!(merge_patch(&Value::Null, &new).unwrap(), new);
    }
}
