//! Lays parameters out in buffers and fills them.

use std::collections::HashMap;

use tch::{Device, Kind, Tensor};

use super::flat::FrozenBuffer;
use super::storage;
use super::{FrozenParameter, GroupKey, ParameterStore, Place, Sharding, Span};
use crate::engine::{Init, ParameterSpec, Precision, Tower, derive_seed, seeded};
use crate::error::{Error, Result};

/// 64 bytes in the narrowest kind that units compute in (bfloat16).
pub(super) const ALIGN_ELEMENTS: i64 = 32;

/// Where first values come from: a checkpoint, by name.
pub trait TensorSource {
    /// The tensor of that name, on the CPU, in whatever kind it is stored.
    fn tensor(&self, name: &str) -> Result<Tensor>;
}

/// How a store keeps its parameters.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    pub precision: Precision,
    pub device: Device,
    /// Seeds [`Init::Uniform`].
    pub seed: u64,
}

/// Spans gathered for one buffer before it is allocated.
pub(super) struct Draft {
    pub key: GroupKey,
    pub unit: usize,
    pub spans: Vec<Span>,
    pub inits: Vec<Init>,
    pub length: i64,
}

impl Draft {
    /// All values, padded to `length`, in the storage kind.
    pub fn values(
        &self,
        length: i64,
        device: Device,
        options: StoreOptions,
        source: &dyn TensorSource,
    ) -> Result<Tensor> {
        let flat = Tensor::f_zeros([length], (self.key.dtype, device))?;
        for (span, init) in self.spans.iter().zip(&self.inits) {
            let value = initial(&span.name, &span.shape, *init, options, source)?;
            span.view(&flat)?.f_copy_(&value)?;
        }
        Ok(flat)
    }
}

/// The smallest multiple of `of` that is not below `elements`.
pub(super) fn round_up(elements: i64, of: i64) -> i64 {
    (elements + of - 1) / of * of
}

impl ParameterStore {
    /// `units` lists each unit's own parameters and the names it borrows, in execution order.
    /// Errors if a name has two owners, a borrowed one has none, or a shape differs.
    pub fn build(
        units: &[(&[ParameterSpec], &[String])],
        options: StoreOptions,
        sharding: Sharding,
        source: &dyn TensorSource,
    ) -> Result<Self> {
        let mut store = Self {
            precision: options.precision,
            device: options.device,
            sharding,
            buffers: Vec::new(),
            frozen: Vec::new(),
            frozen_buffers: Vec::new(),
            units: Vec::new(),
            places: HashMap::new(),
        };
        for (unit, (own, _)) in units.iter().enumerate() {
            let places = store.add_unit(unit, own, options, source)?;
            store.units.push(places);
        }
        for (unit, (_, borrowed)) in units.iter().enumerate() {
            store.borrow(unit, borrowed)?;
        }
        Ok(store)
    }

    fn add_unit(
        &mut self,
        unit: usize,
        own: &[ParameterSpec],
        options: StoreOptions,
        source: &dyn TensorSource,
    ) -> Result<Vec<Place>> {
        let (mut drafts, mut frozen_drafts) = (Vec::new(), Vec::new());
        let mut places = Vec::with_capacity(own.len());
        for spec in own {
            let place = if spec.trainable {
                let key = GroupKey {
                    dtype: options.precision.storage(),
                    tower: spec.tower,
                    decay: spec.decay(),
                };
                let (draft, span) = place_span(&mut drafts, unit, spec, key);
                let buffer = self.buffers.len() + draft;
                Place::Trainable { buffer, span }
            } else if self.sharding.keeps_parameters() {
                self.frozen.push(frozen(unit, spec, options, source)?);
                Place::Frozen(self.frozen.len() - 1)
            } else {
                let (draft, span) = place_span(&mut frozen_drafts, unit, spec, frozen_key(options));
                let buffer = self.frozen_buffers.len() + draft;
                Place::FrozenSpan { buffer, span }
            };
            if self.places.insert(spec.name.clone(), place).is_some() {
                let message = format!("parameter {} has two owners", spec.name);
                return Err(Error::Bug(message));
            }
            places.push(place);
        }
        for draft in drafts {
            let buffer = storage::trainable(draft, options, &self.sharding, source)?;
            self.buffers.push(buffer);
        }
        for draft in frozen_drafts {
            let buffer: FrozenBuffer = storage::frozen(draft, options, &self.sharding, source)?;
            self.frozen_buffers.push(buffer);
        }
        Ok(places)
    }

    fn borrow(&mut self, unit: usize, names: &[String]) -> Result<()> {
        for name in names {
            let place = self.places.get(name).copied();
            let place = place.ok_or_else(|| {
                Error::Bug(format!("parameter {name} is borrowed, but no unit owns it"))
            })?;
            if let Some(places) = self.units.get_mut(unit) {
                places.push(place);
            }
        }
        Ok(())
    }
}

/// All frozen parameters of a unit share one buffer.
fn frozen_key(options: StoreOptions) -> GroupKey {
    GroupKey {
        dtype: options.precision.compute(),
        tower: Tower::Language,
        decay: false,
    }
}

/// Appends a span to the draft of its group; returns both indices.
fn place_span(
    drafts: &mut Vec<Draft>,
    unit: usize,
    spec: &ParameterSpec,
    key: GroupKey,
) -> (usize, usize) {
    let index = drafts
        .iter()
        .position(|d| d.key == key)
        .unwrap_or(drafts.len());
    if index == drafts.len() {
        drafts.push(Draft {
            key,
            unit,
            spans: Vec::new(),
            inits: Vec::new(),
            length: 0,
        });
    }
    let mut place = 0;
    if let Some(draft) = drafts.get_mut(index) {
        let span = Span {
            name: spec.name.clone(),
            shape: spec.shape.clone(),
            offset: draft.length,
        };
        draft.length += round_up(span.numel(), ALIGN_ELEMENTS);
        place = draft.spans.len();
        draft.spans.push(span);
        draft.inits.push(spec.init);
    }
    (index, place)
}

/// A frozen parameter in the compute kind: the mapped view itself where kind and device agree.
fn frozen(
    unit: usize,
    spec: &ParameterSpec,
    options: StoreOptions,
    source: &dyn TensorSource,
) -> Result<FrozenParameter> {
    let value = initial(&spec.name, &spec.shape, spec.init, options, source)?;
    let weight = value
        .f_to_device(options.device)?
        .f_to_kind(options.precision.compute())?;
    Ok(FrozenParameter {
        name: spec.name.clone(),
        unit,
        tower: spec.tower,
        weight,
    })
}

fn initial(
    name: &str,
    shape: &[i64],
    init: Init,
    options: StoreOptions,
    source: &dyn TensorSource,
) -> Result<Tensor> {
    let cpu = (Kind::Float, Device::Cpu);
    let value = match init {
        Init::Checkpoint => source.tensor(name)?,
        Init::Zeros => Tensor::f_zeros(shape, cpu)?,
        Init::Uniform { bound } => {
            let parts: Vec<u64> = name.bytes().map(u64::from).chain([options.seed]).collect();
            let _generator = seeded(derive_seed(&parts));
            Tensor::f_empty(shape, cpu)?.f_uniform_(-bound, bound)?
        }
    };
    if value.size() == shape {
        return Ok(value);
    }
    Err(Error::User(format!(
        "tensor {name} has shape {:?} in the checkpoint, the model needs {shape:?}; \
         config.json and the weights do not belong together",
        value.size()
    )))
}
