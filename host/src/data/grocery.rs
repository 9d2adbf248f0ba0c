//! The lists of the Grocery Store Dataset (Klasson, Zhang and Kjellström, WACV 2019).

use std::collections::BTreeMap;
use std::path::Path;

use csv::ReaderBuilder;
use eyas_shared::files;

use super::DataError;
use super::csv::describe;
use super::listing::{Empty, Entry, Listing, OnFault, roles_of_split};

/// Largest list that is read.
const MAX_BYTES: u64 = 64 << 20;

/// Split of the product shots that `classes.csv` names.
const ICONIC: &str = "iconic";

/// Class names by their number, and the iconic images.
struct Classes {
    names: BTreeMap<u32, String>,
    iconic: Vec<Entry>,
}

/// Lists train, val, test (where there) and iconic images, each in the order of its list.
pub(super) fn list(root: &Path, on_fault: OnFault<'_>) -> Result<Listing, DataError> {
    let classes = read_classes(&root.join("classes.csv"))?;
    let mut entries = Vec::new();
    let mut empty = Vec::new();
    for split in ["train", "val", "test"] {
        let path = root.join(format!("{split}.txt"));
        if path.exists() {
            let before = entries.len();
            read_images(&path, split, &classes, &mut entries, on_fault)?;
            if entries.len() == before {
                empty.push(Empty {
                    path: format!("{split}.txt"),
                    is_split: true,
                });
            }
        }
    }
    entries.extend(classes.iconic);
    Ok(Listing {
        root: root.to_owned(),
        entries,
        n_other: 0,
        empty,
    })
}

/// Reads lines `name,number,coarse name,coarse number,iconic image,description`.
fn read_classes(path: &Path) -> Result<Classes, DataError> {
    let bytes = files::read(path, MAX_BYTES)?;
    let fault = |line: u64, problem: String| DataError::Line {
        path: path.to_owned(),
        line,
        problem,
    };
    let mut reader = ReaderBuilder::new().from_reader(bytes.as_slice());
    let mut classes = Classes {
        names: BTreeMap::new(),
        iconic: Vec::new(),
    };
    for record in reader.records() {
        let record = record.map_err(|err| {
            fault(
                err.position().map_or(1, csv::Position::line),
                describe(&err),
            )
        })?;
        let line = record.position().map_or(0, csv::Position::line);
        let field = |i: usize| record.get(i).unwrap_or_default().trim();
        let (name, number, iconic) = (field(0), field(1), field(4));
        if name.is_empty() {
            return Err(fault(line, "the class has no name".to_owned()));
        }
        let number: u32 = number
            .parse()
            .map_err(|_| fault(line, format!("class number `{number}` is no whole number")))?;
        if let Some(other) = classes.names.insert(number, name.to_owned()) {
            let problem = format!("class {number} is `{name}`, and `{other}` before");
            return Err(fault(line, problem));
        }
        if !iconic.is_empty() {
            classes.iconic.push(Entry {
                path: iconic.trim_start_matches('/').to_owned(),
                label: name.to_owned(),
                split: ICONIC.to_owned(),
                is_query: false,
                is_gallery: false,
            });
        }
    }
    Ok(classes)
}

/// Reads lines `path, class number, coarse class number`.
fn read_images(
    path: &Path,
    split: &str,
    classes: &Classes,
    entries: &mut Vec<Entry>,
    on_fault: OnFault<'_>,
) -> Result<(), DataError> {
    let bytes = files::read(path, MAX_BYTES)?;
    for (i, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        match read_line(line, split, classes) {
            Ok(entry) => entries.extend(entry),
            Err(problem) => on_fault(DataError::Line {
                path: path.to_owned(),
                line: i as u64 + 1,
                problem,
            })?,
        }
    }
    Ok(())
}

/// `None` for an empty line.
fn read_line(line: &[u8], split: &str, classes: &Classes) -> Result<Option<Entry>, String> {
    let line = str::from_utf8(line)
        .map_err(|_| "the text is not UTF-8; save the list as UTF-8".to_owned())?
        .trim();
    if line.is_empty() {
        return Ok(None);
    }
    let mut fields = line.rsplitn(3, ',').map(str::trim);
    let (_coarse, number, image) = (fields.next(), fields.next(), fields.next());
    let (Some(number), Some(image)) = (number, image.filter(|path| !path.is_empty())) else {
        return Err(format!(
            "`{line}` is not `path, class number, coarse class number`"
        ));
    };
    let label = number
        .parse()
        .ok()
        .and_then(|number: u32| classes.names.get(&number))
        .ok_or_else(|| format!("class number `{number}` is not in classes.csv"))?;
    let (is_query, is_gallery) = roles_of_split(split);
    Ok(Some(Entry {
        path: image.to_owned(),
        label: label.clone(),
        split: split.to_owned(),
        is_query,
        is_gallery,
    }))
}
