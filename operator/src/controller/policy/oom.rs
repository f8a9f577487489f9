//! Out of memory: the next attempt runs with a plan that needs less, as long as there is one.

use vlft_crds::plan::remedy;
use vlft_crds::run_policy::OomPolicy;
use vlft_crds::status::{Adjustment, FailureClass};

use crate::controller::decide::Input;
use crate::controller::validate::adjusted;

/// What becomes of an attempt that ran out of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is a failure like any other: of another class, or `oomPolicy` is `Fail`.
    AsAnyOther,
    /// The next attempt runs with this.
    Adapt(Adjustment),
    /// Nothing is left that could be reduced.
    Exhausted,
}

/// The answer to the end of the current attempt.
pub fn answer(input: &Input, class: FailureClass, words: &str) -> Answer {
    let adapts = input.finetune.spec.run_policy.oom_policy == OomPolicy::Adapt;
    if class != FailureClass::OutOfMemory || !adapts {
        return Answer::AsAnyOther;
    }
    let spec = match input.valid {
        Ok(valid) => valid.spec.clone(),
        // Edited meanwhile: the next attempt waits for a valid spec, but its plan is found now.
        Err(_) => adjusted(input.finetune),
    };
    match remedy::next(&spec) {
        Some(change) => Answer::Adapt(Adjustment {
            attempt: input.status.attempt + 1,
            field: change.field().to_owned(),
            from: change.from(&spec),
            to: change.to(),
            reason: reason(input.status.attempt, words),
        }),
        None => Answer::Exhausted,
    }
}

/// Short: all adjustments stay in status.
fn reason(attempt: i64, words: &str) -> String {
    let mut words = words.to_owned();
    vlft_crds::contract::truncate_end(&mut words, 200);
    format!("attempt {attempt} ran out of memory: {words}")
}
