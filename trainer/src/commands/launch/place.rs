//! Rank and rendezvous from the environment.

use std::time::Duration;

use vlft_crds::contract::{RENDEZVOUS_PORT, env};

use crate::error::{Error, Result};
use crate::parallel::{Rank, Rendezvous};

/// Address of this machine's processes for each other.
pub(super) const LOOPBACK: &str = "127.0.0.1";

/// How long ranks wait for each other where `runPolicy.hangTimeoutSeconds` says nothing.
const TIMEOUT: Duration = Duration::from_secs(1800);

type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Processes of this node: `--nproc`, or what the operator says, or one.
pub(super) fn processes(asked: Option<u16>, lookup: &Lookup) -> Result<i64> {
    let told = number(env::PROCESSES_PER_NODE, 1, lookup)?;
    match asked.map(i64::from) {
        Some(asked) if lookup(env::UID).is_some() && asked != told => Err(Error::User(format!(
            "--nproc {asked}: this pod has {told}; set spec.workers.processesPerReplica instead"
        ))),
        Some(asked) => Ok(asked),
        None => Ok(told),
    }
}

/// This process's place.
pub(super) fn rank(processes: i64, lookup: &Lookup) -> Result<Rank> {
    let nodes = number(env::NUM_NODES, 1, lookup)?;
    let node = number(env::NODE_RANK, 0, lookup)?;
    let local_rank = number(env::LOCAL_RANK, 0, lookup)?;
    if node >= nodes || local_rank >= processes {
        return Err(Error::User(format!(
            "{}={node} of {nodes} and {}={local_rank} of {processes}: there is no such process",
            env::NODE_RANK,
            env::LOCAL_RANK
        )));
    }
    Ok(Rank {
        rank: node * processes + local_rank,
        world_size: nodes * processes,
        local_rank,
    })
}

/// Where the processes meet: at the first node's parent, or its only process. The parent serves
/// before it starts anyone: a client that comes too early at a port of the ephemeral range may
/// be connected to itself.
pub(super) fn rendezvous(hang_timeout: Option<i64>, lookup: &Lookup) -> Result<Rendezvous> {
    let nodes = number(env::NUM_NODES, 1, lookup)?;
    let port = number(env::MASTER_PORT, i64::from(RENDEZVOUS_PORT), lookup)?;
    let port = u16::try_from(port)
        .map_err(|_| Error::User(format!("{}={port} is no port", env::MASTER_PORT)))?;
    let local = || LOOPBACK.to_owned();
    let host = lookup(env::MASTER_ADDR).filter(|_| nodes > 1);
    // A pod's host name is its own address.
    let own_address = match nodes {
        1 => local(),
        _ => lookup("HOSTNAME").unwrap_or_else(local),
    };
    let node = number(env::NODE_RANK, 0, lookup)?;
    Ok(Rendezvous {
        serve: node == 0 && lookup(env::LOCAL_RANK).is_none(),
        host: host.unwrap_or_else(local),
        port,
        own_address,
        timeout: hang_timeout.map_or(TIMEOUT, |seconds| {
            Duration::from_secs(seconds.unsigned_abs())
        }),
    })
}

fn number(name: &str, default: i64, lookup: &Lookup) -> Result<i64> {
    let Some(text) = lookup(name) else {
        return Ok(default);
    };
    let value = text.parse::<i64>().ok().filter(|value| *value >= 0);
    value.ok_or_else(|| Error::User(format!("{name} is `{text}`, not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn ranks_count_through_the_nodes() {
        let pod = [
            (env::NUM_NODES, "2"),
            (env::NODE_RANK, "1"),
            (env::LOCAL_RANK, "1"),
        ];
        let place = rank(2, &with(&pod)).unwrap();
        let expected = Rank {
            rank: 3,
            world_size: 4,
            local_rank: 1,
        };
        assert_eq!(place, expected);
        assert_eq!(rank(1, &with(&[])).unwrap(), Rank::ONLY);
        let message = rank(1, &with(&pod)).unwrap_err().to_string();
        assert!(message.contains(env::LOCAL_RANK), "{message}");
    }

    #[test]
    fn one_node_meets_on_itself_and_several_on_the_first() {
        let alone = rendezvous(None, &with(&[(env::MASTER_ADDR, "digits-1-0.digits")])).unwrap();
        assert_eq!(
            (alone.host.as_str(), alone.port),
            (LOOPBACK, RENDEZVOUS_PORT)
        );
        let pod = [
            (env::NUM_NODES, "2"),
            (env::MASTER_ADDR, "digits-1-0.digits"),
            (env::MASTER_PORT, "4000"),
            ("HOSTNAME", "digits-1-1"),
        ];
        assert!(alone.serve && rendezvous(None, &with(&pod)).unwrap().serve);
        for (name, value) in [(env::NODE_RANK, "1"), (env::LOCAL_RANK, "0")] {
            let other = [&pod[..], &[(name, value)]].concat();
            assert!(!rendezvous(None, &with(&other)).unwrap().serve, "{name}");
        }
        let found = rendezvous(Some(7), &with(&pod)).unwrap();
        assert_eq!(
            (found.host.as_str(), found.port),
            ("digits-1-0.digits", 4000)
        );
        assert_eq!(found.own_address, "digits-1-1");
        assert_eq!(found.timeout, Duration::from_secs(7));
    }

    #[test]
    fn the_pod_says_how_many() {
        let pod = [(env::PROCESSES_PER_NODE, "2"), (env::UID, "u")];
        assert_eq!(processes(None, &with(&pod)).unwrap(), 2);
        assert_eq!(processes(Some(2), &with(&pod)).unwrap(), 2);
        let message = processes(Some(3), &with(&pod)).unwrap_err().to_string();
        assert!(message.contains("processesPerReplica"), "{message}");
        assert_eq!(processes(Some(3), &with(&[])).unwrap(), 3);
        assert_eq!(processes(None, &with(&[])).unwrap(), 1);
    }
}
