//! Writes that survive a power cut: data, then name, then the folder that holds the name.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

/// Flushes a file's or folder's own data to the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|cause| Error::storage("flush", path, &cause))
}

/// Writes and flushes a file; its name is durable only once its folder is flushed.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    File::create(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|cause| Error::storage("write", path, &cause))
}

/// Renames within one folder and flushes that folder.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|cause| Error::storage("rename to", to, &cause))?;
    to.parent().map_or(Ok(()), sync)
}

/// Replaces a file as a whole: readers see the old or the new content, never a part.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    write(&temporary, bytes)?;
    rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn whoever_reads_sees_the_old_or_the_new_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        replace(&path, b"old").unwrap();
        let mut reader = File::open(&path).unwrap();
        replace(&path, b"new").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(
            (text.as_str(), std::fs::read(&path).unwrap()),
            ("old", b"new".to_vec())
        );
        let names = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1, "a temporary file is left");
    }
}
