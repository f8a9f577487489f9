//! Which of several failed processes tells why.

use vlft_crds::contract::{TerminationReport, class_of_exit_code};
use vlft_crds::status::FailureClass;

/// How one process ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct End {
    pub local_rank: i64,
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// What it wrote before, if it could.
    pub report: Option<TerminationReport>,
}

/// The end that stands for all, from ends in the order in which they were seen. A process that
/// lost its peer, or was told to leave after another had failed, says nothing about the cause;
/// rank 0 speaks for processes that all did the same.
pub(super) fn first_cause(ends: &[End]) -> Option<&End> {
    let first = ends.iter().enumerate();
    let key = |(order, end): &(usize, &End)| (weight(end), end.local_rank != 0, *order);
    let failed = ends.iter().any(|end| weight(end) == 0);
    match failed {
        // The first root cause that was seen, whoever it was.
        true => ends.iter().find(|end| weight(end) == 0),
        false => first.min_by_key(key).map(|(_, end)| end),
    }
}

/// How far a class is from the root of a failure.
fn weight(end: &End) -> u8 {
    match class_of_exit_code(end.code) {
        FailureClass::Drained => 1,
        FailureClass::PeerLost => 2,
        FailureClass::Completed => 3,
        _ => 0,
    }
}

/// The report of the process that stands for all.
pub(super) fn report_of(end: &End, rank: i64) -> TerminationReport {
    let class = class_of_exit_code(end.code);
    let otherwise = || TerminationReport {
        class,
        message: match end.code {
            code if code > 128 => format!("rank {rank} was killed by signal {}", code - 128),
            code => format!("rank {rank} ended with exit code {code} and without a report"),
        },
        ..TerminationReport::default()
    };
    TerminationReport {
        exit_code: end.code,
        rank,
        ..end.report.clone().unwrap_or_else(otherwise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(local_rank: i64, code: i32) -> End {
        End {
            local_rank,
            code,
            report: None,
        }
    }

    #[test]
    fn the_root_cause_stands_for_all() {
        for (ends, rank) in [
            (vec![end(0, 15), end(2, 11), end(1, 15)], 2),
            (vec![end(1, 137), end(0, 15)], 1),
            (vec![end(0, 14), end(1, 12), end(2, 11)], 1),
            (vec![end(1, 14), end(0, 14)], 0),
            (vec![end(1, 0), end(0, 0)], 0),
            (vec![end(1, 0), end(0, 15)], 0),
            (vec![end(0, 0), end(1, 101)], 1),
        ] {
            assert_eq!(first_cause(&ends).unwrap().local_rank, rank, "{ends:?}");
        }
        assert_eq!(first_cause(&[]), None);
    }

    #[test]
    fn a_process_without_last_words_is_described() {
        let killed = report_of(&end(1, 137), 3);
        assert_eq!(killed.message, "rank 3 was killed by signal 9");
        assert_eq!((killed.rank, killed.exit_code), (3, 137));
        let words = TerminationReport {
            message: "metadata.jsonl:7: no JSON".into(),
            ..TerminationReport::default()
        };
        let told = End {
            report: Some(words),
            ..end(0, 11)
        };
        assert_eq!(report_of(&told, 2).message, "metadata.jsonl:7: no JSON");
    }
}
