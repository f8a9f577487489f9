//! [`ValidatedFineTune`] and attempt -> child objects. Pure and infallible: no client, no
//! clock, no errors.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use vlft_crds::VLFineTune;
use vlft_crds::contract::label;

use super::validate::ValidatedFineTune;

mod checkpoint_claim;
mod config_map;
mod environment;
mod job;
pub mod names;
mod network_policy;
mod pod;
mod service;
mod volumes;

/// As built.
#[derive(Debug)]
pub struct Desired;
/// As the API server has it.
#[derive(Debug)]
pub struct Applied;

/// The children of an attempt.
#[derive(Debug)]
pub struct Resources<State> {
    pub config_map: ConfigMap,
    pub service: Service,
    pub network_policy: Option<NetworkPolicy>,
    pub checkpoint_claim: Option<PersistentVolumeClaim>,
    pub job: Job,
    state: PhantomData<State>,
}

impl Resources<Desired> {
    /// Takes what the API server answered for each child.
    pub fn applied(self, job: Job) -> Resources<Applied> {
        let Self {
            config_map,
            service,
            network_policy,
            checkpoint_claim,
            job: _,
            state: _,
        } = self;
        Resources {
            config_map,
            service,
            network_policy,
            checkpoint_claim,
            job,
            state: PhantomData,
        }
    }
}

/// Builds the children of an attempt.
pub fn build(valid: &ValidatedFineTune, attempt: i64) -> Resources<Desired> {
    Resources {
        config_map: config_map::build(valid, attempt),
        service: service::build(valid),
        network_policy: network_policy::build(valid),
        checkpoint_claim: checkpoint_claim::build(valid),
        job: job::build(valid, attempt),
        state: PhantomData,
    }
}

/// Labels of children that outlive an attempt.
fn labels(valid: &ValidatedFineTune) -> BTreeMap<String, String> {
    [
        (label::MANAGED_BY, label::MANAGED_BY_VALUE),
        (label::FINETUNE, &valid.name),
        (label::FINETUNE_UID, &valid.uid),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn attempt_labels(valid: &ValidatedFineTune, attempt: i64) -> BTreeMap<String, String> {
    let mut labels = labels(valid);
    labels.insert(label::ATTEMPT.to_owned(), attempt.to_string());
    labels
}

fn pod_labels(valid: &ValidatedFineTune, attempt: i64) -> BTreeMap<String, String> {
    let mut labels = valid.spec.workers.pod_overrides.labels.clone();
    labels.extend(attempt_labels(valid, attempt));
    labels.insert(label::ROLE.to_owned(), label::ROLE_TRAINER.to_owned());
    labels
}

/// Selects the trainer pods of every attempt.
fn pod_selector(valid: &ValidatedFineTune) -> BTreeMap<String, String> {
    [
        (label::FINETUNE, valid.name.as_str()),
        (label::ROLE, label::ROLE_TRAINER),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn owned_meta(
    valid: &ValidatedFineTune,
    name: String,
    labels: BTreeMap<String, String>,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(valid.namespace.clone()),
        labels: Some(labels),
        owner_references: Some(vec![owner(valid)]),
        ..ObjectMeta::default()
    }
}

fn owner(valid: &ValidatedFineTune) -> OwnerReference {
    use kube::Resource;
    OwnerReference {
        api_version: VLFineTune::api_version(&()).into_owned(),
        kind: VLFineTune::kind(&()).into_owned(),
        name: valid.name.clone(),
        uid: valid.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// `None` for what is empty: an absent list and not an empty one.
fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() { None } else { Some(list) }
}

fn non_empty_map<V>(map: BTreeMap<String, V>) -> Option<BTreeMap<String, V>> {
    if map.is_empty() { None } else { Some(map) }
}
