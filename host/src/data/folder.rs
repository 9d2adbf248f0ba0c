//! Class folders: the path of an image names its split and its label.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use eyas_shared::files::FileError;

use super::DataError;
use super::listing::{Entry, Listing, is_image, roles_of_split};

const SPLITS: [&str; 5] = ["train", "val", "test", "query", "gallery"];

/// Lists the images below `root`, sorted by path.
pub(super) fn list(root: &Path) -> Result<Listing, DataError> {
    let mut walk = Walk {
        root,
        seen: BTreeMap::new(),
        paths: Vec::new(),
        n_other: 0,
    };
    walk.folder(root)?;
    walk.paths.sort_unstable();
    let has_splits = has_splits(root, &walk.paths)?;
    let entries = if has_splits {
        let mut entries = Vec::with_capacity(walk.paths.len());
        for split in SPLITS {
            let inside = format!("{split}/");
            let paths: Vec<&str> = walk
                .paths
                .iter()
                .filter(|path| path.starts_with(&inside))
                .map(String::as_str)
                .collect();
            entries.extend(label(
                root,
                &paths,
                inside.len(),
                split,
                roles_of_split(split),
            )?);
        }
        entries
    } else {
        let paths: Vec<&str> = walk.paths.iter().map(String::as_str).collect();
        label(root, &paths, 0, "train", (true, true))?
    };
    Ok(Listing {
        root: root.to_owned(),
        entries,
        n_other: walk.n_other,
    })
}

/// Collects the image files below a folder.
struct Walk<'a> {
    root: &'a Path,
    /// Folders by what they really are, so that a link that leads back ends the walk.
    seen: BTreeMap<PathBuf, PathBuf>,
    /// Relative to the root, with `/`.
    paths: Vec<String>,
    n_other: usize,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path) -> Result<(), DataError> {
        let real = fs::canonicalize(folder).map_err(FileError::because("open", folder))?;
        if let Some(first) = self.seen.insert(real, folder.to_owned()) {
            return Err(DataError::FolderTwice {
                again: folder.to_owned(),
                first,
            });
        }
        for item in fs::read_dir(folder).map_err(FileError::because("list", folder))? {
            let path = item.map_err(FileError::because("list", folder))?.path();
            let name = path.file_name().unwrap_or_default();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if path.is_dir() {
                self.folder(&path)?;
            } else if is_image(&path) {
                self.paths.push(self.relative(&path)?);
            } else {
                self.n_other += 1;
            }
        }
        Ok(())
    }

    fn relative(&self, path: &Path) -> Result<String, DataError> {
        let not_utf8 = || DataError::NotUtf8 {
            path: path.to_owned(),
        };
        let below = path.strip_prefix(self.root).unwrap_or(path);
        let parts: Option<Vec<&str>> = below.iter().map(|part| part.to_str()).collect();
        Ok(parts.ok_or_else(not_utf8)?.join("/"))
    }
}

/// Whether the folders at the top are splits. Images directly at the top are no folders.
fn has_splits(root: &Path, paths: &[String]) -> Result<bool, DataError> {
    let tops = || {
        paths
            .iter()
            .filter_map(|path| Some(path.split_once('/')?.0))
    };
    let split = tops().find(|top| SPLITS.contains(top));
    let other = tops().find(|top| !SPLITS.contains(top));
    match (split, other) {
        (None, _) => Ok(false),
        (Some(_), None) => match paths.iter().find(|path| !path.contains('/')) {
            None => Ok(true),
            Some(path) => Err(DataError::Unlabeled {
                path: root.join(path),
            }),
        },
        (Some(split), Some(other)) => Err(DataError::MixedSplits {
            path: root.to_owned(),
            split: split.to_owned(),
            other: other.to_owned(),
        }),
    }
}

/// Takes labels from the folders behind the first `skip` bytes of each path, or from file
/// names where there are no folders at all.
fn label(
    root: &Path,
    paths: &[&str],
    skip: usize,
    split: &str,
    (is_query, is_gallery): (bool, bool),
) -> Result<Vec<Entry>, DataError> {
    let has_folders = paths.iter().any(|path| path[skip..].contains('/'));
    let label_of = |path: &str| match path[skip..].rsplit_once('/') {
        Some((folders, _)) => Ok(folders.to_owned()),
        None if has_folders => Err(DataError::Unlabeled {
            path: root.join(path),
        }),
        None => {
            let name = &path[skip..];
            Ok(name
                .rsplit_once('.')
                .map_or(name, |(stem, _)| stem)
                .to_owned())
        }
    };
    paths
        .iter()
        .map(|path| {
            Ok(Entry {
                path: (*path).to_owned(),
                label: label_of(path)?,
                split: split.to_owned(),
                is_query,
                is_gallery,
            })
        })
        .collect()
}
