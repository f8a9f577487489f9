//! One flat buffer: where parameters lie in it, what of it is ours, and what is whole.

use std::cell::RefCell;
use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::Tower;
use crate::error::Result;

/// What one flat buffer has in common; the optimizer treats all its elements alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupKey {
    /// Storage kind: what the optimizer updates.
    pub dtype: Kind,
    /// Learning-rate group.
    pub tower: Tower,
    /// Whether weight decay applies.
    pub decay: bool,
}

/// Where a parameter lies in its flat buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Checkpoint name.
    pub name: String,
    pub shape: Vec<i64>,
    /// Element offset, 64-byte aligned; the gap before the next span holds zeros.
    pub offset: i64,
}

impl Span {
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }

    /// This span of a flat `[N]` tensor, in its own shape; shares memory.
    pub fn view(&self, flat: &Tensor) -> Result<Tensor> {
        Ok(flat
            .f_narrow(0, self.offset, self.numel())?
            .f_view(self.shape.as_slice())?)
    }
}

/// The trainable parameters of one unit that share a [`GroupKey`]. Legend: N elements of the
/// buffer, O of them ours (N where nothing is sharded).
///
/// `weights` and `grad` are only ever changed in place: views share their memory.
#[derive(Debug)]
pub struct FlatBuffer {
    pub key: GroupKey,
    /// Index of the owning unit, in execution order.
    pub unit: usize,
    pub spans: Vec<Span>,
    /// N, padding included.
    pub length: i64,
    /// The elements that this process updates and saves.
    pub owned: Range<i64>,
    /// `[O]` in the storage kind; float32 masters under `BFloat16Mixed`. What the optimizer
    /// updates and a checkpoint saves; on the host where it is offloaded.
    pub weights: Tensor,
    /// `[O]` gradient, in the storage kind, on the device; micro-batches add into it.
    pub grad: Tensor,
    /// Whether a backward pass reached it since the last [`super::ParameterStore::zero_grad`];
    /// the optimizer skips the buffer if not, as PyTorch does for `grad = None`.
    pub touched: bool,
    /// `[N]` in the compute kind, where units find their weights without gathering.
    pub(super) whole: Option<Tensor>,
    /// `[N]` gradient of this process's batches: always there where gradients are not sharded
    /// (and then `grad` shares its memory), else from first use until it is taken to be reduced.
    pub(super) whole_grad: RefCell<Option<Tensor>>,
}

impl FlatBuffer {
    /// The whole gradient, zero if nothing was added yet.
    pub fn whole_grad(&self) -> Result<Tensor> {
        let mut slot = self.whole_grad.borrow_mut();
        if slot.is_none() {
            let options = (self.key.dtype, self.grad.device());
            *slot = Some(Tensor::f_zeros([self.length], options)?);
        }
        Ok(slot
            .as_ref()
            .map_or_else(Tensor::new, Tensor::shallow_clone))
    }

    /// As [`Self::whole_grad`], and gives it up: the next one begins at zero.
    pub fn take_whole_grad(&self) -> Result<Tensor> {
        let whole = self.whole_grad()?;
        self.whole_grad.borrow_mut().take();
        Ok(whole)
    }

    /// Clears gradient and mark.
    pub(super) fn zero_grad(&mut self) -> Result<()> {
        // Where the whole one stays, ours is a part of it.
        let _ = match self.whole_grad.get_mut() {
            Some(whole) => whole.f_zero_()?,
            None => self.grad.f_zero_()?,
        };
        self.touched = false;
        Ok(())
    }

    /// Our piece of a span, in a tensor laid out as `weights`: in the span's shape where nothing
    /// is sharded, else `[piece]`; `None` if all of it belongs to others. Shares memory.
    pub fn piece(&self, span: &Span, owned: &Tensor) -> Result<Option<Tensor>> {
        if self.owned == (0..self.length) {
            return span.view(owned).map(Some);
        }
        let begin = span.offset.max(self.owned.start);
        let end = (span.offset + span.numel()).min(self.owned.end);
        if begin >= end {
            return Ok(None);
        }
        let piece = owned.f_narrow(0, begin - self.owned.start, end - begin)?;
        Ok(Some(piece))
    }

    /// Copies our part of a whole parameter, `[shape]`, into a tensor laid out as `weights`.
    pub fn copy_in(&self, span: &Span, owned: &Tensor, value: &Tensor) -> Result<()> {
        let Some(mut piece) = self.piece(span, owned)? else {
            return Ok(());
        };
        let skipped = (self.owned.start - span.offset).max(0);
        let flat = value.f_reshape([-1])?;
        let ours = flat.f_narrow(0, skipped, piece.numel() as i64)?;
        let ours = ours.f_view(piece.size().as_slice())?;
        tch::no_grad(|| piece.f_copy_(&ours))?;
        Ok(())
    }

    /// Our part of [`Self::whole`], for the optimizer's result.
    pub(super) fn own_part(&self, whole: &Tensor) -> Result<Tensor> {
        let Range { start, end } = self.owned;
        Ok(whole.f_narrow(0, start, end - start)?)
    }
}

#[cfg(test)]
impl FlatBuffer {
    /// A buffer that no unit reads, for tests of what works on flat buffers alone.
    pub(crate) fn alone(key: GroupKey, spans: Vec<Span>, weights: Tensor) -> Self {
        let length = weights.size().iter().product();
        Self {
            key,
            unit: 0,
            spans,
            length,
            owned: 0..length,
            grad: weights.zeros_like(),
            weights,
            touched: false,
            whole: None,
            whole_grad: RefCell::default(),
        }
    }
}

/// The frozen parameters of one unit, where they do not stay whole on the device: sharded or
/// offloaded.
#[derive(Debug)]
pub(super) struct FrozenBuffer {
    pub spans: Vec<Span>,
    pub length: i64,
    pub owned: Range<i64>,
    /// `[O]` in the compute kind.
    pub weights: Tensor,
}

/// `[N]` in the given kind, its values still undefined.
pub(super) fn whole_of(length: i64, kind: Kind, device: Device) -> Result<Tensor> {
    Ok(Tensor::f_empty([length], (kind, device))?)
}
