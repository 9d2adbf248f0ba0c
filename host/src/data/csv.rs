//! The CSV form of a manifest: one line per image.

use std::collections::BTreeMap;
use std::path::Path;

use csv::{ReaderBuilder, StringRecord, Trim, Writer};
use eyas_shared::files;

use super::DataError;
use super::listing::{Entry, Listing, OnFault, roles_of_split};
use super::manifest::Manifest;

/// Largest list that is read.
const MAX_BYTES: u64 = 1 << 30;

const COLUMNS: [&str; 5] = ["label", "path", "split", "is_query", "is_gallery"];

/// Names closer than this to a column's are taken for a slip of the pen (Jaro-Winkler).
const TYPO_SIMILARITY: f64 = 0.9;

/// Where each known column stands.
struct Header {
    label: usize,
    path: usize,
    split: Option<usize>,
    is_query: Option<usize>,
    is_gallery: Option<usize>,
}

/// Lists the images of a CSV file in its order.
pub(super) fn list(path: &Path, on_fault: OnFault<'_>) -> Result<Listing, DataError> {
    let bytes = files::read(path, MAX_BYTES)?;
    let fault = |line: u64, problem: String| DataError::Line {
        path: path.to_owned(),
        line,
        problem,
    };
    let unreadable = |err: csv::Error| {
        let line = err.position().map_or(1, csv::Position::line);
        fault(line, describe(&err))
    };
    let mut reader = ReaderBuilder::new()
        .trim(Trim::All)
        .from_reader(bytes.as_slice());
    let header =
        Header::read(reader.headers().map_err(unreadable)?).map_err(|problem| fault(1, problem))?;
    let mut lines_of_paths: BTreeMap<String, u64> = BTreeMap::new();
    let mut entries = Vec::new();
    for record in reader.records() {
        let checked = record.map_err(unreadable).and_then(|record| {
            let line = record.position().map_or(0, csv::Position::line);
            let entry = header
                .entry(&record)
                .map_err(|problem| fault(line, problem))?;
            match lines_of_paths.insert(entry.path.clone(), line) {
                None => Ok(entry),
                Some(first) => {
                    let problem = format!("path `{}` already stands in line {first}", entry.path);
                    Err(fault(line, problem))
                }
            }
        });
        match checked {
            Ok(entry) => entries.push(entry),
            Err(err) => on_fault(err)?,
        }
    }
    Ok(Listing {
        root: files::folder_of(path).to_owned(),
        entries,
        n_other: 0,
        empty: Vec::new(),
    })
}

impl Header {
    fn read(names: &StringRecord) -> Result<Self, String> {
        let find = |column: &str| names.iter().position(|name| name == column);
        let need = |column: &str| {
            find(column).ok_or_else(|| {
                let found: Vec<&str> = names.iter().collect();
                format!(
                    "column `{column}` is missing among `{}`; the columns are {}, the last three optional",
                    found.join(","),
                    COLUMNS.join(",")
                )
            })
        };
        for (i, name) in names.iter().enumerate() {
            if names.iter().take(i).any(|earlier| earlier == name) {
                return Err(format!("column `{name}` stands there twice"));
            }
            let lower = name.to_lowercase();
            let near = COLUMNS
                .iter()
                .find(|column| strsim::jaro_winkler(column, &lower) >= TYPO_SIMILARITY);
            if let Some(column) = near.filter(|_| !COLUMNS.contains(&name)) {
                return Err(format!("column `{name}` is unknown; is it `{column}`?"));
            }
        }
        Ok(Self {
            label: need("label")?,
            path: need("path")?,
            split: find("split"),
            is_query: find("is_query"),
            is_gallery: find("is_gallery"),
        })
    }

    fn entry(&self, record: &StringRecord) -> Result<Entry, String> {
        let filled = |column: &str, i: usize| match record.get(i).unwrap_or_default() {
            "" => Err(format!("column `{column}` is empty")),
            value => Ok(value.to_owned()),
        };
        let flag = |column: &str, i: Option<usize>, default: bool| match i {
            None => Ok(default),
            Some(i) => parse_bool(record.get(i).unwrap_or_default()).map_err(|found| {
                format!("column `{column}` holds `{found}`; it takes 0, 1, true or false")
            }),
        };
        let split = match self.split {
            None => "train".to_owned(),
            Some(i) => filled("split", i)?,
        };
        let (is_query, is_gallery) = match self.split {
            None => (true, true),
            Some(_) => roles_of_split(&split),
        };
        Ok(Entry {
            path: filled("path", self.path)?,
            label: filled("label", self.label)?,
            is_query: flag("is_query", self.is_query, is_query)?,
            is_gallery: flag("is_gallery", self.is_gallery, is_gallery)?,
            split,
        })
    }
}

fn parse_bool(text: &str) -> Result<bool, &str> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" | "" => Ok(false),
        _ => Err(text),
    }
}

/// What the CSV reader found, without the place: the caller names that.
pub(super) fn describe(err: &csv::Error) -> String {
    match err.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("{len} fields, the header has {expected_len}"),
        csv::ErrorKind::Utf8 { .. } => "the text is not UTF-8; save the list as UTF-8".to_owned(),
        _ => err.to_string(),
    }
}

/// Writes a manifest so that [`list`] gives it back.
pub(super) fn write(manifest: &Manifest) -> String {
    let mut writer = Writer::from_writer(Vec::new());
    let rows = manifest.images.iter().map(|image| {
        [
            image.label.as_str(),
            image.path.as_str(),
            image.split.as_str(),
            if image.is_query { "1" } else { "0" },
            if image.is_gallery { "1" } else { "0" },
        ]
    });
    for row in std::iter::once(COLUMNS).chain(rows) {
        writer
            .write_record(row)
            .expect("rows of five fields fit a growing buffer");
    }
    let bytes = writer
        .into_inner()
        .expect("a growing buffer takes every byte");
    String::from_utf8(bytes).expect("every field was text")
}
