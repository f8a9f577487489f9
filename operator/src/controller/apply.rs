//! Makes the cluster follow a decision. Everything here can be repeated: a crash between any
//! two requests leaves what the next pass completes.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use vlft_crds::VLFineTune;
use vlft_crds::contract::label;

use super::build::{Applied, Desired, Resources, build, names};
use super::decide::{Action, CutShort, Decision, Input};
use super::{Context, Error};

/// Owner of the fields we apply.
const FIELD_MANAGER: &str = label::MANAGED_BY_VALUE;

/// The children a decision asks for. (no client)
pub fn desired(input: &Input, decision: &Decision) -> Option<Resources<Desired>> {
    match (&decision.action, input.valid) {
        (Action::Build, Ok(valid)) => Some(build(valid, input.status.attempt)),
        _ => None,
    }
}

/// Carries a decision out. (client)
pub async fn apply(
    ctx: &Context,
    input: &Input<'_>,
    decision: &Decision,
    desired: Option<Resources<Desired>>,
) -> Result<Option<Resources<Applied>>, Error> {
    let finetune = input.finetune;
    let applied = match desired {
        Some(desired) => Some(create(ctx, finetune, desired).await?),
        None => None,
    };
    match &decision.action {
        Action::Note | Action::Claim | Action::Build | Action::End(_) => {}
        Action::Clear {
            delete_job,
            cut_short,
        } => {
            clear(ctx, input, *delete_job, cut_short).await?;
        }
        Action::Expire => expire(ctx, input).await?,
        Action::DeleteResource => delete_resource(ctx, finetune).await?,
    }
    for attempt in &input.observed.stale_attempts {
        delete_attempt(ctx, finetune, *attempt, &DeleteParams::background()).await?;
    }
    Ok(applied)
}

/// Creates the children of an attempt in a fixed order, the Job last: when it is there, all
/// of it is there.
async fn create(
    ctx: &Context,
    finetune: &VLFineTune,
    desired: Resources<Desired>,
) -> Result<Resources<Applied>, Error> {
    if let Some(claim) = &desired.checkpoint_claim {
        create_claim(&ctx.api(finetune), claim).await?;
    }
    create_once(&ctx.api(finetune), "ConfigMap", &desired.config_map).await?;
    apply_fields(&ctx.api(finetune), "Service", &desired.service).await?;
    match &desired.network_policy {
        Some(policy) => apply_fields(&ctx.api(finetune), "NetworkPolicy", policy).await?,
        None => delete_own::<NetworkPolicy>(ctx, finetune, names::workers).await?,
    }
    if !ctx.leadership.is_held() {
        return Err(Error::NotLeader);
    }
    let job = create_once(&ctx.api(finetune), "Job", &desired.job).await?;
    Ok(desired.applied(job))
}

/// Creates an object, or finds that it has been created for this resource and attempt. It is
/// never changed afterwards.
async fn create_once<K>(api: &Api<K>, kind: &'static str, object: &K) -> Result<K, Error>
where
    K: Resource + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    K::DynamicType: Default,
{
    match api.create(&PostParams::default(), object).await {
        Ok(created) => Ok(created),
        Err(error) if is_conflict(&error) => {
            let name = object.name_any();
            let existing = api.get(&name).await.map_err(Error::read)?;
            if is_same_child(object, &existing) {
                Ok(existing)
            } else {
                Err(Error::NameTaken { kind, name })
            }
        }
        Err(error) => Err(Error::write(kind, error)),
    }
}

/// The same owner, the same attempt, and not on its way out.
fn is_same_child<K: Resource>(wanted: &K, existing: &K) -> bool {
    let owner = |object: &K| {
        object
            .owner_references()
            .first()
            .map(|owner| owner.uid.clone())
    };
    let attempt = |object: &K| object.labels().get(label::ATTEMPT).cloned();
    owner(wanted).is_some()
        && owner(wanted) == owner(existing)
        && attempt(wanted) == attempt(existing)
        && existing.meta().deletion_timestamp.is_none()
}

/// A claim that outlived an earlier resource of the same name is used again: each run has a
/// folder of its own in it.
async fn create_claim(
    api: &Api<PersistentVolumeClaim>,
    claim: &PersistentVolumeClaim,
) -> Result<(), Error> {
    const KIND: &str = "PersistentVolumeClaim";
    match api.create(&PostParams::default(), claim).await {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) => {
            let name = claim.name_any();
            let existing = api.get(&name).await.map_err(Error::read)?;
            let label_of =
                |object: &PersistentVolumeClaim, key: &str| object.labels().get(key).cloned();
            let is_ours = [label::MANAGED_BY, label::FINETUNE]
                .iter()
                .all(|key| label_of(&existing, key) == label_of(claim, key));
            if is_ours {
                Ok(())
            } else {
                Err(Error::NameTaken { kind: KIND, name })
            }
        }
        Err(error) => Err(Error::write(KIND, error)),
    }
}

