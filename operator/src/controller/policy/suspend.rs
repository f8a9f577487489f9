//! `runPolicy.suspend`: the trainer checkpoints on SIGTERM, and the Job goes.

use vlft_crds::status::{FailureClass, Phase};

use super::retry::ended;
use crate::controller::decide::{Decision, Input};

pub const SUSPENDED: &str = "Suspended";

/// Ends the running attempt.
pub fn stop(input: &Input) -> Option<Decision> {
    let wanted = input.finetune.spec.run_policy.suspend;
    wanted.then(|| {
        ended(
            input,
            FailureClass::Suspended,
            "stopped by runPolicy.suspend".to_owned(),
        )
    })
}

/// Keeps the run stopped.
pub fn suspended(input: &Input) -> Option<Decision> {
    let message = "runPolicy.suspend is true; set it to false to go on from the last checkpoint";
    let wanted = input.finetune.spec.run_policy.suspend;
    wanted.then(|| Decision::note(Phase::Suspended, SUSPENDED, message))
}
