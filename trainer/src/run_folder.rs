//! What a run's folder says about the run, so that `trainer export` needs nothing else.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vlft_crds::VLFineTuneSpec;

use crate::checkpoint::durable;
use crate::error::{Error, Result};
use crate::plan::RunPlan;

const RUN_FILE: &str = "run.json";

/// Written into the run's folder when the run begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// As resolved: a cached `hf://` model has become a folder.
    pub spec: VLFineTuneSpec,
    pub model_folder: PathBuf,
}

impl RunRecord {
    pub fn new(plan: &RunPlan) -> Self {
        Self {
            spec: plan.spec.clone(),
            model_folder: plan.model_folder.clone(),
        }
    }

    pub fn write(&self, run: &Path) -> Result<()> {
        let path = run.join(RUN_FILE);
        let json = serde_json::to_vec_pretty(self)
            .map_err(|cause| Error::Bug(format!("run record: {cause}")))?;
        durable::replace(&path, &json)
    }

    /// User error if the folder is no run's.
    pub fn read(run: &Path) -> Result<Self> {
        let path = run.join(RUN_FILE);
        let wrong = |cause: &dyn std::fmt::Display| {
            Error::User(format!(
                "{}: {cause}; give the folder of a run, which holds {RUN_FILE} and checkpoints",
                path.display()
            ))
        };
        let text = std::fs::read(&path).map_err(|cause| wrong(&cause))?;
        serde_json::from_slice(&text).map_err(|cause| wrong(&cause))
    }

    /// How an adapter names its base: the Hub's name for a snapshot of its cache, else the
    /// folder.
    pub fn base_name(&self) -> String {
        hub_name(&self.model_folder).unwrap_or_else(|| {
            let folder = self.model_folder.canonicalize();
            folder
                .as_deref()
                .unwrap_or(&self.model_folder)
                .display()
                .to_string()
        })
    }
}

/// `…/models--ORG--NAME/snapshots/COMMIT` -> `ORG/NAME`
fn hub_name(folder: &Path) -> Option<String> {
    let snapshots = folder.parent()?;
    let repo = snapshots.parent()?.file_name()?.to_str()?;
    let name = repo.strip_prefix("models--")?;
    (snapshots.file_name()? == "snapshots").then(|| name.replacen("--", "/", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_named_as_on_the_hub() {
        let folder = Path::new("/c/hub/models--Qwen--Qwen2-VL-7B-Instruct/snapshots/abc");
        assert_eq!(
            hub_name(folder).as_deref(),
            Some("Qwen/Qwen2-VL-7B-Instruct")
        );
        assert_eq!(hub_name(Path::new("/models/mine")), None);
    }

    #[test]
    fn a_folder_of_no_run_says_what_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let message = RunRecord::read(folder.path()).unwrap_err().to_string();
        assert!(message.contains(RUN_FILE), "{message}");
    }
}
