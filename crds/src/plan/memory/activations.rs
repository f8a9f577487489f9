//! What comes and goes within a step: kept inputs or graphs, the graph of the unit that runs
//! backward, copies in the compute kind, chunked logits. A walk over the units in the order of
//! backward finds the moment that needs most.

use super::graphs::{Rows, backward_extra, graph_bytes, input_bytes, side_bytes};
use super::groups::Group;
use super::states::{Sharding, keeps_compute_copies, keeps_no_weights};
use super::{Workload, kinds, loss_chunk, narrow};
use crate::finetune::VLFineTuneSpec;
use crate::plan::model_shape::{ModelShape, Tower, UnitKind};
use crate::plan::resolve;

/// Bytes of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Peak {
    pub working: i64,
    pub activations: i64,
    pub vision: i64,
    pub logits: i64,
}

/// As [`Peak`], while it is added up.
#[derive(Debug, Clone, Copy, Default)]
struct Moment {
    working: i128,
    activations: i128,
    vision: i128,
    logits: i128,
}

impl Moment {
    fn total(self) -> i128 {
        self.working + self.activations + self.vision + self.logits
    }

    /// Adds activations to the tower they belong to.
    fn add(&mut self, tower: Tower, bytes: i128) {
        match tower {
            Tower::Language => self.activations += bytes,
            Tower::Vision | Tower::Projector => self.vision += bytes,
        }
    }
}

/// What a walk looks at.
struct Walk<'a> {
    shape: &'a ModelShape,
    spec: &'a VLFineTuneSpec,
    rows: Rows,
    supervised: i128,
    /// Bytes of one element in storage and compute kind.
    storage: i128,
    compute: i128,
    recompute: bool,
    /// Parameters and gradients that are whole only while their unit runs.
    gathered: i128,
}

/// The moment of a step that needs most.
pub(super) fn peak(
    groups: &[Group],
    shape: &ModelShape,
    spec: &VLFineTuneSpec,
    workload: Workload,
) -> Peak {
    let (storage, compute) = kinds(spec);
    let walk = Walk {
        shape,
        spec,
        rows: Rows {
            tokens: i128::from(workload.tokens),
            patches: i128::from(workload.patches),
        },
        supervised: i128::from(workload.supervised),
        storage,
        compute,
        recompute: resolve::gradient_checkpointing(spec),
        gathered: gathered(groups, spec),
    };
    let most = walk.moments(groups).into_iter().max_by_key(|m| m.total());
    let Moment {
        working,
        activations,
        vision,
        logits,
    } = most.unwrap_or_default();
    Peak {
        working: narrow(working),
        activations: narrow(activations),
        vision: narrow(vision),
        logits: narrow(logits),
    }
}

