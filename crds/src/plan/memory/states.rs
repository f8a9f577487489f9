//! What is there from the first step to the last: weights, gradients, optimizer states.

use super::groups::{ALIGN, Group, round_up};
use super::{MemoryParts, kinds, narrow};
use crate::finetune::VLFineTuneSpec;
use crate::parallelism::{Offload, Strategy};

/// Which states a rank holds only a slice of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plan) struct Sharding {
    /// Ranks, or 1 where nothing is sharded.
    pub ranks: i128,
    pub optimizer: bool,
    pub gradients: bool,
    pub parameters: bool,
}

impl Sharding {
    /// `Auto` is `DDP` here: what it chooses is resolved before.
    pub fn of(spec: &VLFineTuneSpec) -> Self {
        let ranks = i128::from(spec.workers.world_size().max(1));
        let level = match spec.parallelism.strategy {
            Strategy::Auto | Strategy::Ddp => 0,
            Strategy::Zero1 => 1,
            Strategy::Zero2 => 2,
            Strategy::Zero3 => 3,
        };
        let level = if ranks == 1 { 0 } else { level };
        Self {
            ranks: if level == 0 { 1 } else { ranks },
            optimizer: level >= 1,
            gradients: level >= 2,
            parameters: level >= 3,
        }
    }

    /// Multiple that a flat buffer's length is padded to.
    pub fn multiple(self) -> i128 {
        match self.ranks {
            1 => 1,
            ranks => ranks * ALIGN,
        }
    }

    fn slice(self, bytes: i128, sharded: bool) -> i128 {
        match sharded {
            true => bytes / self.ranks,
            false => bytes,
        }
    }
}

/// Whether trained weights exist in the compute kind from the first step to the last, besides
/// float32 masters that are sharded or offloaded.
pub(super) fn keeps_compute_copies(spec: &VLFineTuneSpec) -> bool {
    let (storage, compute) = kinds(spec);
    let sharding = Sharding::of(spec);
    let apart = sharding.optimizer || spec.parallelism.offload != Offload::None;
    storage != compute && apart && !keeps_no_weights(spec)
}

/// Whether trained weights are whole only while their unit runs.
pub(super) fn keeps_no_weights(spec: &VLFineTuneSpec) -> bool {
    Sharding::of(spec).parameters || spec.parallelism.offload == Offload::Parameters
}

/// All states of one rank; nothing that comes and goes.
pub(super) fn states(groups: &[Group], spec: &VLFineTuneSpec) -> MemoryParts {
    let (storage, compute) = kinds(spec);
    let sharding = Sharding::of(spec);
    let mut trained = 0;
    let mut frozen = 0;
    for group in groups {
        trained += group.count * group.buffer_elements(sharding.multiple());
        let bytes = group.frozen_bytes(compute);
        let bytes = match sharding.parameters {
            true => round_up(bytes, sharding.ranks) / sharding.ranks,
            false => bytes,
        };
        frozen += group.count * bytes;
    }
    let optimizer = sharding.slice(2 * storage * trained, sharding.optimizer);
    let gradients = sharding.slice(storage * trained, sharding.gradients);
    let mixed = storage != compute;
    let offload = spec.parallelism.offload;
    // What the optimizer updates: weights or masters, on the device or on the host.
    let updated = match mixed {
        true => sharding.slice(storage * trained, sharding.optimizer),
        false => sharding.slice(storage * trained, sharding.parameters),
    };
    let mut parts = MemoryParts {
        gradients: narrow(gradients),
        ..MemoryParts::default()
    };
    let (weights, host) = match offload {
        Offload::None => {
            parts.optimizer = narrow(optimizer);
            parts.masters = if mixed { narrow(updated) } else { 0 };
            (if mixed { 0 } else { updated }, 0)
        }
        // A part of its own even where units compute in the storage kind.
        _ => {
            let own = sharding.slice(storage * trained, sharding.optimizer);
            let kept = !mixed && !keeps_no_weights(spec);
            (if kept { storage * trained } else { 0 }, optimizer + own)
        }
    };
    let weights = match keeps_compute_copies(spec) {
        true => compute * trained,
        false => weights,
    };
    let (frozen, host) = match offload {
        Offload::Parameters => (0, host + frozen),
        _ => (frozen, host),
    };
    parts.weights = narrow(weights + frozen);
    parts.host = narrow(host);
    parts
}
