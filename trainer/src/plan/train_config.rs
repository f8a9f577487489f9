//! The flat `train_config.yaml`, read as it is and turned into a VLFineTune.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use vlft_crds::VLFineTune;

use crate::error::{Error, Result};

/// Short names of models, and the repositories they stand for.
const ALIASES: [(&str, &str); 1] = [("qwen-vl-7b", "Qwen/Qwen2-VL-7B-Instruct")];

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// An alias, `ORG/NAME`, or a folder.
    model_name: String,
    /// A `metadata.jsonl`, or the folder that holds it.
    train_data: String,
    #[serde(default)]
    image_root: Option<String>,
    trainer: TrainerSection,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainerSection {
    #[serde(default)]
    strategy: Option<String>,
    /// Samples of one forward pass.
    #[serde(default)]
    batch_size: Option<i64>,
    #[serde(default)]
    gradient_accumulation: Option<i64>,
    #[serde(default)]
    learning_rate: Option<f64>,
    #[serde(default)]
    max_length: Option<i64>,
}

impl TrainerSection {
    /// The document's own bounds, by the names of this file.
    fn check(&self) -> Result<(), String> {
        for (name, value, range) in [
            ("batch_size", self.batch_size, 1..=65_536),
            (
                "gradient_accumulation",
                self.gradient_accumulation,
                1..=65_536,
            ),
            ("max_length", self.max_length, 16..=1_048_576),
        ] {
            if value.is_some_and(|value| !range.contains(&value)) {
                let (from, to) = range.into_inner();
                return Err(format!("trainer.{name}: use a number from {from} to {to}"));
            }
        }
        // NaN lies in no range.
        if self
            .learning_rate
            .is_some_and(|rate| !(0.0..=10.0).contains(&rate))
        {
            return Err("trainer.learning_rate: use a number from 0 to 10".into());
        }
        Ok(())
    }
}

/// What the command line adds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConfigFlags {
    pub fp16: bool,
    pub bf16: bool,
    pub cpu: bool,
}

/// A converted configuration, and what the user should know about the conversion.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    pub document: Value,
    pub notices: Vec<String>,
}

impl TrainConfig {
    /// Reads the file; a user error names the field.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong =
            |cause: &dyn std::fmt::Display| Error::User(format!("{}: {cause}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|cause| wrong(&cause))?;
        let config: Self = serde_yaml::from_str(&text).map_err(|cause| wrong(&cause))?;
        config.trainer.check().map_err(|problem| wrong(&problem))?;
        Ok(config)
    }

    /// Reads and converts a file; relative paths are looked for in the working directory, then
    /// beside the file.
    pub fn open(path: &Path, flags: ConfigFlags) -> Result<Converted> {
        let config = Self::read(path)?;
        let here = std::env::current_dir()
            .map_err(|cause| Error::User(format!("no working directory: {cause}")))?;
        let beside = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let beside = beside.parent().unwrap_or(&here);
        Ok(config.convert(flags, &here, beside))
    }

    /// As a VLFineTune document. Relative paths are looked for in `here`, then beside the
    /// configuration in `beside`; what is in neither stays in `here`, for the run to complain.
    pub fn convert(&self, flags: ConfigFlags, here: &Path, beside: &Path) -> Converted {
        let mut notices = Vec::new();
        let find = |text: &str| file_uri(text, here, beside);
        let trainer = &self.trainer;
        let micro = trainer.batch_size.unwrap_or(1);
        let accumulation = trainer.gradient_accumulation.unwrap_or(1);
        let mut source = json!({ "uri": find(&self.train_data) });
        if let Some(root) = &self.image_root {
            source["imageRoot"] = find(root).into();
        }
        let mut dataset = json!({ "train": [source] });
        if let Some(max_length) = trainer.max_length {
            dataset["maxLength"] = max_length.into();
        }
        let mut training = json!({
            "globalBatchSize": micro * accumulation,
            "microBatchSize": micro,
        });
        if let Some(rate) = trainer.learning_rate {
            training["learningRate"] = rate.into();
        }
        let mut spec = json!({
            "model": { "uri": self.model_uri(here, beside, &mut notices) },
            "dataset": dataset,
            "method": { "full": {} },
            "training": training,
            "parallelism": { "strategy": self.strategy(&mut notices) },
        });
        if let Some(precision) = precision(flags, &mut notices) {
            spec["precision"] = precision.into();
        }
        if flags.cpu {
            spec["workers"] = json!({ "device": "CPU" });
        }
        let document = json!({
            "apiVersion": "vlft.dev/v1alpha1",
            "kind": "VLFineTune",
            "metadata": { "name": "finetune" },
            "spec": spec,
        });
        Converted { document, notices }
    }

    fn model_uri(&self, here: &Path, beside: &Path, notices: &mut Vec<String>) -> String {
        let name = self.model_name.as_str();
        if let Some((alias, repo)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
            notices.push(format!("model_name: `{alias}` stands for {repo}"));
            return format!("hf://{repo}");
        }
        let is_folder = here.join(name).is_dir() || beside.join(name).is_dir();
        let looks_like_path = name.starts_with(['/', '.', '~']) || name.matches('/').count() != 1;
        if is_folder || looks_like_path {
            return file_uri(name, here, beside);
        }
        format!("hf://{name}")
    }

    fn strategy(&self, notices: &mut Vec<String>) -> &'static str {
        match self.trainer.strategy.as_deref() {
            None => "Auto",
            Some("ddp" | "DDP") => "DDP",
            Some("deepspeed_stage_1" | "zero1") => "Zero1",
            Some("deepspeed_stage_2" | "zero2") => "Zero2",
            Some("deepspeed_stage_3" | "zero3") => "Zero3",
            Some(other) => {
                notices.push(format!(
                    "trainer.strategy: `{other}` is unknown here and read as Auto; with one \
                     process every strategy means the same"
                ));
                "Auto"
            }
        }
    }
}

