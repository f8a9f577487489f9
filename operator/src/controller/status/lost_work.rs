//! The ledger of lost work: once an attempt tells where it resumed, what those before it did
//! beyond that point is lost, and so are the GPU hours it took.

use vlft_crds::VLFineTuneStatus;
use vlft_crds::status::{Attempt, LostWork};

use crate::controller::decide::Input;

/// Enters what the current attempt's first report says of earlier ones.
pub fn note(status: &mut VLFineTuneStatus, input: &Input) {
    // Before it knows its steps a trainer has not looked for a checkpoint yet.
    let progress = input.progress().filter(|progress| progress.total_steps > 0);
    let Some(progress) = progress else {
        return;
    };
    let resumed = progress.resumed_from.map_or(0, |from| from.step);
    let (current, gpus) = (status.attempt, status.gpus);
    let mut ledger = status.lost_work.take();
    let earlier = status.attempts.iter_mut();
    let earlier = earlier.filter(|a| a.number < current && a.lost_steps.is_none());
    for attempt in earlier {
        let Some(verdict) = &attempt.verdict else {
            continue;
        };
        let steps = attempt.last_step.map_or(0, |last| (last - resumed).max(0));
        let seconds = gpus.saturating_mul(lost_seconds(attempt, steps));
        enter(
            ledger.get_or_insert_default(),
            verdict.class.as_str(),
            steps,
            seconds,
        );
        attempt.lost_steps = Some(steps);
    }
    status.lost_work = ledger;
}

fn enter(ledger: &mut LostWork, cause: &str, steps: i64, gpu_seconds: i64) {
    if steps == 0 && gpu_seconds == 0 {
        return;
    }
    let of_cause = ledger.by_cause.entry(cause.to_owned()).or_default();
    for (total, more) in [
        (&mut ledger.steps, steps),
        (&mut of_cause.steps, steps),
        (&mut ledger.gpu_seconds, gpu_seconds),
        (&mut of_cause.gpu_seconds, gpu_seconds),
    ] {
        *total = total.saturating_add(more);
    }
}

/// The share of an attempt's time that its lost steps took; all of it if it made no step.
fn lost_seconds(attempt: &Attempt, lost: i64) -> i64 {
    let times = attempt.start_time.as_ref().zip(attempt.end_time.as_ref());
    let seconds = times.map_or(0, |(start, end)| {
        end.0.duration_since(start.0).as_secs().max(0)
    });
    let begin = attempt.resumed_from.as_ref().map_or(0, |from| from.step);
    let made = attempt.last_step.map_or(0, |last| last - begin);
    match made {
        ..=0 => seconds,
        made => seconds.saturating_mul(lost.min(made)) / made,
    }
}