/// Server-side apply. Fields that someone else has set are taken back only on objects that
/// are ours.
async fn apply_fields<K>(api: &Api<K>, kind: &'static str, object: &K) -> Result<(), Error>
where
    K: Resource + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    K::DynamicType: Default,
{
    let name = object.name_any();
    let params = PatchParams::apply(FIELD_MANAGER);
    match api.patch(&name, &params, &Patch::Apply(object)).await {
        Ok(_) => return Ok(()),
        Err(error) if is_conflict(&error) => {}
        Err(error) => return Err(Error::write(kind, error)),
    }
    let existing = api.get(&name).await.map_err(Error::read)?;
    if !is_same_child(object, &existing) {
        return Err(Error::NameTaken { kind, name });
    }
    let forced = api
        .patch(&name, &params.force(), &Patch::Apply(object))
        .await;
    forced.map(drop).map_err(|error| Error::write(kind, error))
}

/// Stops an attempt that has its verdict. The Job goes in the foreground: it is there as long
/// as any pod of it is.
async fn clear(
    ctx: &Context,
    input: &Input<'_>,
    delete_job: bool,
    cut_short: &[CutShort],
) -> Result<(), Error> {
    let finetune = input.finetune;
    if delete_job {
        let name = names::attempt(&finetune.name_any(), input.status.attempt);
        let mut params = DeleteParams::foreground();
        params.preconditions = input.observed.job.as_ref().map(|job| Preconditions {
            uid: job.metadata.uid.clone(),
            resource_version: None,
        });
        delete(&ctx.api::<Job>(finetune), "Job", &name, &params).await?;
    }
    let pods: Api<Pod> = ctx.api(finetune);
    for CutShort { pod, grace_seconds } in cut_short {
        let params = DeleteParams::default().grace_period(*grace_seconds);
        delete(&pods, "Pod", pod, &params).await?;
    }
    Ok(())
}

/// Deletes all children of a finished run but the claim; the Job last, since it is what shows
/// that something is left.
async fn expire(ctx: &Context, input: &Input<'_>) -> Result<(), Error> {
    let finetune = input.finetune;
    delete_own::<Service>(ctx, finetune, names::workers).await?;
    delete_own::<NetworkPolicy>(ctx, finetune, names::workers).await?;
    let params = DeleteParams::background();
    delete_attempt(ctx, finetune, input.status.attempt, &params).await
}

async fn delete_attempt(
    ctx: &Context,
    finetune: &VLFineTune,
    attempt: i64,
    params: &DeleteParams,
) -> Result<(), Error> {
    let name = names::attempt(&finetune.name_any(), attempt);
    delete(&ctx.api::<ConfigMap>(finetune), "ConfigMap", &name, params).await?;
    delete(&ctx.api::<Job>(finetune), "Job", &name, params).await
}

/// Deletes a child that goes by the resource's name, if there is one and it is ours.
async fn delete_own<K>(
    ctx: &Context,
    finetune: &VLFineTune,
    name: fn(&str) -> String,
) -> Result<(), Error>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let api: Api<K> = ctx.api(finetune);
    let name = name(&finetune.name_any());
    let existing = api.get_metadata_opt(&name).await.map_err(Error::read)?;
    let is_ours = existing.is_some_and(|child| {
        child
            .metadata
            .owner_references
            .iter()
            .flatten()
            .any(|owner| Some(&owner.uid) == finetune.metadata.uid.as_ref())
    });
    if is_ours {
        delete(&api, "child", &name, &DeleteParams::background()).await
    } else {
        Ok(())
    }
}

async fn delete_resource(ctx: &Context, finetune: &VLFineTune) -> Result<(), Error> {
    let mut params = DeleteParams::background();
    params.preconditions = Some(Preconditions {
        uid: finetune.metadata.uid.clone(),
        resource_version: finetune.metadata.resource_version.clone(),
    });
    delete(
        &ctx.api::<VLFineTune>(finetune),
        "VLFineTune",
        &finetune.name_any(),
        &params,
    )
    .await
}

/// Deletes an object; one that is gone already is fine.
async fn delete<K>(
    api: &Api<K>,
    kind: &'static str,
    name: &str,
    params: &DeleteParams,
) -> Result<(), Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    match api.delete(name, params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        // A precondition failed: it is another object by now.
        Err(error) if is_conflict(&error) => Err(Error::Conflict),
        Err(error) => Err(Error::write(kind, error)),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
