//! Learning rates per tower.

use crate::engine::Tower;

/// The rate of each tower; peak rates in a plan, current rates once scaled by the schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRates {
    pub vision: f64,
    pub projector: f64,
    pub language: f64,
}

impl LearningRates {
    /// One rate for all towers.
    pub fn uniform(rate: f64) -> Self {
        Self {
            vision: rate,
            projector: rate,
            language: rate,
        }
    }

    pub fn of(&self, tower: Tower) -> f64 {
        match tower {
            Tower::Vision => self.vision,
            Tower::Projector => self.projector,
            Tower::Language => self.language,
        }
    }

    /// All rates times the schedule's factor.
    pub fn scaled(&self, factor: f64) -> Self {
        Self {
            vision: self.vision * factor,
            projector: self.projector * factor,
            language: self.language * factor,
        }
    }
}
