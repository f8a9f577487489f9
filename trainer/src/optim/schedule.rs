//! Learning-rate schedules: linear warm-up from 0, then cosine, linear or constant.
//! The same curves as transformers' `get_{cosine,linear,constant}_schedule_with_warmup`.

use vlft_crds::training::LrScheduler;

/// Factor on the peak learning rate as a pure function of the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    pub shape: LrScheduler,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Steps of the whole run; the factor reaches 0 there, unless constant.
    pub total_steps: u64,
}

impl Schedule {
    /// The factor for the step that follows `done` finished optimizer steps. The very first
    /// step of a warm-up has factor 0, as it has in transformers.
    pub fn factor(&self, done: u64) -> f64 {
        if done < self.warmup_steps {
            return done as f64 / self.warmup_steps as f64;
        }
        let decay_steps = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = ((done - self.warmup_steps) as f64 / decay_steps as f64).min(1.0);
        match self.shape {
            LrScheduler::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            LrScheduler::Linear => 1.0 - progress,
            LrScheduler::Constant => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(shape: LrScheduler) -> Vec<f64> {
        let schedule = Schedule {
            shape,
            warmup_steps: 2,
            total_steps: 6,
        };
        (0..8).map(|done| schedule.factor(done)).collect()
    }

    fn assert_close(got: &[f64], want: &[f64]) {
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-15, "{got} {want}");
        }
    }

    /// Values of transformers' schedules with 2 warm-up steps of 6.
    #[test]
    fn curves_equal_those_of_transformers() {
        let half_cosine = [1.0, 0.853_553_390_593_273_8, 0.5, 0.146_446_609_406_726_24];
        assert_close(
            &curve(LrScheduler::Cosine),
            &[&[0.0, 0.5], &half_cosine[..], &[0.0, 0.0]].concat(),
        );
        assert_close(
            &curve(LrScheduler::Linear),
            &[0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0],
        );
        assert_close(
            &curve(LrScheduler::Constant),
            &[0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        );
    }

    #[test]
    fn a_warmup_as_long_as_the_run_divides_by_nothing() {
        let schedule = Schedule {
            shape: LrScheduler::Cosine,
            warmup_steps: 3,
            total_steps: 3,
        };
        assert_eq!(schedule.factor(2), 2.0 / 3.0);
        assert_eq!(schedule.factor(3), 1.0);
    }
}
