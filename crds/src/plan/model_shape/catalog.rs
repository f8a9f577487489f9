//! Well-known models by their name on the Hub, with the sizes of their published `config.json`.

use serde_json::Value;

use super::{ModelShape, read_config};

/// The sizes that [`read_config`] reads, by name, copied from each model's `config.json`.
const CATALOG: &str = include_str!("catalog.json");

/// A well-known model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogEntry {
    /// As the Hub writes it.
    pub name: String,
    pub shape: ModelShape,
}

/// Finds `ORG/NAME`, upper and lower case alike. A base model has the shape of its `-Instruct`
/// sibling.
pub fn in_catalog(name: &str) -> Option<CatalogEntry> {
    let catalog: Value = serde_json::from_str(CATALOG).ok()?;
    let plain = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.strip_suffix("-instruct").unwrap_or(&name).to_owned()
    };
    let (name, config) = catalog
        .as_object()?
        .iter()
        .find(|(known, _)| plain(known) == plain(name))?;
    Some(CatalogEntry {
        name: name.clone(),
        shape: read_config(config).ok()?,
    })
}

/// All names, for messages.
pub fn names() -> Vec<String> {
    let catalog: Value = serde_json::from_str(CATALOG).unwrap_or_default();
    let names = catalog.as_object().map(|all| all.keys().cloned().collect());
    names.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_can_be_read_and_found() {
        for name in names() {
            let entry = in_catalog(&name.to_ascii_uppercase());
            assert_eq!(entry.map(|entry| entry.name), Some(name));
        }
        assert_eq!(
            in_catalog("qwen/qwen2-vl-7b")
                .map(|entry| entry.name)
                .as_deref(),
            Some("Qwen/Qwen2-VL-7B-Instruct")
        );
        assert_eq!(in_catalog("Qwen/Qwen2-VL-8B-Instruct"), None);
    }
}
