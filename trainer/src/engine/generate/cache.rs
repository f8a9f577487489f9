//! Keys and values of rows that a generation has already seen.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::Tensor;

use crate::error::{Error, Result};

/// Keys and values of `sequences` equally long sequences, for every unit that attends. Legend:
/// B sequences, R new rows of each, M key heads, D head size, C capacity, L rows seen so far.
#[derive(Debug)]
pub struct KeyValueCache {
    sequences: i64,
    capacity: i64,
    slots: RefCell<BTreeMap<usize, Slot>>,
}

/// One unit's `[B, M, C, D]` buffers, of which the first `length` rows are filled.
#[derive(Debug)]
struct Slot {
    keys: Tensor,
    values: Tensor,
    length: i64,
}

/// A unit's access to its part of the cache.
#[derive(Debug, Clone, Copy)]
pub struct UnitCache<'a> {
    cache: &'a KeyValueCache,
    unit: usize,
}

/// All rows seen so far, `[B, M, L, D]` each; views of the cache.
#[derive(Debug)]
pub struct SeenRows {
    pub keys: Tensor,
    pub values: Tensor,
    pub sequences: i64,
    /// L; equal to R when these are the first rows.
    pub length: i64,
}

impl KeyValueCache {
    /// Room for `capacity` rows of each of `sequences` sequences; memory is taken per unit as it
    /// is first used.
    pub fn new(sequences: i64, capacity: i64) -> Self {
        Self {
            sequences,
            capacity,
            slots: RefCell::default(),
        }
    }

    pub(in crate::engine) fn unit(&self, unit: usize) -> UnitCache<'_> {
        UnitCache { cache: self, unit }
    }
}

impl UnitCache<'_> {
    /// Appends keys and values `[B * R, M, D]`, sequence by sequence.
    pub fn extend(&self, keys: &Tensor, values: &Tensor) -> Result<SeenRows> {
        let KeyValueCache {
            sequences,
            capacity,
            ..
        } = *self.cache;
        let batched = |x: &Tensor| -> Result<Tensor> {
            let (_, heads, size) = x.size3()?;
            let x = x.f_view([sequences, -1, heads, size])?;
            Ok(x.f_transpose(1, 2)?)
        };
        let (keys, values) = (batched(keys)?, batched(values)?);
        let mut slots = self.cache.slots.borrow_mut();
        let slot = match slots.get_mut(&self.unit) {
            Some(slot) => slot,
            None => {
                let slot = Slot::new(&keys, &values, capacity)?;
                slots.entry(self.unit).or_insert(slot)
            }
        };
        slot.append(&keys, &values, capacity)?;
        slot.seen(sequences)
    }
}

impl Slot {
    fn new(keys: &Tensor, values: &Tensor, capacity: i64) -> Result<Self> {
        let room = |like: &Tensor| -> Result<Tensor> {
            let (sequences, heads, _, size) = like.size4()?;
            let shape = [sequences, heads, capacity, size];
            Ok(Tensor::f_empty(shape, (like.kind(), like.device()))?)
        };
        Ok(Self {
            keys: room(keys)?,
            values: room(values)?,
            length: 0,
        })
    }

    fn append(&mut self, keys: &Tensor, values: &Tensor, capacity: i64) -> Result<()> {
        let rows = keys.size4()?.2;
        if self.length + rows > capacity {
            return Err(Error::Bug(format!(
                "a cache of {capacity} rows holds {} and got {rows} more",
                self.length
            )));
        }
        self.keys.f_narrow(2, self.length, rows)?.f_copy_(keys)?;
        self.values
            .f_narrow(2, self.length, rows)?
            .f_copy_(values)?;
        self.length += rows;
        Ok(())
    }

    fn seen(&self, sequences: i64) -> Result<SeenRows> {
        Ok(SeenRows {
            keys: self.keys.f_narrow(2, 0, self.length)?,
            values: self.values.f_narrow(2, 0, self.length)?,
            sequences,
            length: self.length,
        })
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn rows_come_back_in_order_for_each_sequence_and_unit() {
        let cache = KeyValueCache::new(2, 4);
        let rows = |values: &[f32]| Tensor::from_slice(values).view([-1, 1, 1]);
        // Two sequences of two rows, then one more row of each.
        let first = rows(&[1.0, 2.0, 11.0, 12.0]);
        cache.unit(0).extend(&first, &first.neg()).unwrap();
        cache.unit(7).extend(&first, &first).unwrap();
        let seen = cache
            .unit(0)
            .extend(&rows(&[3.0, 13.0]), &rows(&[-3.0, -13.0]))
            .unwrap();
        let flat = |x: &Tensor| Vec::<f32>::try_from(x.contiguous().view(-1)).unwrap();
        assert_eq!(flat(&seen.keys), [1.0, 2.0, 3.0, 11.0, 12.0, 13.0]);
        assert_eq!(flat(&seen.values), [-1.0, -2.0, -3.0, -11.0, -12.0, -13.0]);
        assert_eq!((seen.length, seen.sequences), (3, 2));
    }

    #[test]
    fn more_rows_than_announced_are_an_error() {
        let cache = KeyValueCache::new(1, 2);
        let rows = Tensor::zeros([3, 1, 1], (Kind::Float, Device::Cpu));
        assert!(cache.unit(0).extend(&rows, &rows).is_err());
    }
}
