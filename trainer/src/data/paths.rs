//! Which file an image path of a record means.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The folders that a source's images may lie in, first choice first.
#[derive(Debug)]
pub struct ImageRoots {
    /// As given (for messages) and canonical (to compare with).
    roots: Vec<(PathBuf, PathBuf)>,
}

impl ImageRoots {
    /// `image_root` first, if there is one, then the folder of the metadata file.
    pub fn open(image_root: Option<&Path>, metadata_folder: &Path) -> Result<Self> {
        let mut roots = Vec::new();
        if let Some(root) = image_root {
            let canonical = root.canonicalize().map_err(|error| {
                Error::Data(format!(
                    "image_root {}: {error}; name an existing folder or leave it out",
                    root.display()
                ))
            })?;
            roots.push((root.to_owned(), canonical));
        }
        let canonical = metadata_folder
            .canonicalize()
            .map_err(|error| Error::Data(format!("{}: {error}", metadata_folder.display())))?;
        roots.push((metadata_folder.to_owned(), canonical));
        Ok(Self { roots })
    }

    /// The canonical path of an image, which lies inside one of the roots. The message of an
    /// error says what was looked at; the caller adds file and line.
    pub fn resolve(&self, image: &str) -> Result<PathBuf, String> {
        if image.trim().is_empty() {
            return Err("the image path is empty; name a file, or leave the key out".into());
        }
        let candidates = self.roots.iter().map(|(root, _)| root.join(image));
        let found = candidates
            .filter_map(|path| path.canonicalize().ok())
            .collect::<Vec<_>>();
        let inside = |path: &&PathBuf| self.roots.iter().any(|(_, root)| path.starts_with(root));
        if let Some(path) = found.iter().find(inside) {
            return Ok(path.clone());
        }
        match found.first() {
            Some(outside) => Err(format!(
                "image `{image}` leaves the dataset folder (it is {}); move it into {} or set \
                 image_root",
                outside.display(),
                self.names()
            )),
            None => Err(format!(
                "image `{image}` does not exist in {}; correct the path or set image_root",
                self.names()
            )),
        }
    }

    fn names(&self) -> String {
        let names = self
            .roots
            .iter()
            .map(|(root, _)| root.display().to_string());
        names.collect::<Vec<_>>().join(" or ")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    /// `data/images/{a,b}.png`, `data/b.png`, and `secret.png` beside `data`.
    fn folders() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("images")).unwrap();
        for name in [
            "data/images/a.png",
            "data/images/b.png",
            "data/b.png",
            "secret.png",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        folder
    }

    #[test]
    fn image_root_comes_before_the_metadatas_folder() {
        let folder = folders();
        let data = folder.path().join("data").canonicalize().unwrap();
        let roots = ImageRoots::open(Some(&data.join("images")), &data).unwrap();
        assert_eq!(roots.resolve("a.png").unwrap(), data.join("images/a.png"));
        assert_eq!(roots.resolve("b.png").unwrap(), data.join("images/b.png"));
        // The tutorial's image_root already ends in `images`, and so do its paths.
        assert_eq!(
            roots.resolve("images/a.png").unwrap(),
            data.join("images/a.png")
        );
        let absolute = data.join("b.png");
        assert_eq!(roots.resolve(absolute.to_str().unwrap()).unwrap(), absolute);
    }

    #[test]
    fn no_path_leaves_the_folders() {
        let folder = folders();
        let data = folder.path().join("data");
        std::os::unix::fs::symlink("../secret.png", data.join("link.png")).unwrap();
        let roots = ImageRoots::open(None, &data).unwrap();
        let absolute = folder.path().join("secret.png");
        for image in ["../secret.png", "images/../../secret.png", "link.png"]
            .into_iter()
            .chain(absolute.to_str())
        {
            let message = roots.resolve(image).unwrap_err();
            assert!(message.contains("leaves the dataset folder"), "{message}");
            assert!(
                message.contains(image) && message.contains("image_root"),
                "{message}"
            );
        }
    }

    #[test]
    fn what_is_missing_is_named_with_the_folders_looked_at() {
        let folder = folders();
        let data = folder.path().join("data");
        let roots = ImageRoots::open(Some(&data.join("images")), &data).unwrap();
        let message = roots.resolve("c.png").unwrap_err();
        let expected = format!(
            "image `c.png` does not exist in {0}/images or {0}; correct the path or set image_root",
            data.display()
        );
        assert_eq!(message, expected);
        let error = ImageRoots::open(Some(&data.join("none")), &data).unwrap_err();
        assert!(
            error.to_string().contains("name an existing folder"),
            "{error}"
        );
    }
}
