//! An adapter folder as PEFT saves it.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::Trained;
use super::merge::A;
use crate::checkpoint::write_tensors;
use crate::error::{Error, Result};
use crate::models::hf::{PEFT_PREFIX, module_on_disk};
use crate::models::{LoraOptions, Weights};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// LoRA matrices and what PEFT must know to put them back.
#[derive(Debug)]
pub struct AdapterExport<'a> {
    pub lora: &'a LoraOptions,
    pub base_name: &'a str,
    pub base: &'a Weights,
    pub trained: &'a Trained,
}

impl AdapterExport<'_> {
    /// Writes `adapter_config.json` and `adapter_model.safetensors`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let named = self.trained.iter().map(|(name, t)| (name.as_str(), t));
        write_tensors(&folder.join(WEIGHTS), named)?;
        let modules: BTreeSet<&str> = self
            .trained
            .keys()
            .filter_map(|name| name.strip_suffix(A)?.strip_prefix(PEFT_PREFIX))
            .collect();
        let path = folder.join(CONFIG);
        let json = serde_json::to_vec_pretty(&self.config(&modules))
            .map_err(|cause| Error::Bug(format!("adapter config: {cause}")))?;
        std::fs::write(&path, json).map_err(|cause| Error::storage("write", &path, &cause))
    }

    fn config(&self, modules: &BTreeSet<&str>) -> Value {
        let LoraOptions {
            rank,
            alpha,
            dropout,
            targets: _,
        } = self.lora;
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base_name,
            "r": rank,
            // For rsLoRA the scale alpha / sqrt(r) is already in it.
            "lora_alpha": alpha,
            "lora_dropout": dropout,
            "target_modules": self.targets(modules),
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "use_dora": false,
            "use_rslora": false,
            "modules_to_save": null,
            "layers_to_transform": null,
            "rank_pattern": {},
            "alpha_pattern": {},
        })
    }

    /// Last path components where they name exactly these modules, else whole paths.
    fn targets(&self, modules: &BTreeSet<&str>) -> Vec<String> {
        let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
        let short: BTreeSet<String> = modules.iter().map(|module| last(module)).collect();
        let on_disk: BTreeSet<String> = modules
            .iter()
            .filter_map(|module| module_on_disk(self.base, module))
            .collect();
        let weights = self
            .base
            .names()
            .filter_map(|name| name.strip_suffix(".weight"));
        let named_by_short = weights.filter(|module| short.contains(&last(module)));
        if named_by_short.map(str::to_owned).collect::<BTreeSet<_>>() == on_disk {
            return short.into_iter().collect();
        }
        modules.iter().map(|module| (*module).to_owned()).collect()
    }
}
