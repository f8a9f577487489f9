//! What a run asks of a model: method, towers, LoRA.

use regex::Regex;

use crate::engine::{EngineOptions, Tower};
use crate::error::{Error, Result};

/// How a checkpoint becomes a model that trains.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    pub engine: EngineOptions,
    pub method: Method,
    pub towers: Towers,
}

/// Which parameters train.
#[derive(Debug, Clone)]
pub enum Method {
    /// All of the chosen towers.
    Full,
    /// Low-rank matrices beside frozen weights of the chosen towers.
    Lora(LoraOptions),
    /// Nothing: evaluation, generation, export.
    Frozen,
}

/// Which towers the method acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Towers {
    pub vision: bool,
    pub projector: bool,
    pub language: bool,
}

impl Towers {
    pub const ALL: Self = Self {
        vision: true,
        projector: true,
        language: true,
    };

    pub fn contains(self, tower: Tower) -> bool {
        match tower {
            Tower::Vision => self.vision,
            Tower::Projector => self.projector,
            Tower::Language => self.language,
        }
    }
}

/// LoRA as PEFT's `LoraConfig` means it.
#[derive(Debug, Clone)]
pub struct LoraOptions {
    pub rank: i64,
    pub alpha: f64,
    pub dropout: f64,
    pub targets: LoraTargets,
}

/// Which linear layers get an adapter.
#[derive(Debug, Clone)]
pub enum LoraTargets {
    /// Every linear layer of the chosen towers except the output head (PEFT: `all-linear`).
    AllLinear,
    /// Modules whose path is one of these or ends with `.` and one of these.
    Suffixes(Vec<String>),
    /// Modules whose whole path matches.
    Pattern(Regex),
}

impl LoraTargets {
    /// Reads the list of a spec: `all-linear`, names, or one regular expression.
    pub fn parse(targets: &[String]) -> Result<Self> {
        match targets {
            [] => Ok(Self::AllLinear),
            [one] if one == "all-linear" => Ok(Self::AllLinear),
            [one] if one.contains(['*', '(', '[', '\\', '^', '$', '|']) => {
                let whole = format!("^(?:{one})$");
                let pattern = Regex::new(&whole).map_err(|e| {
                    Error::User(format!(
                        "spec.method.lora.targetModules: `{one}` is no pattern: {e}"
                    ))
                })?;
                Ok(Self::Pattern(pattern))
            }
            names => Ok(Self::Suffixes(names.to_vec())),
        }
    }

    pub fn matches(&self, module: &str) -> bool {
        match self {
            Self::AllLinear => true,
            Self::Suffixes(names) => names.iter().any(|name| {
                module
                    .strip_suffix(name.as_str())
                    .is_some_and(|r| r.is_empty() || r.ends_with('.'))
            }),
            Self::Pattern(pattern) => pattern.is_match(module),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LoraTargets;

    fn targets(list: &[&str]) -> LoraTargets {
        LoraTargets::parse(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn names_match_whole_path_components() {
        let names = targets(&["q_proj", "mlp.up_proj"]);
        assert!(names.matches("model.layers.0.self_attn.q_proj"));
        assert!(names.matches("model.layers.0.mlp.up_proj"));
        assert!(names.matches("q_proj"));
        assert!(!names.matches("model.layers.0.self_attn.xq_proj"));
        assert!(!names.matches("model.layers.0.attn.up_proj"));
    }

    #[test]
    fn one_pattern_matches_the_whole_path() {
        let pattern = targets(&[r".*layers\.[01]\..*_proj"]);
        assert!(pattern.matches("model.layers.1.mlp.up_proj"));
        assert!(!pattern.matches("model.layers.2.mlp.up_proj"));
        assert!(!pattern.matches("model.layers.1.mlp.up_proj.extra"));
        assert!(targets(&["all-linear"]).matches("anything"));
        assert!(LoraTargets::parse(&["(".to_owned()]).is_err());
    }
}
