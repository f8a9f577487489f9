//! Which checkpoints stay: a pure function.

/// What retention knows about a complete checkpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    pub step: u64,
    /// Mean validation loss at that step, where it was measured.
    pub validation_loss: Option<f64>,
}

/// What is kept; a checkpoint stays if any rule asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The newest ones; at least one always stays.
    pub keep_last: usize,
    /// The one with the lowest validation loss; the earlier of two equals.
    pub keep_best: bool,
    /// Those whose step is a multiple of this.
    pub keep_every: Option<u64>,
}

impl Retention {
    /// Steps to delete, ascending.
    pub fn deletable(&self, entries: &[Entry]) -> Vec<u64> {
        let mut sorted = entries.to_vec();
        sorted.sort_by_key(|entry| entry.step);
        let best = self.keep_best.then(|| best(&sorted)).flatten();
        let old = sorted.len().saturating_sub(self.keep_last.max(1));
        sorted
            .iter()
            .take(old)
            .map(|entry| entry.step)
            .filter(|step| Some(*step) != best)
            .filter(|step| {
                !self
                    .keep_every
                    .is_some_and(|every| step.is_multiple_of(every))
            })
            .collect()
    }
}

fn best(sorted: &[Entry]) -> Option<u64> {
    sorted
        .iter()
        .filter_map(|entry| Some((entry.validation_loss?, entry.step)))
        .filter(|(loss, _)| !loss.is_nan())
        .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
        .map(|(_, step)| step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(losses: &[(u64, Option<f64>)]) -> Vec<Entry> {
        losses
            .iter()
            .map(|&(step, validation_loss)| Entry {
                step,
                validation_loss,
            })
            .collect()
    }

    const LAST_TWO: Retention = Retention {
        keep_last: 2,
        keep_best: false,
        keep_every: None,
    };

    #[test]
    fn the_newest_stay_whatever_the_order_given() {
        let given = entries(&[(30, None), (10, None), (20, None), (40, None)]);
        assert_eq!(LAST_TWO.deletable(&given), [10, 20]);
        assert!(LAST_TWO.deletable(&given[..2]).is_empty());
    }

    #[test]
    fn best_and_every_stay_besides() {
        let given = entries(&[
            (10, Some(f64::NAN)),
            (20, Some(0.5)),
            (30, Some(0.5)),
            (40, Some(0.9)),
            (50, None),
            (60, None),
        ]);
        let best = Retention {
            keep_best: true,
            ..LAST_TWO
        };
        assert_eq!(best.deletable(&given), [10, 30, 40]);
        let both = Retention {
            keep_every: Some(40),
            ..best
        };
        assert_eq!(both.deletable(&given), [10, 30]);
    }

    #[test]
    fn one_always_stays_and_a_period_of_zero_keeps_nothing_more() {
        let none = Retention {
            keep_last: 0,
            keep_best: false,
            keep_every: Some(0),
        };
        assert_eq!(none.deletable(&entries(&[(1, None), (2, None)])), [1]);
    }
}
