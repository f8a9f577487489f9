//! What of a buffer is allocated, where, and in which kind: the one place where plain data
//! parallelism, ZeRO's stages and offload differ in memory.

use std::cell::RefCell;

use tch::{Device, Tensor};

use super::build::{Draft, StoreOptions, TensorSource};
use super::flat::{FlatBuffer, FrozenBuffer};
use super::{Offload, Sharding};
use crate::error::Result;

/// A trainable buffer with its first values.
pub(super) fn trainable(
    draft: Draft,
    options: StoreOptions,
    sharding: &Sharding,
    source: &dyn TensorSource,
) -> Result<FlatBuffer> {
    let length = sharding.padded(draft.length);
    let owned = sharding.owned(length);
    let part = |whole: &Tensor| whole.f_narrow(0, owned.start, owned.end - owned.start);
    let (weights, whole) = weights(&draft, length, options, sharding, source, &part)?;
    let options = (draft.key.dtype, options.device);
    let (grad, whole_grad) = match sharding.shards_gradients() {
        true => (Tensor::f_zeros([owned.end - owned.start], options)?, None),
        false => {
            let whole = Tensor::f_zeros([length], options)?;
            (part(&whole)?, Some(whole))
        }
    };
    let Draft {
        key, unit, spans, ..
    } = draft;
    Ok(FlatBuffer {
        key,
        unit,
        spans,
        length,
        owned,
        weights,
        grad,
        touched: false,
        whole,
        whole_grad: RefCell::new(whole_grad),
    })
}

type Part<'a> = &'a dyn Fn(&Tensor) -> std::result::Result<Tensor, tch::TchError>;

/// Our part in the storage kind, and the whole in the compute kind where it stays.
fn weights(
    draft: &Draft,
    length: i64,
    options: StoreOptions,
    sharding: &Sharding,
    source: &dyn TensorSource,
    part: Part,
) -> Result<(Tensor, Option<Tensor>)> {
    let device = options.device;
    let same_kind = options.precision.storage() == options.precision.compute();
    let on_host = sharding.offload > Offload::None;
    let plain = !on_host && sharding.keeps_parameters();
    // The units compute with what the optimizer updates.
    if plain && (same_kind || !sharding.is_sharded()) {
        let whole = draft.values(length, device, options, source)?;
        let weights = part(&whole)?;
        return Ok((weights, same_kind.then_some(whole)));
    }
    let values = draft.values(length, Device::Cpu, options, source)?;
    let weights = home(&part(&values)?, device, on_host)?;
    if !sharding.keeps_parameters() {
        return Ok((weights, None));
    }
    let compute = options.precision.compute();
    let whole = values.f_to_device(device)?.f_to_kind(compute)?;
    Ok((weights, Some(own_memory(whole, &values)?)))
}

/// The frozen parameters of a unit, of which this process keeps its part.
pub(super) fn frozen(
    draft: Draft,
    options: StoreOptions,
    sharding: &Sharding,
    source: &dyn TensorSource,
) -> Result<FrozenBuffer> {
    // Without a stage that shards parameters each process keeps all, on the host.
    let sliced = match sharding.shards_parameters() {
        true => sharding.clone(),
        false => Sharding::default(),
    };
    let length = sliced.padded(draft.length);
    let owned = sliced.owned(length);
    let values = draft.values(length, Device::Cpu, options, source)?;
    let part = values.f_narrow(0, owned.start, owned.end - owned.start)?;
    let on_host = sharding.offload == Offload::Parameters;
    Ok(FrozenBuffer {
        weights: home(&part, options.device, on_host)?,
        spans: draft.spans,
        length,
        owned,
    })
}

/// A copy on the device, or on the host in pages that the device can copy from by itself.
fn home(part: &Tensor, device: Device, on_host: bool) -> Result<Tensor> {
    if !on_host {
        return own_memory(part.f_to_device(device)?, part);
    }
    match device {
        Device::Cpu => Ok(part.f_detach_copy()?),
        device => Ok(part.f_pin_memory(device)?),
    }
}

/// `to_device` and `to_kind` return their input where there is nothing to do.
fn own_memory(made: Tensor, from: &Tensor) -> Result<Tensor> {
    match made.device() == from.device() && made.data_ptr() == from.data_ptr() {
        true => Ok(made.f_detach_copy()?),
        false => Ok(made),
    }
}
