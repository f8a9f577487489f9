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
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    write(&temporary, bytes)?;
    rename(&temporary, path)
}
