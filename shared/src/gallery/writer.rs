//! Lays out galleries, a section at a time.

use std::collections::BTreeSet;
use std::io::{self, Cursor, Seek, Write};

use half::f16;
use serde::Serialize;

use super::codes::{INT2_BLOCK, INT8_BLOCK, int2_columns, int2_low_bytes};
use super::content::{Summary, entry_of, record};
use super::int8::{high_row, int8_columns, low_row};
use super::records::{Fresh, Records};
use super::strings;
use super::{
    Codes, EncodedRow, Entry, Gallery, GalleryError, GalleryHeader, IDS, INT2, INT2_FACTORS,
    INT2_LOW, INT8, INT8_LOW, INT8_SCALES, LABEL_OF_ROW, LABELS, NAMES, REMOVED, ROWS, SCHEMA_KEY,
    THUMBNAILS, written_version,
};
use crate::container::{Kind, Pieces, Sink, Writer};
use crate::embedding::Embeddings;
use crate::fingerprint::{Fingerprint, SpaceId};

/// What goes into a new gallery beside its records.
#[derive(Clone, Debug)]
pub struct GallerySource {
    /// The space of the embeddings.
    pub space: SpaceId,
    /// Name of the teacher.
    pub teacher: String,
    /// Fingerprint of the manifest.
    pub manifest: Fingerprint,
    /// How rows are to be stored.
    pub codes: Codes,
}

impl GallerySource {
    /// What this gallery says beside its records.
    #[must_use]
    pub fn of(gallery: &Gallery<'_>) -> Self {
        Self {
            space: gallery.header.space,
            teacher: gallery.header.teacher.clone(),
            manifest: gallery.header.manifest,
            codes: gallery.codes(),
        }
    }
}

/// Every label once, in alphabetical order.
fn labels_of(records: &impl Records) -> Result<Vec<String>, GalleryError> {
    let mut labels = BTreeSet::new();
    for idx in 0..records.n_records() {
        let label = entry_of(records, idx)?.label;
        if !labels.contains(label) {
            labels.insert(label.to_owned());
        }
    }
    Ok(labels.into_iter().collect())
}

/// A gallery that is ready to be written: everything that could be wrong was looked at.
///
/// Besides the records it holds some 20 bytes a row, 60 more while it is made, and, while
/// 2-bit codes are written, a bit for each component.
pub struct Plan<'r, R> {
    records: &'r R,
    header: GalleryHeader,
    labels: Vec<String>,
    label_of_row: Vec<u32>,
    removed: Vec<u8>,
    /// Factors of 2-bit codes and scales of int8 codes; empty without those.
    factors: Vec<[f16; 2]>,
    scales: Vec<f32>,
    has_thumbnails: bool,
}

#[derive(Serialize)]
struct StoredHeader<'h> {
    schema_key: [u8; 8],
    fields: &'h GalleryHeader,
}

impl<'r, R: Records> Plan<'r, R> {
    /// Looks at every record. Labels are numbered in alphabetical order.
    ///
    /// # Errors
    /// If there is no record, one has no direction or damaged strings, an image occurs
    /// twice, or an offset would not fit.
    pub fn new(source: &GallerySource, records: &'r R) -> Result<Self, GalleryError> {
        Self::with_removed(source, records, |_| false)
    }

