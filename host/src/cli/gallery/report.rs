//! What a gallery file is, for people and for scripts.

use std::path::{Path, PathBuf};

use eyas_device::matcher::Matcher;
use eyas_device::store::MappedFile;
use eyas_shared::gallery::delta::Delta;
use eyas_shared::gallery::{GalleryHeader, Rows};
use serde_json::{Map, Value, json};

use super::say;
use crate::gallery::recall::{self, Recall};

/// Rates of a serial cable that expected times are told for.
const BAUD_RATES: [u32; 4] = [115_200, 460_800, 921_600, 3_000_000];

/// Share of the cable's bytes that are a file's: the link's frames and acknowledgements take
/// the rest.
const LINK_SHARE: f64 = 0.95;

/// Bits on the cable for a byte: start, eight, stop.
const BITS_OF_A_BYTE: f64 = 10.0;

/// Milliseconds that a file takes over a cable.
fn transfer_ms(n_bytes: u64, baud: u32) -> f64 {
    n_bytes as f64 * BITS_OF_A_BYTE * 1000.0 / (f64::from(baud) * LINK_SHARE)
}

fn transfers(n_bytes: u64) -> Value {
    let times = BAUD_RATES.map(|baud| (baud.to_string(), json!(transfer_ms(n_bytes, baud).ceil())));
    Value::Object(times.into_iter().collect())
}

fn transfer_line(n_bytes: u64) -> String {
    let times = BAUD_RATES.map(|baud| format!("{:.0} at {baud}", transfer_ms(n_bytes, baud)));
    format!(
        "  milliseconds over a cable, by baud rate: {}",
        times.join(", ")
    )
}

/// What a gallery file is.
pub(super) struct Report {
    path: PathBuf,
    header: GalleryHeader,
    version: u16,
    n_bytes: u64,
    sections: Vec<(String, usize)>,
    has_thumbnails: bool,
    recall: Option<Recall>,
    /// Facts that only some commands know.
    more: Map<String, Value>,
}

impl Report {
    /// Opens the file.
    pub(super) fn of_file(path: &Path) -> anyhow::Result<Self> {
        let file = MappedFile::open(path)?;
        let gallery = file.gallery()?;
        Ok(Self {
            path: path.to_owned(),
            header: gallery.header.clone(),
            version: gallery.version(),
            n_bytes: file.bytes().len() as u64,
            sections: gallery.sections().collect(),
            has_thumbnails: gallery.has_thumbnails(),
            recall: None,
            more: Map::new(),
        })
    }

    /// Opens the file and asks it: row `i` of `exact` is what its row `i` was made of.
    pub(super) fn measured(path: &Path, exact: &impl Rows) -> anyhow::Result<Self> {
        let mut report = Self::of_file(path)?;
        let file = MappedFile::open(path)?;
        report.recall = recall::measure(exact, &Matcher::new(file.gallery()?))?;
        Ok(report)
    }

    /// Adds a fact for scripts.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    fn n_images(&self) -> u32 {
        self.header.n_rows - self.header.n_removed
    }

    pub(super) fn show(&self, as_json: bool) {
        if as_json {
            say(&self.to_json().to_string());
        } else {
            self.lines().iter().for_each(|line| say(line));
        }
    }

    fn to_json(&self) -> Value {
        let header = &self.header;
        let sections = self.sections.iter();
        let sections: Vec<_> = sections
            .map(|(tag, bytes)| json!({ "tag": tag, "bytes": bytes }))
            .collect();
        let recall = self.recall.map(|recall| {
            json!({
                "n_queries": recall.n_queries,
                "at_1": recall.at_1,
                "at_10": recall.at_10,
            })
        });
        let mut object = json!({
            "schema": "eyas.gallery/1",
            "path": self.path.display().to_string(),
            "version": self.version,
            "space_id": header.space.0.to_string(),
            "dim": header.dim,
            "n_rows": header.n_rows,
            "n_images": self.n_images(),
            "n_removed": header.n_removed,
            "n_labels": header.n_labels,
            "codes": header.codes.to_string(),
            "content": header.content.map(|content| content.to_string()),
            "teacher": header.teacher,
            "manifest": header.manifest.to_string(),
            "bytes": self.n_bytes,
            "sections": sections,
            "has_thumbnails": self.has_thumbnails,
            "transfer_ms": transfers(self.n_bytes),
            "recall": recall,
        });
        if let Some(object) = object.as_object_mut() {
            object.extend(self.more.clone());
        }
        object
    }

    fn lines(&self) -> Vec<String> {
        let header = &self.header;
        let removed = match header.n_removed {
            0 => String::new(),
            n => format!(" and {n} removed rows"),
        };
        let content = header.content.map_or_else(
            || "without a name of its content".to_owned(),
            |content| format!("content {}", content.short()),
        );
        let mut lines = vec![
            format!(
                "gallery of {} images{removed} with {} labels, {} dimensions in {}, space {}: {}",
                self.n_images(),
                header.n_labels,
                header.dim,
                header.codes,
                header.space,
                self.path.display()
            ),
            format!(
                "  embedded by {}, manifest {}, {content}, format version {}",
                header.teacher,
                header.manifest.short(),
                self.version
            ),
        ];
        let sections = self.sections.iter();
        let sections: Vec<_> = sections
            .map(|(tag, bytes)| format!("{} {bytes}", tag.trim()))
            .collect();
        lines.push(format!("  {} bytes: {}", self.n_bytes, sections.join(", ")));
        lines.push(transfer_line(self.n_bytes));
        if let Some(recall) = self.recall {
            lines.push(format!(
                "  recall@1 {:.4}, recall@10 {:.4} of exact f32 scores, by {} of its own rows",
                recall.at_1, recall.at_10, recall.n_queries
            ));
        }
        lines
    }
}

/// One line about a delta that was written or read.
pub(super) fn delta_line(bytes: &[u8], path: &Path) -> String {
    let path = path.display();
    match Delta::read(bytes) {
        Err(err) => format!("`{path}`: {err}"),
        Ok(delta) => {
            let header = &delta.header;
            format!(
                "delta of {} bytes, {} records go and {} come, from content {} to {}: {path}\n{}",
                bytes.len(),
                header.n_removed,
                header.n_added,
                header.base.short(),
                header.result.short(),
                transfer_line(bytes.len() as u64)
            )
        }
    }
}

/// What a delta is, for scripts.
pub(super) fn delta_json(delta: &Delta<'_>, n_bytes: u64, path: &Path) -> Value {
    let header = &delta.header;
    json!({
        "schema": "eyas.gallery-delta/1",
        "path": path.display().to_string(),
        "space_id": header.space.0.to_string(),
        "dim": header.dim,
        "codes": header.codes.to_string(),
        "base": header.base.to_string(),
        "result": header.result.to_string(),
        "n_removed": header.n_removed,
        "n_added": header.n_added,
        "n_images": header.n_images,
        "teacher": header.teacher,
        "manifest": header.manifest.to_string(),
        "bytes": n_bytes,
        "transfer_ms": transfers(n_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_takes_ten_bits_and_the_link_its_share() {
        // 11520 bytes a second, of which 10944 are the file's.
        assert_eq!(transfer_ms(10_944, 115_200), 1000.0);
    }
}
