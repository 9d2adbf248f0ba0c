//! Which image files a query's arguments name, and their bytes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use eyas_shared::files::{self, FileError};
use eyas_shared::preprocess::Limits;

/// The images that the arguments name; folders are walked in the order of names.
pub(in crate::cli) fn list_images(
    arguments: &[PathBuf],
    failed: &mut impl FnMut(&anyhow::Error),
) -> Vec<PathBuf> {
    let mut images = Vec::new();
    for argument in arguments {
        if !argument.is_dir() {
            images.push(argument.clone());
            continue;
        }
        let mut walk = Walk {
            seen: BTreeSet::new(),
            images: Vec::new(),
            failed,
        };
        walk.folder(argument, 0);
        let found = walk.images;
        if found.is_empty() {
            let folder = argument.display();
            failed(&anyhow::anyhow!(
                "no image (jpg, jpeg, png, webp) in the folder `{folder}`"
            ));
        }
        images.extend(found);
    }
    images
}

/// Deeper folders are not walked, so that no tree exhausts the stack.
const MAX_DEPTH: usize = 32;

/// Collects the images below one argument. Hidden files and folders are left out.
struct Walk<'a, F> {
    /// Folders by what they really are, so that no link leads into one twice.
    seen: BTreeSet<PathBuf>,
    images: Vec<PathBuf>,
    failed: &'a mut F,
}

impl<F: FnMut(&anyhow::Error)> Walk<'_, F> {
    fn folder(&mut self, folder: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            let folder = folder.display();
            let fault = anyhow::anyhow!("`{folder}` lies more than {MAX_DEPTH} folders deep");
            return (self.failed)(&fault);
        }
        let entries = match self.entries(folder) {
            Ok(entries) => entries,
            Err(err) => return (self.failed)(&err.into()),
        };
        for path in entries {
            if path.is_dir() {
                self.folder(&path, depth + 1);
            } else if is_image_name(&path) {
                self.images.push(path);
            }
        }
    }

    /// What lies in a folder, sorted by name; nothing if that folder was seen before.
    fn entries(&mut self, folder: &Path) -> Result<Vec<PathBuf>, FileError> {
        let real = fs::canonicalize(folder).map_err(FileError::because("open folder", folder))?;
        if !self.seen.insert(real) {
            return Ok(Vec::new());
        }
        let mut paths = fs::read_dir(folder)
            .and_then(|entries| {
                entries
                    .map(|entry| Ok(entry?.path()))
                    .collect::<std::io::Result<Vec<_>>>()
            })
            .map_err(FileError::because("read folder", folder))?;
        paths.retain(|path| !is_hidden(path));
        paths.sort();
        Ok(paths)
    }
}

pub(in crate::cli) fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".")
}

pub(in crate::cli) fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| {
        ["jpg", "jpeg", "png", "webp"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

pub(in crate::cli) fn read_image(image: &Path) -> anyhow::Result<Vec<u8>> {
    let max_bytes = Limits::DEFAULT.max_bytes;
    if image != Path::new("-") {
        return Ok(files::read(image, max_bytes)?);
    }
    let mut bytes = Vec::new();
    // One byte more than allowed, for the decoder to refuse.
    let mut input = std::io::stdin().lock().take(max_bytes + 1);
    input
        .read_to_end(&mut bytes)
        .context("could not read standard input")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_known_by_their_extension_in_any_case() {
        for name in ["a.jpg", "a.JPEG", "a.Png", "b/c.webp"] {
            assert!(is_image_name(Path::new(name)), "{name}");
        }
        for name in ["a.txt", "jpg", ".jpg", "a.jpg.part"] {
            assert!(!is_image_name(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn folders_are_walked_in_order_and_an_empty_one_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("b/deep")).unwrap();
        std::fs::create_dir_all(root.join("empty")).unwrap();
        for name in ["c.jpg", "b/deep/x.PNG", "a.webp", "notes.txt"] {
            std::fs::write(root.join(name), b"").unwrap();
        }
        let mut faults = Vec::new();
        let arguments = [root.to_owned(), root.join("empty"), PathBuf::from("-")];
        let images = list_images(&arguments, &mut |err| faults.push(err.to_string()));
        let expected = ["a.webp", "b/deep/x.PNG", "c.jpg"].map(|name| root.join(name));
        assert_eq!(images[..3], expected);
        assert_eq!(images[3..], [PathBuf::from("-")]);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("no image (jpg, jpeg, png, webp) in the folder"));
    }
    #[test]
    fn hidden_files_are_left_out_and_links_are_followed_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["a", "b", ".hidden"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        for name in ["a/x.jpg", "b/y.jpg", ".hidden/z.jpg", "b/._y.jpg"] {
            fs::write(root.join(name), b"").unwrap();
        }
        let link = |to: &Path, at: &str| std::os::unix::fs::symlink(to, root.join(at)).unwrap();
        link(root, "a/up");
        link(&root.join("a"), "b/again");
        let no_fault = &mut |err: &anyhow::Error| panic!("{err}");
        let images = list_images(&[root.to_owned()], no_fault);
        let expected = ["a/x.jpg", "b/y.jpg"].map(|name| root.join(name));
        assert_eq!(images, expected);
    }
}
