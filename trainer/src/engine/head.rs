//! Final norm, output head and cross-entropy, at supervised positions only.

use super::ParameterSpec;

/// The output head: final norm, then a bias-free projection to the vocabulary.
#[derive(Debug)]
pub struct Head {
    /// The projection `[V, H]`; owned by the head or, if tied, by the token embedding.
    pub projection: ParameterSpec,
    /// True if another unit owns [`Head::projection`].
    pub tied: bool,
}
