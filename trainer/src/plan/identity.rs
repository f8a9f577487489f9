//! Who the run is: from the pod's environment, or a file on this machine.

use std::path::PathBuf;

use vlft_crds::VLFineTune;
use vlft_crds::contract::{
    CHECKPOINTS_PATH, METRICS_PORT, TERMINATION_LOG_PATH, VOLUMES_PATH, env,
};

use crate::error::{Error, Result};
use crate::train::Identity;

/// What the operator sets in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEnvironment {
    pub identity: Identity,
    pub volumes: PathBuf,
    /// The checkpoint volume.
    pub checkpoints: PathBuf,
    pub termination_log: PathBuf,
    pub metrics_port: u16,
}

impl PodEnvironment {
    /// Reads the contract's variables through `lookup`.
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let required = |name: &str| {
            let value = lookup(name).filter(|value| !value.is_empty());
            value.ok_or_else(|| {
                Error::User(format!(
                    "{name} is not set; `trainer launch` runs in a pod made by the operator, \
                     elsewhere use `trainer run FILE`"
                ))
            })
        };
        let folder = |name: &str, default: &str| {
            PathBuf::from(lookup(name).unwrap_or_else(|| default.to_owned()))
        };
        let number = |name: &str, default: i64| match lookup(name) {
            None => Ok(default),
            Some(text) => text
                .parse::<i64>()
                .map_err(|_| Error::User(format!("{name} is `{text}`, not a number"))),
        };
        Ok(Self {
            identity: Identity {
                name: path_part(required(env::NAME)?, env::NAME)?,
                namespace: path_part(required(env::NAMESPACE)?, env::NAMESPACE)?,
                uid: path_part(required(env::UID)?, env::UID)?,
                attempt: number(env::ATTEMPT, 1)?,
            },
            volumes: folder(env::VOLUMES, VOLUMES_PATH),
            checkpoints: folder(env::CHECKPOINTS, CHECKPOINTS_PATH),
            termination_log: folder(env::TERMINATION_LOG, TERMINATION_LOG_PATH),
            metrics_port: METRICS_PORT,
        })
    }

    /// `<namespace>/<name>/<uid>/` on the checkpoint volume.
    pub fn run_folder(&self) -> PathBuf {
        let Identity {
            name,
            namespace,
            uid,
            attempt: _,
        } = &self.identity;
        self.checkpoints.join(namespace).join(name).join(uid)
    }
}

/// Refuses what would lead out of the volume.
fn path_part(value: String, variable: &str) -> Result<String> {
    if value.contains('/') || value == "." || value == ".." {
        return Err(Error::User(format!(
            "{variable} is `{value}`, which is no name"
        )));
    }
    Ok(value)
}

/// Of a document that runs without a cluster.
pub fn local_identity(document: &VLFineTune) -> Identity {
    let metadata = &document.metadata;
    Identity {
        name: metadata.name.clone().unwrap_or_default(),
        namespace: metadata
            .namespace
            .clone()
            .unwrap_or_else(|| "default".into()),
        uid: "local".into(),
        attempt: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<PodEnvironment> {
        PodEnvironment::read(&|name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const POD: [(&str, &str); 4] = [
        (env::NAME, "digits"),
        (env::NAMESPACE, "team"),
        (env::UID, "u-1"),
        (env::ATTEMPT, "3"),
    ];

    #[test]
    fn the_run_lives_under_namespace_name_and_uid() {
        let pod = read(&POD).unwrap();
        assert_eq!(pod.identity.attempt, 3);
        let expected = PathBuf::from(CHECKPOINTS_PATH).join("team/digits/u-1");
        assert_eq!(pod.run_folder(), expected);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let message = read(&POD[1..]).unwrap_err().to_string();
        assert!(
            message.contains(env::NAME) && message.contains("trainer run"),
            "{message}"
        );
        let wrong = [
            (env::UID, ".."),
            (env::ATTEMPT, "three"),
            (env::NAMESPACE, "a/b"),
        ];
        for (name, value) in wrong {
            let pairs = [&[(name, value)], &POD[..]].concat();
            let message = read(&pairs).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }
}