    /// [`new`](Self::new), with some of the records marked as removed.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_removed(
        source: &GallerySource,
        records: &'r R,
        is_removed: impl Fn(usize) -> bool,
    ) -> Result<Self, GalleryError> {
        let header_fault = |what| Err(GalleryError::Header { what });
        let n_rows = records.n_records();
        if n_rows == 0 {
            return header_fault("no images".to_owned());
        }
        if n_rows >= u32::MAX as usize {
            return header_fault(format!("{n_rows} images are too many"));
        }
        if !source.codes.can_score() {
            return header_fault(format!("codes `{}` can not score", source.codes));
        }
        let labels = labels_of(records)?;
        let codes = source.codes;
        let mut summary = Summary::new(n_rows);
        let capacity = |is_there: bool| if is_there { n_rows } else { 0 };
        let mut factors = Vec::with_capacity(capacity(codes.int2));
        let mut scales = Vec::with_capacity(capacity(codes.int8));
        let mut label_of_row = Vec::with_capacity(n_rows);
        let mut removed = vec![0_u8; n_rows.div_ceil(8)];
        let mut n_removed = 0;
        let mut has_thumbnails = false;
        for idx in 0..n_rows {
            let (entry, encoded) = record(records, idx, source.codes)?;
            let label_idx = labels
                .binary_search_by(|label| label.as_str().cmp(entry.label))
                .expect("collected above");
            label_of_row.push(label_idx as u32);
            if codes.int2 {
                factors.push(encoded.factors);
            }
            if codes.int8 {
                scales.push(encoded.scale);
            }
            let thumbnail = records.thumbnail(idx);
            has_thumbnails |= !thumbnail.is_empty();
            if is_removed(idx) {
                removed[idx / 8] |= 1 << (idx % 8);
                n_removed += 1;
            } else {
                summary.add(idx, &entry, thumbnail, &encoded);
            }
        }
        let content = summary.finish(source.space, records.dim(), source.codes)?;
        let plan = Self {
            header: GalleryHeader {
                space: source.space,
                dim: records.dim() as u32,
                n_rows: n_rows as u32,
                n_removed,
                n_labels: labels.len() as u32,
                codes: source.codes,
                teacher: source.teacher.clone(),
                manifest: source.manifest,
                content: Some(content),
            },
            records,
            labels,
            label_of_row,
            removed,
            factors,
            scales,
            has_thumbnails,
        };
        if [plan.names_len(), plan.labels_len(), plan.thumbnails_len()].contains(&None) {
            return header_fault("4 GiB of names, labels or thumbnails".to_owned());
        }
        Ok(plan)
    }

    /// What the gallery will say of itself.
    #[must_use]
    pub fn header(&self) -> &GalleryHeader {
        &self.header
    }

    /// The gallery's bytes. The same records give the same bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Cursor::new(Vec::new());
        self.write(&mut out).expect("memory takes what it is given");
        out.into_inner()
    }

    /// Writes the gallery to an empty file, a section at a time.
    ///
    /// # Errors
    /// If the file can not be written.
    pub fn write(&self, out: &mut (impl Write + Seek)) -> io::Result<()> {
        let mut out = Pieces::new(out);
        let Codes { int2, int8, rows } = self.header.codes;
        let n_optional = 3 * usize::from(int2) + 3 * usize::from(int8);
        let n_present = [
            rows.is_some(),
            self.has_thumbnails,
            self.header.n_removed > 0,
        ]
        .into_iter()
        .filter(|present| *present)
        .count();
        let header = StoredHeader {
            schema_key: SCHEMA_KEY,
            fields: &self.header,
        };
        let n_sections = 4 + n_optional + n_present;
        let version = written_version(self.header.codes);
        let mut file = Writer::begin(&mut out, Kind::Gallery, version, &header, n_sections)?;
        if int2 {
            self.write_int2(&mut file)?;
        }
        if int8 {
            self.write_int8(&mut file)?;
        }
        if let Some(encoding) = rows {
            let n_bytes = self.n_rows() * self.records.dim() * encoding.component_bytes();
            let part = Codes::from(encoding);
            file.section(ROWS, n_bytes as u64, |sink| {
                self.encoded_rows(part)
                    .try_for_each(|encoded| sink.write_all(&encoded?.row))
            })?;
        }
        self.write_entries(&mut file)?;
        file.finish()
    }

    fn n_rows(&self) -> usize {
        self.header.n_rows as usize
    }

    /// The rows, of which only some codes are needed.
    fn encoded_rows(&self, part: Codes) -> impl Iterator<Item = io::Result<EncodedRow>> {
        (0..self.n_rows()).map(move |idx| {
            self.records
                .encoded(idx, self.header.codes, part)
                .map_err(io::Error::other)
        })
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.n_rows()).map(|idx| self.records.entry(idx).expect("records do not change"))
    }

    fn write_int2<W: Write + Seek>(&self, file: &mut Writer<'_, W>) -> io::Result<()> {
        let columns = int2_columns(self.records.dim());
        let n_padded = self.n_rows().next_multiple_of(INT2_BLOCK);
        // Low bits wait in memory: encoding twice would take longer than everything else.
        let mut low_bits = Vec::with_capacity(self.n_rows() * columns);
        file.section(INT2, (n_padded * columns) as u64, |sink| {
            let high_bits = self.encoded_rows(Codes::INT2).map(|encoded| {
                let [high, low] = encoded?.int2;
                low_bits.extend_from_slice(&low);
                Ok(high)
            });
            write_blocks(sink, high_bits, INT2_BLOCK, columns, 1)
        })?;
        file.section(INT2_FACTORS, 2 * n_padded as u64, |sink| {
            for [of_high, _] in &self.factors {
                sink.write_all(&of_high.to_le_bytes())?;
            }
            sink.write_all(&vec![0; 2 * (n_padded - self.n_rows())])
        })?;
        let n_low_bytes = self.n_rows() * int2_low_bytes(columns);
        file.section(INT2_LOW, n_low_bytes as u64, |sink| {
            for (bits, [_, of_both]) in low_bits.chunks_exact(columns).zip(&self.factors) {
                sink.write_all(bits)?;
                sink.write_all(&of_both.to_le_bytes())?;
            }
            Ok(())
        })
    }

    fn write_int8<W: Write + Seek>(&self, file: &mut Writer<'_, W>) -> io::Result<()> {
        let dim = self.records.dim();
        let columns = int8_columns(dim);
        let n_padded = self.n_rows().next_multiple_of(INT8_BLOCK);
        let codes = || {
            let rows = self.encoded_rows(Codes::INT8);
            rows.map(move |encoded| {
                let mut codes = encoded?.int8;
                codes.truncate(dim);
                Ok::<_, io::Error>(codes)
            })
        };
        file.section(INT8, (4 * n_padded * columns) as u64, |sink| {
            let rows = codes().map(|codes| Ok(high_row(&codes?)));
            write_blocks(sink, rows, INT8_BLOCK, columns, 4)
        })?;
        file.section(INT8_SCALES, 4 * n_padded as u64, |sink| {
            for scale in &self.scales {
                sink.write_all(&scale.to_le_bytes())?;
            }
            sink.write_all(&vec![0; 4 * (n_padded - self.n_rows())])
        })?;
        file.section(INT8_LOW, (4 * self.n_rows() * columns) as u64, |sink| {
            codes().try_for_each(|codes| sink.write_all(&low_row(&codes?).collect::<Vec<_>>()))
        })
    }

    fn write_entries<W: Write + Seek>(&self, file: &mut Writer<'_, W>) -> io::Result<()> {
        let n_rows = self.n_rows() as u64;
        file.section(IDS, 16 * n_rows, |sink| {
            self.entries()
                .try_for_each(|entry| sink.write_all(&entry.id.0))
        })?;
        file.section(LABEL_OF_ROW, 4 * n_rows, |sink| {
            self.label_of_row
                .iter()
                .try_for_each(|label_idx| sink.write_all(&label_idx.to_le_bytes()))
        })?;
        let checked = "offsets were checked with the plan";
        file.section(LABELS, self.labels_len().expect(checked), |sink| {
            strings::write(sink, || self.labels.iter().map(String::as_bytes))
        })?;
        file.section(NAMES, self.names_len().expect(checked), |sink| {
            strings::write(sink, || self.names())
        })?;
        if self.has_thumbnails {
            file.section(THUMBNAILS, self.thumbnails_len().expect(checked), |sink| {
                strings::write(sink, || self.thumbnails())
            })?;
        }
        if self.header.n_removed > 0 {
            file.section(REMOVED, self.removed.len() as u64, |sink| {
                sink.write_all(&self.removed)
            })?;
        }
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.entries().map(|entry| entry.name.as_bytes())
    }

    fn thumbnails(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.n_rows()).map(|idx| self.records.thumbnail(idx))
    }

    fn names_len(&self) -> Option<u64> {
        strings::section_len(self.names())
    }

    fn labels_len(&self) -> Option<u64> {
        strings::section_len(self.labels.iter().map(String::as_bytes))
    }

    fn thumbnails_len(&self) -> Option<u64> {
        strings::section_len(self.thumbnails())
    }
}

