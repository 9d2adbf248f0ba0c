//! Cars-196 (Krause et al., 2013): `cars_annos.mat` beside the folder `car_ims`.
//!
//! The first half of the class numbers trains, the second tests; the field `test`, which
//! parts the images of each class, is not meant for retrieval and not read.

use std::path::Path;

use eyas_shared::files;

use super::DataError;
use super::listing::{Entry, Listing};
use super::mat::{self, MatFault, Value};

/// The list's name.
pub(super) const LIST: &str = "cars_annos.mat";
/// Largest list that is read.
const MAX_BYTES: u64 = 256 << 20;

/// Lists the images in the order of the annotations.
pub(super) fn list(root: &Path) -> Result<Listing, DataError> {
    let path = root.join(LIST);
    let bytes = files::read(&path, MAX_BYTES)?;
    let entries = entries(&bytes).map_err(|source| DataError::Mat { path, source })?;
    Ok(Listing {
        root: root.to_owned(),
        entries,
        n_other: 0,
        empty: Vec::new(),
    })
}

fn entries(bytes: &[u8]) -> Result<Vec<Entry>, MatFault> {
    let variables = mat::read(bytes)?;
    let find = |name: &str| variables.iter().find(|(known, _)| known == name);
    let missing = |what: &str| MatFault::Content {
        what: what.to_owned(),
    };
    let annotations = find("annotations").and_then(|(_, value)| value.elements());
    let annotations = annotations.ok_or_else(|| missing("structure array `annotations`"))?;
    let names: Vec<&str> = match find("class_names") {
        Some((_, Value::Cells(names))) => names.iter().filter_map(Value::text).collect(),
        _ => Vec::new(),
    };
    let mut images = Vec::new();
    for (i, annotation) in annotations.enumerate() {
        let path = annotation.get("relative_im_path").and_then(Value::text);
        let class = annotation.get("class").and_then(Value::whole);
        match path.zip(class) {
            Some((path, class)) if class > 0 => images.push((path, class)),
            _ => {
                let what = format!(
                    "text `relative_im_path` and number `class` from 1 in annotation {}",
                    i + 1
                );
                return Err(MatFault::Content { what });
            }
        }
    }
    let half = images.iter().map(|(_, class)| *class).max().unwrap_or(0) / 2;
    let entry = |(path, class): (&str, usize)| {
        let is_train = class <= half;
        Entry {
            path: path.to_owned(),
            label: names
                .get(class - 1)
                .map_or_else(|| class.to_string(), |name| (*name).to_owned()),
            split: if is_train { "train" } else { "test" }.to_owned(),
            is_query: !is_train,
            is_gallery: !is_train,
        }
    };
    Ok(images.into_iter().map(entry).collect())
}
