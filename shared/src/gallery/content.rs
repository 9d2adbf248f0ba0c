//! What a gallery holds, whatever the order of its rows.

use super::records::Records;
use super::{Codes, EncodedRow, Entry, GalleryError, RowFault};
use crate::fingerprint::{ContentHasher, Fingerprint, Fingerprinter, ImageId, SpaceId};

/// Collects what names a gallery's content: the image, label, name, picture and stored
/// bytes of each record that is not removed.
pub(super) struct Summary {
    records: Vec<Summarized>,
}

/// One record.
#[derive(Clone, Copy)]
pub(super) struct Summarized {
    pub(super) id: ImageId,
    pub(super) row_idx: u32,
    /// Names everything else that is stored of it.
    pub(super) content: Fingerprint,
}

impl Summary {
    /// Of at most this many records.
    pub(super) fn new(n_records: usize) -> Self {
        let records = Vec::with_capacity(n_records);
        Self { records }
    }

    /// Of all records but those that are removed.
    pub(super) fn of(
        codes: Codes,
        records: &impl Records,
        is_removed: impl Fn(usize) -> bool,
    ) -> Result<Self, GalleryError> {
        let mut summary = Self::new(records.n_records());
        for idx in 0..records.n_records() {
            if !is_removed(idx) {
                let (entry, encoded) = record(records, idx, codes)?;
                summary.add(idx, &entry, records.thumbnail(idx), &encoded);
            }
        }
        Ok(summary)
    }

    pub(super) fn add(
        &mut self,
        idx: usize,
        entry: &Entry<'_>,
        thumbnail: &[u8],
        encoded: &EncodedRow,
    ) {
        let mut hasher = ContentHasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(entry.label.as_bytes());
        field(entry.name.as_bytes());
        field(thumbnail);
        encoded.for_each_piece(field);
        self.records.push(Summarized {
            id: entry.id,
            row_idx: idx as u32,
            content: hasher.finish(),
        });
    }

    /// The records in the order of their ids.
    pub(super) fn sorted(mut self) -> Result<Vec<Summarized>, GalleryError> {
        self.records
            .sort_unstable_by_key(|record| (record.id, record.row_idx));
        for pair in self.records.windows(2) {
            if pair[0].id == pair[1].id {
                return Err(GalleryError::Twice {
                    id: pair[0].id,
                    first: pair[0].row_idx,
                    second: pair[1].row_idx,
                });
            }
        }
        Ok(self.records)
    }

    pub(super) fn finish(
        self,
        space: SpaceId,
        dim: usize,
        codes: Codes,
    ) -> Result<Fingerprint, GalleryError> {
        let mut all = ContentHasher::new();
        for record in self.sorted()? {
            all.update(&record.id.0);
            all.update(&record.content.0);
        }
        Ok(Fingerprinter::new("eyas gallery content")
            .field("space", &space.0.0)
            .field("dim", &(dim as u64).to_le_bytes())
            .field("codes", codes.to_string().as_bytes())
            .field("records", &all.finish().0)
            .finish())
    }
}

fn fault(idx: usize, what: &'static str) -> GalleryError {
    let row_idx = idx as u32;
    GalleryError::Row { row_idx, what }
}

pub(super) fn entry_of(records: &impl Records, idx: usize) -> Result<Entry<'_>, GalleryError> {
    let entry = records.entry(idx);
    entry.ok_or_else(|| fault(idx, "its name or label is missing"))
}

/// An image and its row, or what is wrong with them.
pub(super) fn record(
    records: &impl Records,
    idx: usize,
    codes: Codes,
) -> Result<(Entry<'_>, EncodedRow), GalleryError> {
    let entry = entry_of(records, idx)?;
    match records.encoded(idx, codes, codes) {
        Ok(encoded) => Ok((entry, encoded)),
        Err(RowFault::Unreadable(source)) => Err(GalleryError::Unreadable {
            row_idx: idx as u32,
            why: source.to_string(),
        }),
        Err(RowFault::NoDirection) => Err(fault(
            idx,
            "the embedding has no direction (all zero, or not finite)",
        )),
    }
}