/// Interleaves rows of codes: `columns` units of `unit` bytes each, a block of `block` rows
/// at a time; missing rows are 0.
fn write_blocks<W: Write>(
    sink: &mut Sink<'_, W>,
    mut rows: impl Iterator<Item = io::Result<impl AsRef<[u8]>>>,
    block: usize,
    columns: usize,
    unit: usize,
) -> io::Result<()> {
    let mut bytes = vec![0; block * columns * unit];
    loop {
        bytes.fill(0);
        let mut n_rows = 0;
        for (in_block, row) in rows.by_ref().take(block).enumerate() {
            let row = row?;
            for (column, codes) in row.as_ref().chunks_exact(unit).enumerate() {
                bytes[(column * block + in_block) * unit..][..unit].copy_from_slice(codes);
            }
            n_rows += 1;
        }
        if n_rows == 0 {
            return Ok(());
        }
        sink.write_all(&bytes)?;
    }
}

/// Lays out a gallery of embeddings in memory. Row `i` of `embeddings` belongs to
/// `entries[i]`; rows are scaled to length 1. The same input gives the same bytes.
///
/// # Errors
/// As [`Plan::new`], and if rows and entries differ in number.
pub fn write(
    source: &GallerySource,
    embeddings: &Embeddings,
    entries: &[Entry<'_>],
) -> Result<Vec<u8>, GalleryError> {
    if embeddings.n_rows() != entries.len() {
        let (n_rows, n_entries) = (embeddings.n_rows(), entries.len());
        let what = format!("{n_rows} embeddings for {n_entries} images");
        return Err(GalleryError::Header { what });
    }
    let records = Fresh {
        rows: embeddings,
        entries,
        thumbnails: &[],
    };
    Ok(Plan::new(source, &records)?.to_bytes())
}
