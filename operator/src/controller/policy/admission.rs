//! Specs that cannot be acted on.

use vlft_crds::status::Phase;

use crate::controller::decide::{Decision, Input};

/// No attempt is started from a rejected spec.
pub fn rejected(input: &Input) -> Option<Decision> {
    let rejection = input.valid.err()?;
    Some(Decision::note(
        Phase::Rejected,
        rejection.reason,
        rejection.message.clone(),
    ))
}

/// The spec was edited between claim and build.
pub fn rejected_before_build(input: &Input) -> Option<Decision> {
    if input.observed.job.is_some() {
        None
    } else {
        rejected(input)
    }
}
