//! Spreads timers, so that many resources do not wake at the same moment.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The duration, shortened or lengthened by up to a tenth.
pub fn jittered(duration: Duration) -> Duration {
    // `RandomState` is the standard library's one source of randomness.
    let random = RandomState::new().build_hasher().finish();
    let share = (random % 2001) as f64 / 10_000.0;
    duration.mul_f64(0.9 + share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_within_a_tenth() {
        let second = Duration::from_secs(1);
        for _ in 0..1000 {
            let spread = jittered(second);
            assert!(spread >= second.mul_f64(0.9) && spread <= second.mul_f64(1.1001));
        }
    }
}
