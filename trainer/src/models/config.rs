//! Reading `config.json`, and processors' files, as any transformers version wrote them.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// A JSON object of a checkpoint: its `config.json`, or a processor's configuration.
#[derive(Debug, Clone)]
pub struct ConfigJson {
    /// For messages.
    file: String,
    root: Map<String, Value>,
}

/// More than any model has; a config that says more would have its tensors allocated.
pub mod limits {
    pub const LAYERS: i64 = 512;
    pub const HEADS: i64 = 1 << 12;
    /// Of hidden states, inner layers and heads.
    pub const WIDTH: i64 = 1 << 20;
    pub const VOCABULARY: i64 = 1 << 21;
    /// Side of an image or patch, pixels.
    pub const PIXELS: i64 = 1 << 14;
    /// Positions or tokens.
    pub const TOKENS: i64 = 1 << 26;
}

/// One nested part of a config, or the whole of it where the part is written flat.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    file: &'a str,
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
            Ok(Value::Object(root)) => Ok(Self::of("config.json", root)),
            Ok(_) => Err("is no JSON object".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// An object that came from somewhere else; `file` is for messages.
    pub fn of(file: impl Into<String>, root: Map<String, Value>) -> Self {
        let file = file.into();
        Self { file, root }
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
            file: &self.file,
            name: "",
            values: Some(&self.root),
            root: None,
        }
    }

    /// A nested part; keys that it lacks are looked up at the top level, where transformers 4
    /// wrote the language model's.
    pub fn section_or_top<'a>(&'a self, name: &'a str) -> Section<'a> {
        Section {
            file: &self.file,
            name,
            values: self.object(name),
            root: Some(&self.root),
        }
    }

    /// A nested part by itself.
    pub fn section<'a>(&'a self, name: &'a str) -> Section<'a> {
        Section {
            file: &self.file,
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

    /// An object inside this part.
    pub fn part(&self, name: &'a str) -> Option<Section<'a>> {
        let values = self.get(name)?.as_object()?;
        Some(Section {
            file: self.file,
            name,
            values: Some(values),
            root: None,
        })
    }

    /// A positive integer up to `limit`. A config is not trusted: what it names is allocated.
    pub fn integer_up_to(&self, key: &str, limit: i64) -> Result<i64> {
        let value = self.get(key).ok_or_else(|| self.error(key, "is missing"))?;
        let positive = value.as_i64().filter(|v| *v > 0);
        let positive = positive
            .ok_or_else(|| self.error(key, &format!("is {value}, not a positive integer")))?;
        if positive > limit {
            let problem = format!("is {value}, more than any model has (at most {limit})");
            return Err(self.error(key, &problem));
        }
        Ok(positive)
    }

    pub fn integer_up_to_or(&self, key: &str, limit: i64, default: i64) -> Result<i64> {
        if self.get(key).is_some() {
            self.integer_up_to(key, limit)
        } else {
            Ok(default)
        }
    }

    /// A list of integers, or one for every axis alike; `None` where the key is absent.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let list = match value {
            Value::Array(list) => list.iter().map(Value::as_i64).collect(),
            one => one.as_i64().map(|one| vec![one]),
        };
        let list: Option<Vec<i64>> = list;
        let problem = || {
            self.error(
                key,
                &format!("is {value}, not an integer or a list of them"),
            )
        };
        list.map(Some).ok_or_else(problem)
    }

    /// The side of a square, written as one integer or twice.
    pub fn square(&self, key: &str, limit: i64, default: i64) -> Result<i64> {
        match self.integers(key)?.as_deref() {
            None => Ok(default),
            Some([side] | [side, _]) if (1..=limit).contains(side) => match self.integers(key)? {
                Some(both) if both.iter().all(|other| other == side) => Ok(*side),
                _ => Err(self.error(key, "must be the same for both sides")),
            },
            Some(sides) => {
                let problem = format!("is {sides:?}; it must be one integer from 1 to {limit}");
                Err(self.error(key, &problem))
            }
        }
    }

    /// A number in `(0, limit]`.
    pub fn positive_or(&self, key: &str, limit: f64, default: f64) -> Result<f64> {
        let number = self.number_or(key, default)?;
        if number > 0.0 && number <= limit {
            return Ok(number);
        }
        Err(self.error(key, &format!("is {number}, not above 0 and up to {limit}")))
    }

    /// Whether the key stands there with `null`, which switches something off.
    pub fn is_null(&self, key: &str) -> bool {
        let places = [self.values, self.root];
        let found = places.into_iter().flatten().find_map(|m| m.get(key));
        found.is_some_and(Value::is_null)
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
        let (file, name) = (self.file, self.name);
        Error::User(format!("{file}: {name}{dot}{key} {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::ConfigJson;

    #[test]
    fn a_flat_config_answers_for_its_text_section() {
        let flat = ConfigJson::parse(r#"{"hidden_size": 8, "vision_config": {"depth": 2}}"#);
        let flat = flat.unwrap();
        let text = flat.section_or_top("text_config");
        assert_eq!(text.integer_up_to("hidden_size", 8).unwrap(), 8);
        let vision = flat.section("vision_config");
        assert_eq!(vision.integer_up_to("depth", 8).unwrap(), 2);
        let error = vision.integer_up_to("hidden_size", 8).unwrap_err();
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
    fn what_no_model_has_is_refused_by_name() {
        let text = r#"{"text_config": {"layers": 100000, "size": [14, 16], "theta": 0}}"#;
        let config = ConfigJson::parse(text).unwrap();
        let section = config.section("text_config");
        let message = |error: crate::error::Error| error.to_string();
        assert_eq!(
            message(section.integer_up_to("layers", 512).unwrap_err()),
            "config.json: text_config.layers is 100000, more than any model has (at most 512)"
        );
        let uneven = message(section.square("size", 64, 1).unwrap_err());
        assert!(
            uneven.contains("text_config.size must be the same"),
            "{uneven}"
        );
        assert!(section.square("layers", 64, 1).is_err());
        assert!(section.positive_or("theta", 1e9, 1.0).is_err());
        assert_eq!(section.square("absent", 64, 7).unwrap(), 7);
    }

    #[test]
    fn nonsense_is_named() {
        let config = ConfigJson::parse(r#"{"a": -1, "b": "x", "c": null}"#).unwrap();
        let message = config.top().integer_up_to("a", 9).unwrap_err().to_string();
        assert_eq!(message, "config.json: a is -1, not a positive integer");
        assert!(config.top().number_or("b", 1.0).is_err());
        assert_eq!(config.top().integer_up_to_or("c", 9, 3).unwrap(), 3);
        assert!(config.top().is_null("c") && !config.top().is_null("d"));
        assert_eq!(ConfigJson::parse("[]").unwrap_err(), "is no JSON object");
    }
}
