//! Environment of the trainer container: its side of the contract.

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use vlft_crds::contract::{
    CHECKPOINTS_PATH, RENDEZVOUS_PORT, TERMINATION_LOG_PATH, TRAINER_CONTAINER, VOLUMES_PATH, env,
};

use super::names;
use crate::controller::validate::{Threads, ValidatedFineTune};

pub fn build(valid: &ValidatedFineTune, attempt: i64) -> Vec<EnvVar> {
    let job = names::attempt(&valid.name, attempt);
    let workers = &valid.spec.workers;
    let mut variables: Vec<EnvVar> = [
        (env::NAME, valid.name.clone()),
        (env::NAMESPACE, valid.namespace.clone()),
        (env::UID, valid.uid.clone()),
        (env::ATTEMPT, attempt.to_string()),
        (env::NUM_NODES, workers.replicas.to_string()),
        (env::PROCESSES_PER_NODE, workers.processes().to_string()),
        (
            env::MASTER_ADDR,
            format!("{job}-0.{}", names::workers(&valid.name)),
        ),
        (env::MASTER_PORT, RENDEZVOUS_PORT.to_string()),
        (env::VOLUMES, VOLUMES_PATH.to_owned()),
        (env::CHECKPOINTS, CHECKPOINTS_PATH.to_owned()),
        (env::CHECKPOINT_CLAIM, valid.checkpoints.name().to_owned()),
        (env::TERMINATION_LOG, TERMINATION_LOG_PATH.to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| variable(name, value))
    .collect();
    let own = &workers.pod_overrides.env;
    if !own.iter().any(|variable| variable.name == env::NUM_THREADS) {
        variables.push(threads(valid.threads));
    }
    variables.extend(own.iter().cloned());
    variables
}

fn variable(name: &str, value: String) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value),
        value_from: None,
    }
}

fn threads(threads: Threads) -> EnvVar {
    match threads {
        Threads::Fixed(count) => variable(env::NUM_THREADS, count.to_string()),
        Threads::OfNode => EnvVar {
            name: env::NUM_THREADS.to_owned(),
            value: None,
            // Without a limit this is the node's allocatable CPUs, rounded up.
            value_from: Some(EnvVarSource {
                resource_field_ref: Some(ResourceFieldSelector {
                    container_name: Some(TRAINER_CONTAINER.to_owned()),
                    divisor: Some(Quantity("1".to_owned())),
                    resource: "limits.cpu".to_owned(),
                }),
                ..EnvVarSource::default()
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::validated;

    #[test]
    fn users_own_variables_come_last_and_may_set_the_threads() {
        let mut valid = validated();
        let own = ["OMP_NUM_THREADS", "NCCL_DEBUG"].map(|name| variable(name, "1".to_owned()));
        valid.spec.workers.pod_overrides.env = own.to_vec();
        let names: Vec<String> = build(&valid, 3).into_iter().map(|v| v.name).collect();
        assert_eq!(
            names
                .iter()
                .filter(|name| *name == "OMP_NUM_THREADS")
                .count(),
            1
        );
        assert_eq!(names.last().unwrap(), "NCCL_DEBUG");
    }
}
