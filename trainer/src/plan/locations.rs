//! `pvc://`, `file://` and cached `hf://` -> folders on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vlft_crds::VLFineTuneSpec;
use vlft_crds::uri::Uri;

use super::hub_cache;
use crate::error::{Error, Result};

/// Where claims are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volumes {
    /// In a pod: each claim is mounted under its name below this folder.
    Mounted(PathBuf),
    /// Elsewhere: claim name -> folder, as `--volume NAME=FOLDER` says.
    Given(BTreeMap<String, PathBuf>),
}

impl Volumes {
    /// Reads the values of `--volume`.
    pub fn parse(arguments: &[String]) -> Result<Self> {
        let mut folders = BTreeMap::new();
        for argument in arguments {
            let (name, folder) = argument
                .split_once('=')
                .filter(|(name, folder)| !name.is_empty() && !folder.is_empty())
                .ok_or_else(|| {
                    Error::User(format!("--volume {argument}: write --volume NAME=FOLDER"))
                })?;
            if !Path::new(folder).is_dir() {
                return Err(Error::User(format!(
                    "--volume {argument}: {folder} is no folder"
                )));
            }
            folders.insert(name.to_owned(), PathBuf::from(folder));
        }
        Ok(Self::Given(folders))
    }

    /// The folder that the location in `field` means. User error if its volume is not here or
    /// nothing is there.
    pub fn folder(&self, field: &str, location: &str) -> Result<PathBuf> {
        self.existing(field, location, Error::User)
    }

    /// The same for data: a data error if nothing is there.
    pub fn data(&self, field: &str, location: &str) -> Result<PathBuf> {
        self.existing(field, location, Error::Data)
    }

    fn existing(
        &self,
        field: &str,
        location: &str,
        absent: fn(String) -> Error,
    ) -> Result<PathBuf> {
        let path = self.locate(field, location)?;
        match path.exists() {
            true => Ok(path),
            false => Err(absent(format!(
                "{field}: {location}: {} does not exist; correct the path, or copy it there",
                path.display()
            ))),
        }
    }

    fn locate(&self, field: &str, location: &str) -> Result<PathBuf> {
        let wrong = |problem: String| Error::User(format!("{field}: {location}: {problem}"));
        match Uri::parse(location).map_err(|cause| wrong(cause.to_string()))? {
            Uri::File { path } => Ok(PathBuf::from(path)),
            Uri::Claim { claim, path } => Ok(self.claim(&claim).map_err(wrong)?.join(path)),
            Uri::Hub { .. } => {
                let cache = hub_cache::folder().display().to_string();
                Err(wrong(format!(
                    "is not in the local Hugging Face cache ({cache}); download it there, or give \
                     a folder"
                )))
            }
            Uri::ObjectStore { .. } => {
                Err(wrong("copy it to a volume and use pvc://CLAIM/PATH".into()))
            }
        }
    }

    fn claim(&self, claim: &str) -> Result<PathBuf, String> {
        match self {
            Self::Mounted(root) => Ok(root.join(claim)),
            Self::Given(folders) => folders.get(claim).cloned().ok_or_else(|| {
                format!("add --volume {claim}=FOLDER, the folder that stands in for the claim")
            }),
        }
    }

    /// The spec with its `hf://` model replaced by the folder that the local Hugging Face cache
    /// has for it, if it has one.
    pub(super) fn with_cached_models(&self, mut spec: VLFineTuneSpec) -> VLFineTuneSpec {
        if let Ok(Uri::Hub { repo }) = Uri::parse(&spec.model.uri)
            && let Some(folder) = hub_cache::find(&repo, spec.model.revision.as_deref())
        {
            spec.model.uri = format!("file://{}", folder.display());
            spec.model.revision = None;
        }
        spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_found_where_they_are_mounted_or_given() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("data/digits")).unwrap();
        let mounted = Volumes::Mounted(root.path().to_owned());
        let found = mounted
            .folder("spec.model.uri", "pvc://data/digits")
            .unwrap();
        assert_eq!(found, root.path().join("data/digits"));
        let argument = format!("other={}", root.path().join("data").display());
        let given = Volumes::parse(&[argument]).unwrap();
        assert_eq!(given.folder("f", "pvc://other/digits").unwrap(), found);
    }

    #[test]
    fn what_is_missing_is_named_with_field_and_remedy() {
        let given = Volumes::Given(BTreeMap::new());
        for (location, part) in [
            ("pvc://data/x", "--volume data=FOLDER"),
            ("file:///no/such/folder", "does not exist"),
            ("hf://no-such-org/no-such-model", "local Hugging Face cache"),
            ("pvc://data/../x", ".."),
        ] {
            let message = given
                .folder("spec.model.uri", location)
                .unwrap_err()
                .to_string();
            assert!(message.contains(part), "{message}");
            assert!(message.starts_with("spec.model.uri"), "{message}");
        }
        for (location, is_data) in [("file:///no/such/folder", true), ("pvc://data/x", false)] {
            let error = given
                .data("spec.dataset.train[0].uri", location)
                .unwrap_err();
            assert_eq!(matches!(error, Error::Data(_)), is_data, "{error:?}");
        }
        for wrong in ["x", "=a", "a=", "a=/no/such/folder"] {
            assert!(Volumes::parse(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
