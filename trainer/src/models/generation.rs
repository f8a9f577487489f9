//! What `generation_config.json` says about when to stop.

use std::path::Path;

use serde_json::Value;

use super::ConfigJson;
use crate::error::{Error, Result};

const FILE: &str = "generation_config.json";
const KEY: &str = "eos_token_id";

/// Ids after which a sequence ends: those of generation_config.json, else those of config.json.
pub fn stop_ids(folder: &Path, config: &ConfigJson) -> Result<Vec<u32>> {
    let path = folder.join(FILE);
    let at = |e: &dyn std::fmt::Display| Error::User(format!("{}: {e}", path.display()));
    if path.is_file() {
        let text = std::fs::read_to_string(&path).map_err(|e| at(&e))?;
        let values: Value = serde_json::from_str(&text).map_err(|e| at(&e))?;
        if let Some(value) = values.get(KEY).filter(|value| !value.is_null()) {
            return ids(value).ok_or_else(|| at(&format!("{KEY} is {value}, not an id or ids")));
        }
    }
    let value = config.section_or_top("text_config").get(KEY);
    Ok(value.and_then(ids).unwrap_or_default())
}

/// One id or a list of them.
fn ids(value: &Value) -> Option<Vec<u32>> {
    let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
    match value {
        Value::Array(list) => list.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(generation: Option<&str>, config: &str) -> Result<Vec<u32>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        if let Some(text) = generation {
            std::fs::write(folder.path().join(FILE), text).unwrap();
        }
        stop_ids(folder.path(), &ConfigJson::read(folder.path())?)
    }

    #[test]
    fn the_generation_config_outranks_the_config() {
        let config = r#"{"text_config": {"eos_token_id": 3}}"#;
        assert_eq!(
            stops(Some(r#"{"eos_token_id": [1, 2]}"#), config).unwrap(),
            [1, 2]
        );
        assert_eq!(stops(Some("{}"), config).unwrap(), [3]);
        assert_eq!(stops(None, r#"{"eos_token_id": 4}"#).unwrap(), [4]);
        assert_eq!(stops(None, "{}").unwrap(), [0u32; 0]);
        assert!(stops(Some(r#"{"eos_token_id": "x"}"#), config).is_err());
    }
}
