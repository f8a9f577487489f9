//! Folders that appear as a whole.

use std::path::Path;

use vlft_crds::contract::CHECKPOINTS_FOLDER;

use super::is_run_folder;
use crate::checkpoint::durable;
use crate::error::{Error, Result};

/// Fills a temporary folder beside `target` and puts it in its place. Where `target` is the run's
/// own folder, its files are put in one by one.
pub(super) fn publish(
    target: &Path,
    allowed: &dyn Fn() -> Result<()>,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let shared = is_run_folder(target);
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let temporary = match shared {
        true => target.join(".tmp-export"),
        false => target.with_file_name(format!(".tmp-{name}")),
    };
    remove(&temporary)?;
    std::fs::create_dir_all(&temporary)
        .map_err(|cause| Error::storage("create", &temporary, &cause))?;
    let published = write(&temporary)
        .and_then(|()| flush(&temporary))
        .and_then(|()| allowed())
        .and_then(|()| match shared {
            true => move_files(&temporary, target),
            false => replace(&temporary, target),
        });
    if published.is_err() || shared {
        // What is left of it is of no use; the error to tell is the first one.
        let _ = std::fs::remove_dir_all(&temporary);
    }
    published
}

/// Copies everything but weights: configuration, tokenizer, processor, templates, licence.
pub(super) fn copy_companions(source: &Path, target: &Path) -> Result<()> {
    let entries =
        std::fs::read_dir(source).map_err(|cause| Error::storage("list", source, &cause))?;
    for entry in entries {
        let entry = entry.map_err(|cause| Error::storage("list", source, &cause))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let (from, to) = (entry.path(), target.join(&name));
        // The Hub's cache holds links: what they lead to counts.
        if from.is_dir() {
            if name != CHECKPOINTS_FOLDER && !name.starts_with('.') && has_text_only(&from) {
                std::fs::create_dir_all(&to)
                    .map_err(|cause| Error::storage("create", &to, &cause))?;
                copy_companions(&from, &to)?;
            }
        } else if !is_weights(&name) && !name.starts_with('.') {
            std::fs::copy(&from, &to).map_err(|cause| Error::storage("write", &to, &cause))?;
        }
    }
    Ok(())
}

/// Folders of templates and the like belong to a model; folders with weights are other models.
fn has_text_only(folder: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(folder) else {
        return false;
    };
    entries.all(|entry| entry.is_ok_and(|entry| !is_weights(&entry.file_name().to_string_lossy())))
}

fn is_weights(name: &str) -> bool {
    const ENDINGS: [&str; 8] = [
        ".safetensors",
        ".safetensors.index.json",
        ".bin",
        ".bin.index.json",
        ".pt",
        ".pth",
        ".gguf",
        ".h5",
    ];
    // A run that wrote its model into its own folder keeps these beside it.
    const OF_RUNS: [&str; 2] = ["fence.json", "run.json"];
    ENDINGS.iter().any(|ending| name.ends_with(ending)) || OF_RUNS.contains(&name)
}

fn flush(folder: &Path) -> Result<()> {
    for path in children(folder)? {
        if path.is_dir() {
            flush(&path)?;
        } else {
            durable::sync(&path)?;
        }
    }
    durable::sync(folder)
}

fn replace(temporary: &Path, target: &Path) -> Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let old = target.with_file_name(format!(".tmp-old-{name}"));
    remove(&old)?;
    if target.exists() {
        durable::rename(target, &old)?;
    }
    durable::rename(temporary, target)?;
    remove(&old)
}

/// Weights of an earlier export go first: its shards may have other names.
fn move_files(temporary: &Path, target: &Path) -> Result<()> {
    for path in children(target)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("model") && is_weights(&name) {
            std::fs::remove_file(&path).map_err(|cause| Error::storage("remove", &path, &cause))?;
        }
    }
    for path in children(temporary)? {
        let to = target.join(path.file_name().unwrap_or_default());
        if to.is_dir() {
            remove(&to)?;
        }
        durable::rename(&path, &to)?;
    }
    Ok(())
}

fn children(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    entries.map_err(|cause| Error::storage("list", folder, &cause))
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::storage("remove", folder, &cause))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn companions_are_copied_unchanged_and_weights_are_not() {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in [
            "config.json",
            "tokenizer.json",
            "additional_chat_templates/a.jinja",
            "model.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            ".git/config",
            "checkpoints/step-1/manifest.json",
            "onnx/model.pt",
        ] {
            write(&source.path().join(name), name);
        }
        let link = source.path().join("tokenizer_config.json");
        std::os::unix::fs::symlink(source.path().join("config.json"), &link).unwrap();
        copy_companions(source.path(), target.path()).unwrap();
        let mut names: Vec<_> = children(target.path()).unwrap();
        names.sort();
        let names: Vec<_> = names
            .iter()
            .map(|p| p.file_name().unwrap().to_str().unwrap())
            .collect();
        let expected = [
            "additional_chat_templates",
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        assert_eq!(names, expected);
        let copy = target.path().join("tokenizer_config.json");
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), "config.json");
        assert!(!copy.is_symlink());
    }

    #[test]
    fn a_folder_is_replaced_as_a_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("model");
        write(&target.join("old"), "");
        let failing = publish(&target, &|| Ok(()), |_| Err(Error::Bug("no".into())));
        assert!(failing.is_err() && target.join("old").exists());
        let fenced = publish(&target, &|| Err(Error::Drained("no".into())), |_| Ok(()));
        assert!(fenced.is_err() && target.join("old").exists());
        publish(&target, &|| Ok(()), |folder| {
            write(&folder.join("new"), "");
            Ok(())
        })
        .unwrap();
        assert!(target.join("new").exists() && !target.join("old").exists());
        assert_eq!(children(root.path()).unwrap(), [target]);
    }

    #[test]
    fn a_run_folder_keeps_its_checkpoints() {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("checkpoints/step-1/manifest.json"), "");
        write(&root.path().join("model-00001-of-00002.safetensors"), "");
        publish(root.path(), &|| Ok(()), |folder| {
            write(&folder.join("model.safetensors"), "");
            Ok(())
        })
        .unwrap();
        let mut names = children(root.path()).unwrap();
        names.sort();
        let expected = ["checkpoints", "model.safetensors"].map(|name| root.path().join(name));
        assert_eq!(names, expected);
    }
}
