//! Which sample comes when: a pure function of seed and epoch.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// The order of one epoch: sample indices, each exactly once. Seeking in it is indexing; making
/// it takes `len` steps and reads no data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    indices: Vec<u32>,
}

impl Order {
    /// Fisher-Yates with ChaCha8 keyed by `seed`, on the stream numbered `epoch`.
    pub fn shuffled(len: u32, seed: u64, epoch: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(epoch);
        let mut indices: Vec<u32> = (0..len).collect();
        for last in (1..indices.len()).rev() {
            indices.swap(last, below(&mut rng, last as u64 + 1) as usize);
        }
        Self { indices }
    }

    /// The order of the file.
    pub fn sequential(len: u32) -> Self {
        Self {
            indices: (0..len).collect(),
        }
    }

    /// The sample at a position of this epoch, or `None` past its end.
    pub fn get(&self, position: u64) -> Option<u32> {
        self.indices.get(usize::try_from(position).ok()?).copied()
    }
}

/// Uniform in `0..bound` without bias: draws from the incomplete last range are rejected.
fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    let whole = u64::MAX - u64::MAX % bound;
    loop {
        let draw = rng.next_u64();
        if draw < whole {
            return draw % bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_is_a_permutation_of_its_own() {
        let orders: Vec<Order> = (0..3)
            .map(|epoch| Order::shuffled(1000, 7, epoch))
            .collect();
        for order in &orders {
            let mut sorted = order.indices.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, Order::sequential(1000).indices);
        }
        assert_ne!(orders[0], orders[1]);
        assert_ne!(orders[1], orders[2]);
        assert_ne!(orders[0], Order::shuffled(1000, 8, 0));
    }

    /// A resumed run must meet the order that an older build of this trainer chose.
    #[test]
    fn the_order_never_changes_between_versions() {
        assert_eq!(
            Order::shuffled(10, 42, 0).indices,
            [1, 5, 9, 6, 3, 2, 0, 8, 4, 7]
        );
        assert_eq!(
            Order::shuffled(10, 42, 1).indices,
            [0, 5, 3, 9, 1, 4, 2, 7, 6, 8]
        );
    }

    #[test]
    fn ends_where_the_epoch_ends() {
        assert_eq!(Order::sequential(2).get(1), Some(1));
        assert_eq!(Order::sequential(2).get(2), None);
        assert_eq!(Order::shuffled(0, 1, 0).get(0), None);
    }
}
