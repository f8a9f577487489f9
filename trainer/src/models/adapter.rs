//! Loading a LoRA adapter as PEFT saves it, on its base model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tch::Tensor;

use super::hf::PEFT_PREFIX;
use super::options::{LoraOptions, LoraTargets, Method, ModelOptions, Towers};
use super::registry;
use crate::engine::{EngineOptions, UnitModel};
use crate::error::{Error, Result};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
const A: &str = ".lora_A.weight";
/// Features of PEFT that change what an adapter means and that are not supported here.
const UNSUPPORTED: [&str; 4] = [
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "modules_to_save",
];

/// An adapter folder's contents.
#[derive(Debug)]
pub struct Adapter {
    folder: PathBuf,
    config: Map<String, Value>,
    tensors: BTreeMap<String, Tensor>,
}

impl Adapter {
    /// Whether a folder holds an adapter and not a whole model.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(CONFIG).is_file()
    }

    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(CONFIG);
        let at = |e: &dyn std::fmt::Display| Error::User(format!("{}: {e}", path.display()));
        let text = std::fs::read_to_string(&path).map_err(|e| at(&e))?;
        let config: Map<String, Value> = serde_json::from_str(&text).map_err(|e| at(&e))?;
        if config.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            return Err(at(
                &"peft_type is not LORA; only LoRA adapters are supported",
            ));
        }
        if let Some(key) = UNSUPPORTED.iter().find(|key| is_set(config.get(**key))) {
            return Err(at(&format!("{key} is set, which is not supported")));
        }
        let file = folder.join(WEIGHTS);
        let tensors = Tensor::read_safetensors(&file)
            .map_err(|e| Error::User(format!("{}: {e}", file.display())))?;
        Ok(Self {
            folder: folder.to_owned(),
            config,
            tensors: tensors.into_iter().collect(),
        })
    }

    /// The folder of the base model; a relative path is tried as it is and beside the adapter.
    pub fn base(&self) -> Result<PathBuf> {
        let named = self.config.get("base_model_name_or_path");
        let named = named.and_then(Value::as_str).unwrap_or_default();
        let places = [PathBuf::from(named), self.folder.join(named)];
        let found = places.into_iter().find(|p| p.join("config.json").is_file());
        found.filter(|_| !named.is_empty()).ok_or_else(|| {
            Error::User(format!(
                "{}: base_model_name_or_path is `{named}`, where no model is; give the base model's \
                 folder with --base",
                self.folder.join(CONFIG).display()
            ))
        })
    }

    /// The base model with this adapter on it, in training shape: low-rank matrices apart.
    pub fn load(&self, base: &Path, engine: EngineOptions) -> Result<UnitModel> {
        let options = ModelOptions {
            engine,
            method: Method::Lora(self.lora()?),
            towers: Towers::ALL,
        };
        let mut model = registry::load(base, &options)?;
        self.copy_into(&mut model)?;
        Ok(model)
    }

    fn lora(&self) -> Result<LoraOptions> {
        let at = |problem: &str| {
            Error::User(format!("{}: {problem}", self.folder.join(CONFIG).display()))
        };
        let rank = self
            .config
            .get("r")
            .and_then(Value::as_i64)
            .filter(|r| *r > 0);
        let rank = rank.ok_or_else(|| at("r is missing or not positive"))?;
        let alpha = self.config.get("lora_alpha").and_then(Value::as_f64);
        let mut alpha = alpha.ok_or_else(|| at("lora_alpha is missing"))?;
        if is_set(self.config.get("use_rslora")) {
            // rsLoRA scales by alpha / sqrt(r), LoRA by alpha / r.
            #[allow(clippy::cast_precision_loss)]
            let root = (rank as f64).sqrt();
            alpha *= root;
        }
        Ok(LoraOptions {
            rank,
            alpha,
            dropout: 0.0,
            targets: LoraTargets::Suffixes(self.modules().into_iter().collect()),
        })
    }

    /// Full paths of the modules that have matrices in the file, whatever targets were asked for.
    fn modules(&self) -> BTreeSet<String> {
        let module = |name: &String| {
            let path = name.strip_suffix(A)?.strip_prefix(PEFT_PREFIX)?;
            Some(path.to_owned())
        };
        self.tensors.keys().filter_map(module).collect()
    }

    fn copy_into(&self, model: &mut UnitModel) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let mut unused: BTreeSet<&str> = self.tensors.keys().map(String::as_str).collect();
        for buffer in model.parameters_mut().buffers_mut() {
            for span in &buffer.spans {
                let tensor = self
                    .tensors
                    .get(&span.name)
                    .filter(|t| t.size() == span.shape);
                let tensor = tensor.ok_or_else(|| self.misfit(&span.name, &span.shape))?;
                span.view(&buffer.weights)?.f_copy_(tensor)?;
                unused.remove(span.name.as_str());
            }
        }
        match unused.first() {
            None => Ok(()),
            Some(name) => Err(Error::User(format!(
                "{}: the base model has no place for `{name}`; is it the right base?",
                self.folder.join(WEIGHTS).display()
            ))),
        }
    }

    fn misfit(&self, name: &str, shape: &[i64]) -> Error {
        let got = self.tensors.get(name).map(Tensor::size);
        let got = got.map_or("is missing".to_owned(), |size| {
            format!("has shape {size:?}")
        });
        Error::User(format!(
            "{}: `{name}` {got}, expected shape {shape:?}; is it the right base?",
            self.folder.join(WEIGHTS).display()
        ))
    }
}

/// A value that turns a feature on: not absent, null, false or empty.
fn is_set(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(config: &str) -> Result<Adapter> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(CONFIG), config).unwrap();
        let one = Tensor::from_slice(&[1.0f32]).view([1, 1]);
        let name = format!("{PEFT_PREFIX}model.layers.0.q_proj{A}");
        Tensor::write_safetensors(&[(name, &one)], folder.path().join(WEIGHTS)).unwrap();
        Adapter::open(folder.path())
    }

    #[test]
    fn targets_are_the_modules_in_the_file() {
        let config = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ".*"}"#;
        let lora = adapter(config).unwrap().lora().unwrap();
        assert_eq!((lora.rank, lora.alpha), (4, 8.0));
        assert!(lora.targets.matches("model.layers.0.q_proj"));
        assert!(!lora.targets.matches("model.layers.0.k_proj"));
    }

    #[test]
    fn rank_stabilised_scale_is_alpha_over_the_root() {
        let config = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_rslora": true}"#;
        assert_eq!(adapter(config).unwrap().lora().unwrap().alpha, 16.0);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let dora = r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_dora": true}"#;
        assert!(adapter(dora).unwrap_err().to_string().contains("use_dora"));
        let ia3 = r#"{"peft_type": "IA3"}"#;
        assert!(adapter(ia3).unwrap_err().to_string().contains("peft_type"));
    }

    #[test]
    fn a_base_that_is_not_there_is_an_error_with_a_remedy() {
        let config = r#"{"peft_type": "LORA", "base_model_name_or_path": "nowhere"}"#;
        assert!(
            adapter(config)
                .unwrap()
                .base()
                .unwrap_err()
                .to_string()
                .contains("--base")
        );
    }
}
