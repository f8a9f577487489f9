//! Seeds as a pure function of where a step stands, so that no generator state is ever saved.

/// Mixes `parts` (for example seed, step, micro-batch, rank, unit) into one seed.
/// SplitMix64's finaliser after every part: nearby counters give unrelated seeds.
pub fn derive_seed(parts: &[u64]) -> u64 {
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| {
        let mut z = state ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).wrapping_add(0x9e37_79b9_7f4a_7c15)
    })
}

/// Seeds libtorch's generator and keeps it for the caller until the guard is dropped. There is
/// one for the whole process: whoever seeds it must not see another thread draw in between.
pub(crate) fn seeded(seed: u64) -> std::sync::MutexGuard<'static, ()> {
    static GENERATOR: std::sync::Mutex<()> = std::sync::Mutex::new(());
    // A thread that panicked while it drew leaves nothing behind: the next one seeds anew.
    let guard = GENERATOR
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    tch::manual_seed(seed.cast_signed());
    guard
}

#[cfg(test)]
mod tests {
    use super::derive_seed;

    #[test]
    fn order_and_value_of_every_part_matter() {
        let base = derive_seed(&[1, 2, 3]);
        assert_eq!(base, derive_seed(&[1, 2, 3]));
        for other in [[2, 1, 3], [1, 2, 4], [0, 2, 3]] {
            assert_ne!(base, derive_seed(&other));
        }
        assert_ne!(derive_seed(&[0]), derive_seed(&[0, 0]));
    }
}