impl Walk<'_> {
    /// One moment for each kind of unit that backward visits, and one for the loss.
    fn moments(&self, groups: &[Group]) -> Vec<Moment> {
        let mut kept = Moment::default();
        let (text, images) = side_bytes(self.shape, self.rows, self.compute);
        kept.activations += text;
        kept.vision += images;
        let mut moments = vec![self.untracked(groups, kept)];
        let mut tracked = false;
        for group in groups.iter().filter(|group| group.count > 0) {
            tracked |= group.is_trained();
            if let UnitKind::Head = group.unit.kind {
                moments.push(self.head(group, groups, kept));
            } else if tracked {
                self.keep(group, &mut kept);
                moments.push(self.backward(group, kept));
            }
        }
        moments
    }

    /// What stays from a group's forward until its backward.
    fn keep(&self, group: &Group, kept: &mut Moment) {
        let input = input_bytes(group, self.rows, self.compute);
        kept.add(group.unit.tower, group.count * input);
        if !self.recompute {
            let graph = graph_bytes(group, self.rows, self.compute);
            kept.add(group.unit.tower, group.count * graph);
            kept.working += group.count * self.cast(group);
        }
    }

    /// The last unit of a group runs backward; everything before it is still kept.
    fn backward(&self, group: &Group, kept: Moment) -> Moment {
        let mut now = kept;
        if self.recompute {
            let graph = graph_bytes(group, self.rows, self.compute);
            now.add(group.unit.tower, graph);
            now.working += self.cast(group);
        }
        let extra = backward_extra(group, self.rows, self.compute);
        now.add(group.unit.tower, extra.activations);
        now.working += extra.working + self.gathered;
        now
    }

    /// Final norm, projection, loss: on supervised rows alone, logits in chunks.
    /// Source: `trainer/src/engine/head.rs`.
    fn head(&self, group: &Group, groups: &[Group], kept: Moment) -> Moment {
        let (c, hidden) = (self.compute, i128::from(self.shape.hidden));
        let vocabulary = i128::from(self.shape.vocabulary);
        let chunk = i128::from(loss_chunk(self.shape, self.spec)).min(self.supervised);
        let trains = self.projection_trains(group, groups);
        // Rows, normed rows and their gradient; a float32 copy where the norm makes one.
        let wide = if c < 4 { 4 } else { 0 };
        let norm = if group.trains { c } else { 0 };
        let rows = self.supervised * hidden * (3 * c + wide + norm);
        let mut now = kept;
        now.activations += c * self.rows.tokens * hidden;
        let weight = vocabulary * hidden * c;
        let (cast, outer) = match trains && self.storage != c {
            true => (weight, weight),
            false => (0, 0),
        };
        if !keeps_compute_copies(self.spec) && !keeps_no_weights(self.spec) {
            now.working += cast;
        }
        now.working += self.gathered;
        // Two float32 copies of the logits, or the weight's gradient beside one in compute kind.
        let logits = (8 * chunk * vocabulary).max(c * chunk * vocabulary + outer);
        now.logits = rows + logits;
        now
    }

    fn projection_trains(&self, head: &Group, groups: &[Group]) -> bool {
        let embedding = groups
            .iter()
            .find(|group| group.unit.kind == UnitKind::Embedding);
        match self.shape.tied {
            true => embedding.is_some_and(|embedding| embedding.trains),
            false => head.trains,
        }
    }

    /// Forward through a frozen vision tower: nothing is kept, but its largest unit must fit.
    fn untracked(&self, groups: &[Group], base: Moment) -> Moment {
        let frozen = groups.iter().take_while(|group| !group.is_trained());
        let largest = frozen
            .filter(|group| group.unit.tower != Tower::Language)
            .map(|group| {
                let input = input_bytes(group, self.rows, self.compute);
                input + graph_bytes(group, self.rows, self.compute)
            })
            .max();
        let mut now = base;
        now.vision += largest.unwrap_or(0);
        now.working += self.gathered;
        now
    }

    /// A unit's trained weights in the compute kind, where only the storage kind is kept.
    fn cast(&self, group: &Group) -> i128 {
        let made = self.storage != self.compute
            && !keeps_compute_copies(self.spec)
            && !keeps_no_weights(self.spec)
            && group.unit.kind != UnitKind::Embedding;
        if made {
            self.compute * group.buffer_elements(1)
        } else {
            0
        }
    }
}

/// Units whose weights are whole only while they run: the largest and the one fetched ahead;
/// and the largest unit's whole gradient before it is reduced.
fn gathered(groups: &[Group], spec: &VLFineTuneSpec) -> i128 {
    let (storage, compute) = kinds(spec);
    let sharding = Sharding::of(spec);
    let mut whole: Vec<i128> = Vec::new();
    let mut gradient = 0;
    for group in groups.iter().filter(|group| group.count > 0) {
        let trained = group.buffer_elements(sharding.multiple());
        gradient = gradient.max(storage * trained);
        let weights = compute * trained + group.frozen_bytes(compute);
        whole.push(weights);
        if group.count > 1 {
            whole.push(weights);
        }
    }
    whole.sort_unstable_by(|a, b| b.cmp(a));
    let weights = match keeps_no_weights(spec) {
        true => whole.iter().take(2).sum(),
        false => 0,
    };
    match sharding.gradients {
        true => weights + gradient,
        false => weights,
    }
}
