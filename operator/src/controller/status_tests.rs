use super::*;

#[test]
fn numbers_are_written_for_people() {
    let progress = Progress {
        step: 7,
        total_steps: 600,
        epoch: 0.1,
        loss: Some(0.123_456_7),
        learning_rate: Some(0.002),
        tokens_per_second: Some(1234.56),
        eta_seconds: Some(3725.9),
        ..Progress::default()
    };
    let status = progress_status(&progress);
    assert_eq!(status.percent, "1%");
    assert_eq!(status.loss.as_deref(), Some("0.123457"));
    assert_eq!(status.learning_rate.as_deref(), Some("2.000e-3"));
    assert_eq!(status.tokens_per_second.as_deref(), Some("1234.6"));
    assert_eq!(status.eta.as_deref(), Some("1h2m5s"));
    let texts = [(5.0, "5s"), (65.0, "1m5s"), (f64::MAX, "277777h46m40s")];
    for (seconds, text) in texts {
        assert_eq!(duration(seconds), text);
    }
}

#[test]
fn nonsense_from_a_pod_does_no_harm() {
    let progress = Progress {
        step: i64::MAX,
        total_steps: 1,
        ..Progress::default()
    };
    assert_eq!(progress_status(&progress).percent, "100%");
    assert_eq!(progress_status(&Progress::default()).percent, "0%");
    assert_eq!(claim_uri("c".to_owned(), "../../other"), None);
    assert_eq!(
        claim_uri("c".to_owned(), "/a/b").as_deref(),
        Some("pvc://c/a/b")
    );
}

#[test]
fn mere_progress_is_told_from_news() {
    let old = VLFineTuneStatus {
        progress: Some(ProgressStatus::default()),
        attempts: vec![Attempt::default()],
        ..VLFineTuneStatus::default()
    };
    let mut new = old.clone();
    new.progress = Some(ProgressStatus {
        step: 3,
        ..ProgressStatus::default()
    });
    new.attempts[0].last_step = Some(3);
    assert!(differ_in_progress_only(&old, &new));
    new.phase = Phase::Running;
    assert!(!differ_in_progress_only(&old, &new));
    // The first progress is news.
    let mut fresh = VLFineTuneStatus::default();
    fresh.progress.clone_from(&old.progress);
    assert!(!differ_in_progress_only(
        &VLFineTuneStatus::default(),
        &fresh
    ));
}
