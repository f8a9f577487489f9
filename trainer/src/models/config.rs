//! Reading `config.json` as any transformers version wrote it.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A checkpoint's `config.json`.
#[derive(Debug, Clone)]
pub struct ConfigJson {
    root: Map<String, Value>,
}

/// One nested part of a config, or the whole of it where the part is written flat.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    name: &'a str,
    values: Option<&'a Map<String, Value>>,
    root: Option<&'a Map<String, Value>>,
}

impl ConfigJson {
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|e| {
            Error::User(format!(
                "{}: {e}; the model folder must hold a Hugging Face checkpoint",
                path.display()
            ))
        })?;
        Self::parse(&text).map_err(|e| Error::User(format!("{}: {e}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        match serde_json::from_str(text) {
            Ok(Value::Object(root)) => Ok(Self { root }),
            Ok(_) => Err("is no JSON object".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// `architectures[0]`, the registry's key. transformers 4.57 saves it in `text_config`.
    pub fn architecture(&self) -> Option<&str> {
        let value = self.section_or_top("text_config").get("architectures");
        let top = self.root.get("architectures").filter(|v| !v.is_null());
        top.or(value)?.get(0)?.as_str()
    }

    /// The top level alone.
    pub fn top(&self) -> Section<'_> {
        Section {
            name: "",
            values: Some(&self.root),
            root: None,
        }
    }

    /// A nested part; keys that it lacks are looked up at the top level, where transformers 4
    /// wrote the language model's.
    pub fn section_or_top<'a>(&'a self, name: &'a str) -> Section<'a> {
        Section {
            name,
            values: self.object(name),
            root: Some(&self.root),
        }
    }

    /// A nested part by itself.
    pub fn section<'a>(&'a self, name: &'a str) -> Section<'a> {
        Section {
            name,
            values: self.object(name),
            root: None,
        }
    }

    fn object(&self, name: &str) -> Option<&Map<String, Value>> {
        self.root.get(name)?.as_object()
    }
}

impl<'a> Section<'a> {
    /// The value of a key; null counts as absent.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        let places = [self.values, self.root];
        places
            .into_iter()
            .flatten()
            .find_map(|m| m.get(key))
            .filter(|v| !v.is_null())
    }

    /// The first of several spellings that is there.
    pub fn any(&self, keys: &[&str]) -> Option<&'a Value> {
        keys.iter().find_map(|key| self.get(key))
    }

    pub fn integer(&self, key: &str) -> Result<i64> {
        let value = self.get(key).ok_or_else(|| self.error(key, "is missing"))?;
        let positive = value.as_i64().filter(|v| (1..=1 << 40).contains(v));
        positive.ok_or_else(|| self.error(key, &format!("is {value}, not a positive integer")))
    }

    pub fn integer_or(&self, key: &str, default: i64) -> Result<i64> {
        if self.get(key).is_some() {
            self.integer(key)
        } else {
            Ok(default)
        }
    }

    pub fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        let number = value.as_f64().filter(|v| v.is_finite());
        number.ok_or_else(|| self.error(key, &format!("is {value}, not a number")))
    }

    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let flag = value.as_bool();
        flag.map(Some)
            .ok_or_else(|| self.error(key, &format!("is {value}, not true or false")))
    }

    pub fn text_or(&self, key: &str, default: &'a str) -> Result<&'a str> {
        let Some(value) = self.get(key) else {
            return Ok(default);
        };
        value
            .as_str()
            .ok_or_else(|| self.error(key, &format!("is {value}, not a string")))
    }

    /// An error about one key, named with its section.
    pub fn error(&self, key: &str, problem: &str) -> Error {
        let dot = if self.name.is_empty() { "" } else { "." };
        Error::User(format!("config.json: {}{dot}{key} {problem}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::ConfigJson;

    #[test]
    fn a_flat_config_answers_for_its_text_section() {
        let flat = ConfigJson::parse(r#"{"hidden_size": 8, "vision_config": {"depth": 2}}"#);
        let flat = flat.unwrap();
        assert_eq!(
            flat.section_or_top("text_config")
                .integer("hidden_size")
                .unwrap(),
            8
        );
        assert_eq!(flat.section("vision_config").integer("depth").unwrap(), 2);
        let error = flat
            .section("vision_config")
            .integer("hidden_size")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "config.json: vision_config.hidden_size is missing"
        );
    }

    #[test]
    fn the_architecture_may_stand_in_the_text_section() {
        let nested = r#"{"text_config": {"architectures": ["A"]}}"#;
        assert_eq!(ConfigJson::parse(nested).unwrap().architecture(), Some("A"));
        let both = r#"{"architectures": ["B"], "text_config": {"architectures": ["A"]}}"#;
        assert_eq!(ConfigJson::parse(both).unwrap().architecture(), Some("B"));
    }

    #[test]
    fn nonsense_is_named() {
        let config = ConfigJson::parse(r#"{"a": -1, "b": "x", "c": null}"#).unwrap();
        let message = config.top().integer("a").unwrap_err().to_string();
        assert_eq!(message, "config.json: a is -1, not a positive integer");
        assert!(config.top().number_or("b", 1.0).is_err());
        assert_eq!(config.top().integer_or("c", 3).unwrap(), 3);
        assert_eq!(ConfigJson::parse("[]").unwrap_err(), "is no JSON object");
    }
}
