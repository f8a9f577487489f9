//! `trainer families`: the model families that this build can train.

use crate::error::Result;
use crate::models::registry::FAMILIES;

/// Lists the model families that can be trained
///
/// One line for each value of config.json's `architectures` that is supported: the family, the
/// architecture, a published checkpoint.
#[derive(Debug, clap::Args)]
pub(super) struct FamiliesArgs {}

pub(super) fn run(_args: FamiliesArgs) -> Result<()> {
    print!("{}", table());
    Ok(())
}

fn table() -> String {
    let rows = FAMILIES.iter().flat_map(|family| {
        let row = |architecture: &&str| {
            format!("{:<20}{architecture:<40}{}\n", family.name, family.example)
        };
        family.architectures.iter().map(row).collect::<Vec<_>>()
    });
    let head = format!("{:<20}{:<40}{}\n", "FAMILY", "ARCHITECTURE", "EXAMPLE");
    std::iter::once(head).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_has_a_line() {
        let table = table();
        for family in FAMILIES {
            for architecture in family.architectures {
                let named = |line: &str| line.contains(family.name) && line.contains(architecture);
                assert!(table.lines().any(named), "{table}");
            }
        }
    }
}