impl Converted {
    /// The document with the checks of every VLFineTune.
    pub fn checked(&self) -> Result<VLFineTune> {
        vlft_crds::load::load_str(&self.yaml()?).map_err(|cause| Error::User(cause.to_string()))
    }

    pub fn yaml(&self) -> Result<String> {
        serde_yaml::to_string(&self.document).map_err(|cause| Error::Bug(cause.to_string()))
    }
}

fn precision(flags: ConfigFlags, notices: &mut Vec<String>) -> Option<&'static str> {
    if flags.fp16 {
        notices.push(
            "--fp16: float16 with loss scaling is not there yet; trained as BFloat16Mixed, which \
             takes the same memory"
                .into(),
        );
    }
    (flags.fp16 || flags.bf16).then_some("BFloat16Mixed")
}

fn file_uri(text: &str, here: &Path, beside: &Path) -> String {
    let candidates = [here.join(text), beside.join(text)];
    let found = candidates.iter().find(|path| path.exists());
    let path = found.unwrap_or(&candidates[0]);
    let absolute = path.canonicalize().unwrap_or_else(|_| clean(path));
    format!("file://{}", absolute.display())
}

/// Without `.` parts; `..` is left for the checks to refuse.
fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUTORIAL: &str = "\
model_name: qwen-vl-7b
train_data: data/metadata.jsonl
image_root: data/images
trainer:
  strategy: deepspeed_stage_3
  batch_size: 2
  gradient_accumulation: 8
  learning_rate: 2e-5
  max_length: 1024
";

    fn read(text: &str) -> Result<TrainConfig> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        TrainConfig::read(file.path())
    }

    #[test]
    fn the_tutorials_file_becomes_a_valid_document() {
        let here = tempfile::tempdir().unwrap();
        let beside = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(beside.path().join("data/images")).unwrap();
        std::fs::write(beside.path().join("data/metadata.jsonl"), "").unwrap();
        let converted =
            read(TUTORIAL)
                .unwrap()
                .convert(ConfigFlags::default(), here.path(), beside.path());
        assert_eq!(converted.notices.len(), 1, "{:?}", converted.notices);
        assert!(converted.notices[0].contains("Qwen/Qwen2-VL-7B-Instruct"));
        let spec = converted.checked().unwrap().spec;
        assert_eq!(spec.model.uri, "hf://Qwen/Qwen2-VL-7B-Instruct");
        let source = &spec.dataset.train[0];
        let data = beside.path().canonicalize().unwrap().join("data");
        assert_eq!(
            source.uri,
            format!("file://{}/metadata.jsonl", data.display())
        );
        let root = format!("file://{}/images", data.display());
        assert_eq!(source.image_root.as_deref(), Some(root.as_str()));
        assert_eq!(spec.training.global_batch_size, 16);
        assert_eq!(spec.training.micro_batch_size, Some(2));
        assert_eq!(spec.training.learning_rate, 2e-5);
        assert_eq!(spec.dataset.max_length, 1024);
        assert!(spec.method.full.is_some());
        assert_eq!(spec.precision, None);
    }

    #[test]
    fn flags_and_strategies_are_taken_with_a_notice() {
        let text = TUTORIAL.replace("deepspeed_stage_3", "galore");
        let flags = ConfigFlags {
            fp16: true,
            cpu: true,
            ..ConfigFlags::default()
        };
        let converted = read(&text)
            .unwrap()
            .convert(flags, Path::new("/"), Path::new("/"));
        let notices = converted.notices.join("\n");
        assert!(
            notices.contains("galore") && notices.contains("--fp16"),
            "{notices}"
        );
        let spec = converted.checked().unwrap().spec;
        assert_eq!(
            spec.precision,
            Some(vlft_crds::training::Precision::BFloat16Mixed)
        );
        assert_eq!(spec.workers.device, vlft_crds::workers::Device::Cpu);
    }

    #[test]
    fn wrong_fields_are_named() {
        for (from, to, part) in [
            ("batch_size", "batchsize", "batchsize"),
            ("batch_size: 2", "batch_size: 0", "trainer.batch_size"),
            ("model_name: qwen-vl-7b\n", "", "model_name"),
            (
                "learning_rate: 2e-5",
                "learning_rate: fast",
                "learning_rate",
            ),
        ] {
            let message = read(&TUTORIAL.replace(from, to)).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_folder_is_a_model_and_so_is_a_repository() {
        let here = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(here.path().join("my/model")).unwrap();
        for (name, scheme) in [("my/model", "file:///"), ("org/name", "hf://org/name")] {
            let config = read(&TUTORIAL.replace("qwen-vl-7b", name)).unwrap();
            let converted = config.convert(ConfigFlags::default(), here.path(), here.path());
            let uri = converted.document["spec"]["model"]["uri"].as_str().unwrap();
            assert!(uri.starts_with(scheme), "{uri}");
        }
    }
}
