//! Class folders: the path of an image names its split and its label.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use eyas_shared::files::FileError;

use super::DataError;
use super::listing::{Empty, Entry, Listing, OnFault, is_image, roles_of_split};

const SPLITS: [&str; 5] = ["train", "val", "test", "query", "gallery"];

/// Lists the images below `root`, sorted by path.
pub(super) fn list(root: &Path, on_fault: OnFault<'_>) -> Result<Listing, DataError> {
    let mut walk = Walk {
        root,
        seen: BTreeMap::new(),
        paths: Vec::new(),
        n_other: 0,
        empty: Vec::new(),
    };
    walk.folder(root, on_fault)?;
    walk.paths.sort_unstable();
    let has_splits = has_splits(root, &walk.paths)?;
    let mut entries = Vec::with_capacity(walk.paths.len());
    if has_splits {
        for split in SPLITS {
            let inside = format!("{split}/");
            let of_split = walk.paths.iter().filter(|path| path.starts_with(&inside));
            let part = Part {
                root,
                paths: of_split.map(String::as_str).collect(),
                skip: inside.len(),
                split,
                roles: roles_of_split(split),
            };
            part.label(&mut entries, on_fault)?;
        }
    } else {
        let part = Part {
            root,
            paths: walk.paths.iter().map(String::as_str).collect(),
            skip: 0,
            split: "train",
            roles: (true, true),
        };
        part.label(&mut entries, on_fault)?;
    }
    walk.empty.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(Listing {
        root: root.to_owned(),
        entries,
        n_other: walk.n_other,
        empty: walk.empty,
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
    empty: Vec<Empty>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, on_fault: OnFault<'_>) -> Result<(), DataError> {
        let real = fs::canonicalize(folder).map_err(FileError::because("open", folder))?;
        if let Some(first) = self.seen.insert(real, folder.to_owned()) {
            return on_fault(DataError::FolderTwice {
                again: folder.to_owned(),
                first,
            });
        }
        let n_before = self.paths.len();
        for item in fs::read_dir(folder).map_err(FileError::because("list", folder))? {
            let path = item.map_err(FileError::because("list", folder))?.path();
            let name = path.file_name().unwrap_or_default();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if path.is_dir() {
                self.folder(&path, on_fault)?;
            } else if is_image(&path) {
                match self.relative(&path) {
                    Ok(path) => self.paths.push(path),
                    Err(err) => on_fault(err)?,
                }
            } else {
                self.n_other += 1;
            }
        }
        if self.paths.len() == n_before && folder != self.root {
            let path = self
                .relative(folder)
                .unwrap_or_else(|_| folder.display().to_string());
            let below = format!("{path}/");
            self.empty.retain(|empty| !empty.path.starts_with(&below));
            let is_split = SPLITS.contains(&path.as_str());
            self.empty.push(Empty { path, is_split });
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

/// Images whose paths name labels in the same way.
struct Part<'a> {
    root: &'a Path,
    paths: Vec<&'a str>,
    /// Bytes of each path before the label.
    skip: usize,
    split: &'a str,
    /// Whether the images ask, whether they are searched.
    roles: (bool, bool),
}

impl Part<'_> {
    /// Takes labels from folders, or from file names where there are no folders at all.
    fn label(&self, entries: &mut Vec<Entry>, on_fault: OnFault<'_>) -> Result<(), DataError> {
        let has_folders = self
            .paths
            .iter()
            .any(|path| path[self.skip..].contains('/'));
        for path in &self.paths {
            let name = &path[self.skip..];
            let label = match name.rsplit_once('/') {
                Some((folders, _)) => folders,
                None if has_folders => {
                    on_fault(DataError::Unlabeled {
                        path: self.root.join(path),
                    })?;
                    continue;
                }
                None => name.rsplit_once('.').map_or(name, |(stem, _)| stem),
            };
            entries.push(Entry {
                path: (*path).to_owned(),
                label: label.to_owned(),
                split: self.split.to_owned(),
                is_query: self.roles.0,
                is_gallery: self.roles.1,
            });
        }
        Ok(())
    }
}
