//! The table that `make parity` prints.

use std::collections::BTreeMap;
use std::fmt;

use crate::compare::{Check, Differences};

/// Rows of family x variant x precision, columns of checks; each cell the largest difference.
#[derive(Debug)]
pub struct Table {
    family: String,
    rows: BTreeMap<(String, String), BTreeMap<Check, f64>>,
}

impl Table {
    pub fn new(family: &str) -> Self {
        Self {
            family: family.to_owned(),
            rows: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, variant: &str, precision: &str, differences: &Differences) {
        let row = self
            .rows
            .entry((variant.to_owned(), precision.to_owned()))
            .or_default();
        for (check, (difference, _)) in &differences.worst {
            let cell = row.entry(*check).or_insert(0.0);
            *cell = if difference.is_nan() {
                f64::NAN
            } else {
                cell.max(*difference)
            };
        }
    }
}

const CHECKS: [Check; 7] = [
    Check::Ids,
    Check::Labels,
    Check::Grid,
    Check::Pixels,
    Check::Logits,
    Check::Loss,
    Check::Gradients,
];

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<30}", "largest difference")?;
        for check in CHECKS {
            write!(f, "{check:>14}")?;
        }
        writeln!(f)?;
        for ((variant, precision), row) in &self.rows {
            let label = format!("{} {variant} {precision}", self.family);
            write!(f, "{label:<30}")?;
            for check in CHECKS {
                match row.get(&check) {
                    Some(0.0) => write!(f, "{:>14}", "equal")?,
                    Some(difference) => write!(f, "{difference:>14.1e}")?,
                    None => write!(f, "{:>14}", "-")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
