//! Models that are in the local Hugging Face cache already. Nothing is downloaded.

use std::path::{Path, PathBuf};

/// The cache folder by the Hub's own variables.
pub(super) fn folder() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")) {
        return cache.into();
    }
    let home = variable("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
        let home = variable("HOME").map(PathBuf::from).unwrap_or_default();
        variable("XDG_CACHE_HOME")
            .map_or_else(|| home.join(".cache"), PathBuf::from)
            .join("huggingface")
    });
    home.join("hub")
}

/// The snapshot folder of a repository, if the cache has it.
pub(super) fn find(repo: &str, revision: Option<&str>) -> Option<PathBuf> {
    find_in(&folder(), repo, revision)
}

/// Layout: `models--ORG--NAME/{refs/<branch or tag>, snapshots/<commit>/}`.
fn find_in(cache: &Path, repo: &str, revision: Option<&str>) -> Option<PathBuf> {
    let repo = cache.join(format!("models--{}", repo.replace('/', "--")));
    let revision = revision.unwrap_or("main");
    if revision.split('/').any(|part| part == "..") {
        return None;
    }
    let commit = std::fs::read_to_string(repo.join("refs").join(revision));
    let commit = commit.unwrap_or_else(|_| revision.to_owned());
    let snapshot = repo.join("snapshots").join(commit.trim());
    snapshot.join("config.json").exists().then_some(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_and_commits_lead_to_their_snapshot() {
        let cache = tempfile::tempdir().unwrap();
        let repo = cache.path().join("models--Qwen--Qwen2-VL-7B-Instruct");
        let snapshot = repo.join("snapshots/abc123");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::write(repo.join("refs/main"), "abc123\n").unwrap();
        let find = |repo, revision| find_in(cache.path(), repo, revision);
        assert_eq!(
            find("Qwen/Qwen2-VL-7B-Instruct", None),
            None,
            "no config.json yet"
        );
        std::fs::write(snapshot.join("config.json"), "{}").unwrap();
        assert_eq!(
            find("Qwen/Qwen2-VL-7B-Instruct", None),
            Some(snapshot.clone())
        );
        assert_eq!(
            find("Qwen/Qwen2-VL-7B-Instruct", Some("abc123")),
            Some(snapshot)
        );
        assert_eq!(find("Qwen/Qwen2-VL-7B-Instruct", Some("v2")), None);
        assert_eq!(find("Qwen/Qwen2-VL-7B-Instruct", Some("../../x")), None);
        assert_eq!(find("Qwen/Other", None), None);
    }
}
