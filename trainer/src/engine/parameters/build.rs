//! Lays parameters out in buffers and fills them.

use std::collections::HashMap;

use tch::{Device, Kind, Tensor};

use super::{FlatBuffer, FrozenParameter, GroupKey, ParameterStore, Place, Span};
use crate::engine::{Init, ParameterSpec, Precision, derive_seed, seeded};
use crate::error::{Error, Result};

/// 64 bytes in the narrowest kind that units compute in (bfloat16).
const ALIGN_ELEMENTS: i64 = 32;

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
struct Draft {
    key: GroupKey,
    unit: usize,
    spans: Vec<Span>,
    inits: Vec<Init>,
    length: i64,
}

impl ParameterStore {
    /// `units` lists each unit's own parameters and the names it borrows, in execution order.
    /// Errors if a name has two owners, a borrowed one has none, or a shape differs.
    pub fn build(
        units: &[(&[ParameterSpec], &[String])],
        options: StoreOptions,
        source: &dyn TensorSource,
    ) -> Result<Self> {
        let mut store = Self {
            precision: options.precision,
            buffers: Vec::new(),
            frozen: Vec::new(),
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
        let first = self.buffers.len();
        let mut drafts: Vec<Draft> = Vec::new();
        let mut places = Vec::with_capacity(own.len());
        for spec in own {
            let place = if spec.trainable {
                let (draft, span) = place_span(&mut drafts, unit, spec, options.precision);
                Place::Trainable {
                    buffer: first + draft,
                    span,
                }
            } else {
                self.frozen.push(frozen(unit, spec, options, source)?);
                Place::Frozen(self.frozen.len() - 1)
            };
            if self.places.insert(spec.name.clone(), place).is_some() {
                return Err(Error::Bug(format!(
                    "parameter {} has two owners",
                    spec.name
                )));
            }
            places.push(place);
        }
        for draft in drafts {
            self.buffers.push(allocate(draft, options, source)?);
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

/// Appends a span to the draft of its group; returns both indices.
fn place_span(
    drafts: &mut Vec<Draft>,
    unit: usize,
    spec: &ParameterSpec,
    precision: Precision,
) -> (usize, usize) {
    let key = GroupKey {
        dtype: precision.storage(),
        tower: spec.tower,
        decay: spec.decay(),
    };
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
        draft.length += (span.numel() + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
        place = draft.spans.len();
        draft.spans.push(span);
        draft.inits.push(spec.init);
    }
    (index, place)
}

fn allocate(draft: Draft, options: StoreOptions, source: &dyn TensorSource) -> Result<FlatBuffer> {
    let Draft {
        key,
        unit,
        spans,
        inits,
        length,
    } = draft;
    let weights = Tensor::f_zeros([length], (key.dtype, options.device))?;
    let grad = Tensor::f_zeros([length], (key.dtype, options.device))?;
    for (span, init) in spans.iter().zip(inits) {
        let value = initial(&span.name, &span.shape, init, options, source)?;
        span.view(&weights)?.f_copy_(&value)?;
    }
    let mut leaves = Vec::new();
    if options.precision.storage() == options.precision.compute() {
        for span in &spans {
            let leaf = span.view(&weights)?.f_detach()?.f_set_requires_grad(true)?;
            torch_ext::set_grad(&leaf, Some(&span.view(&grad)?))?;
            leaves.push(leaf);
        }
    }
    Ok(FlatBuffer {
        key,
        unit,
        spans,
        weights,
        grad,
        touched: false,
        leaves,
    })
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
