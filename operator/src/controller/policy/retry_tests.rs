use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

fn attempt(number: i64, class: FailureClass, last_step: i64) -> Attempt {
    Attempt {
        number,
        job_name: format!("captions-{number}"),
        start_time: Some(Time(Timestamp::UNIX_EPOCH)),
        end_time: Some(Time(Timestamp::UNIX_EPOCH)),
        last_step: Some(last_step),
        verdict: Some(Verdict {
            class,
            message: String::new(),
            exit_code: None,
            rank: None,
            pod_name: None,
            node_name: None,
            log_tail: None,
        }),
        ..Attempt::default()
    }
}

#[test]
fn only_attempts_that_went_no_further_are_fruitless() {
    use FailureClass::{Bug, Suspended};
    for (attempts, fruitless) in [
        (vec![], 0),
        (vec![attempt(1, Bug, 0)], 1),
        (vec![attempt(1, Bug, 10)], 0),
        (vec![attempt(1, Bug, 10), attempt(2, Bug, 10)], 1),
        (
            vec![attempt(1, Bug, 10), attempt(2, Bug, 10), attempt(3, Bug, 8)],
            2,
        ),
        (
            vec![
                attempt(1, Bug, 10),
                attempt(2, Bug, 10),
                attempt(3, Bug, 12),
            ],
            0,
        ),
        (vec![attempt(1, Bug, 0), attempt(2, Suspended, 0)], 0),
    ] {
        assert_eq!(fruitless_attempts(&attempts), fruitless, "{attempts:?}");
    }
}

#[test]
fn the_pause_doubles_up_to_five_minutes() {
    let base = Duration::from_secs(10);
    let seconds: Vec<u64> = (0..9).map(|n| pause(base, n).as_secs()).collect();
    assert_eq!(seconds, [0, 0, 10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(pause(base, u32::MAX).as_secs(), 300);
}
