//! Lays out galleries, from fresh embeddings or from records of other galleries.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Cursor, Seek, Write};

use serde::Serialize;

use super::codes::{INT2_BLOCK, INT8_BLOCK, int2_columns, int8_columns};
use super::strings;
use super::{
    Codes, EncodedRow, Entry, Gallery, GalleryError, GalleryHeader, IDS, INT2, INT2_FACTORS, INT8,
    INT8_SCALES, LABEL_OF_ROW, LABELS, NAMES, REMOVED, ROWS, SCHEMA_KEY, THUMBNAILS, VERSION,
};
use crate::container::{Kind, Sink, Writer};
use crate::embedding::{Embeddings, MIN_NORM, l2_normalize};
use crate::fingerprint::{ContentHasher, Fingerprint, Fingerprinter, ImageId, SpaceId};

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

/// Embeddings that are read a row at a time, wherever they lie.
pub trait Rows {
    /// Components of a row.
    fn dim(&self) -> usize;
    /// Number of rows.
    fn n_rows(&self) -> usize;
    /// Writes one row, which need not have length 1.
    fn read(&self, row_idx: usize, row: &mut [f32]);
}

impl Rows for Embeddings {
    fn dim(&self) -> usize {
        self.dim()
    }

    fn n_rows(&self) -> usize {
        self.n_rows()
    }

    fn read(&self, row_idx: usize, row: &mut [f32]) {
        row.copy_from_slice(self.row(row_idx));
    }
}

/// What a gallery is made of. Everything is asked for several times, in order, and must be
/// the same each time.
pub trait Records {
    /// Components of a row.
    fn dim(&self) -> usize;
    /// Number of records.
    fn n_records(&self) -> usize;
    /// The image of a record; `None` if its strings are damaged.
    fn entry(&self, idx: usize) -> Option<Entry<'_>>;
    /// A small picture, empty if there is none.
    fn thumbnail(&self, idx: usize) -> &[u8];
    /// The row in these codes; `None` if it has no direction.
    fn encoded(&self, idx: usize, codes: Codes) -> Option<EncodedRow>;
}

/// Embeddings that are encoded as they are asked for. Row `i` belongs to `entries[i]`; rows
/// are scaled to length 1.
pub struct Fresh<'r, R> {
    /// The embeddings.
    pub rows: &'r R,
    /// Their images.
    pub entries: &'r [Entry<'r>],
    /// Their pictures; none, or one for each.
    pub thumbnails: &'r [Vec<u8>],
}

impl<R: Rows> Records for Fresh<'_, R> {
    fn dim(&self) -> usize {
        self.rows.dim()
    }

    fn n_records(&self) -> usize {
        self.entries.len()
    }

    fn entry(&self, idx: usize) -> Option<Entry<'_>> {
        Some(self.entries[idx])
    }

    fn thumbnail(&self, idx: usize) -> &[u8] {
        self.thumbnails.get(idx).map_or(&[], Vec::as_slice)
    }

    fn encoded(&self, idx: usize, codes: Codes) -> Option<EncodedRow> {
        let mut row = vec![0.0; self.dim()];
        self.rows.read(idx, &mut row);
        let usable = row.iter().all(|x| x.is_finite()) && row.iter().any(|x| x.abs() >= MIN_NORM);
        l2_normalize(&mut row);
        usable.then(|| EncodedRow::of(&row, codes))
    }
}

/// Records of galleries that exist. In the same codes their stored bytes are kept; in other
/// codes they are encoded from the most exact one that there is.
pub struct Picked<'p, 'a> {
    galleries: Vec<&'p Gallery<'a>>,
    /// Gallery and row of each record.
    rows: Vec<(u32, u32)>,
}

impl<'p, 'a> Picked<'p, 'a> {
    /// Every row of one gallery, those that were removed included.
    #[must_use]
    pub fn all(gallery: &'p Gallery<'a>) -> Self {
        Self {
            galleries: vec![gallery],
            rows: (0..gallery.n_rows()).map(|row| (0, row)).collect(),
        }
    }

    /// The rows of several galleries of one dimension that were not removed and that `keep`
    /// wants, asked with the gallery's number and the row.
    ///
    /// # Panics
    /// If the galleries differ in dimension, or there are none.
    #[must_use]
    pub fn of(galleries: Vec<&'p Gallery<'a>>, keep: impl Fn(usize, u32) -> bool) -> Self {
        let dims: Vec<usize> = galleries.iter().map(|gallery| gallery.dim()).collect();
        assert!(
            dims.windows(2).all(|dims| dims[0] == dims[1]),
            "galleries of {dims:?} components"
        );
        let mut rows = Vec::new();
        for (number, gallery) in galleries.iter().enumerate() {
            let kept =
                (0..gallery.n_rows()).filter(|row| !gallery.is_removed(*row) && keep(number, *row));
            rows.extend(kept.map(|row| (number as u32, row)));
        }
        Self { galleries, rows }
    }

    /// Appends the rows of `other`, which must have the same dimension.
    #[must_use]
    pub fn chain(mut self, other: Self) -> Self {
        let shift = self.galleries.len() as u32;
        self.galleries.extend(other.galleries);
        let shifted = other
            .rows
            .into_iter()
            .map(|(gallery, row)| (gallery + shift, row));
        self.rows.extend(shifted);
        self
    }

    fn place(&self, idx: usize) -> (&'p Gallery<'a>, u32) {
        let (gallery, row) = self.rows[idx];
        (self.galleries[gallery as usize], row)
    }
}

impl Records for Picked<'_, '_> {
    fn dim(&self) -> usize {
        self.galleries[0].dim()
    }

    fn n_records(&self) -> usize {
        self.rows.len()
    }

    fn entry(&self, idx: usize) -> Option<Entry<'_>> {
        let (gallery, row) = self.place(idx);
        gallery.entry(row)
    }

    fn thumbnail(&self, idx: usize) -> &[u8] {
        let (gallery, row) = self.place(idx);
        gallery.thumbnail(row).unwrap_or_default()
    }

    fn encoded(&self, idx: usize, codes: Codes) -> Option<EncodedRow> {
        let (gallery, row_idx) = self.place(idx);
        if gallery.codes() == codes {
            return Some(gallery.encoded_row(row_idx));
        }
        let mut row = vec![0.0; gallery.dim()];
        gallery.row_into(row_idx, &mut row);
        (l2_normalize(&mut row) > 0.0).then(|| EncodedRow::of(&row, codes))
    }
}

/// Names what records hold, whatever their order: the image, label, name, picture and stored
/// bytes of each that is not removed.
pub(super) fn content_of(
    space: SpaceId,
    codes: Codes,
    records: &impl Records,
    is_removed: impl Fn(usize) -> bool,
) -> Result<Fingerprint, GalleryError> {
    let mut summary = Summary::default();
    for idx in 0..records.n_records() {
        if !is_removed(idx) {
            let (entry, encoded) = record(records, idx, codes)?;
            summary.add(idx, &entry, records.thumbnail(idx), &encoded);
        }
    }
    summary.finish(space, records.dim(), codes)
}

fn fault(idx: usize, what: &'static str) -> GalleryError {
    let row_idx = idx as u32;
    GalleryError::Row { row_idx, what }
}

fn entry_of(records: &impl Records, idx: usize) -> Result<Entry<'_>, GalleryError> {
    let entry = records.entry(idx);
    entry.ok_or_else(|| fault(idx, "its name or label is missing"))
}

/// An image and its row, or what is wrong with them.
fn record(
    records: &impl Records,
    idx: usize,
    codes: Codes,
) -> Result<(Entry<'_>, EncodedRow), GalleryError> {
    let entry = entry_of(records, idx)?;
    let encoded = records.encoded(idx, codes);
    let what = "the embedding has no direction (all zero, or not finite)";
    Ok((entry, encoded.ok_or_else(|| fault(idx, what))?))
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

/// Collects what names a gallery's content.
#[derive(Default)]
struct Summary {
    records: Vec<(ImageId, u32, Fingerprint)>,
}

impl Summary {
    fn add(&mut self, idx: usize, entry: &Entry<'_>, thumbnail: &[u8], encoded: &EncodedRow) {
        let mut hasher = ContentHasher::new();
        let mut field = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        field(entry.label.as_bytes());
        field(entry.name.as_bytes());
        field(thumbnail);
        encoded.pieces().for_each(|piece| field(&piece));
        self.records.push((entry.id, idx as u32, hasher.finish()));
    }

    fn finish(
        mut self,
        space: SpaceId,
        dim: usize,
        codes: Codes,
    ) -> Result<Fingerprint, GalleryError> {
        self.records
            .sort_unstable_by_key(|(id, idx, _)| (*id, *idx));
        for pair in self.records.windows(2) {
            let ((id, first, _), (other, second, _)) = (pair[0], pair[1]);
            if id == other {
                return Err(GalleryError::Twice { id, first, second });
            }
        }
        let mut all = ContentHasher::new();
        for (id, _, record) in &self.records {
            all.update(&id.0);
            all.update(&record.0);
        }
        Ok(Fingerprinter::new("eyas gallery content")
            .field("space", &space.0.0)
            .field("dim", &(dim as u64).to_le_bytes())
            .field("codes", codes.to_string().as_bytes())
            .field("records", &all.finish().0)
            .finish())
    }
}

/// A gallery that is ready to be written: everything that could be wrong was looked at.
///
/// Besides the records it holds some 70 bytes a row, whatever the dimension.
pub struct Plan<'r, R> {
    records: &'r R,
    header: GalleryHeader,
    labels: Vec<String>,
    label_of_row: Vec<u32>,
    removed: Vec<u8>,
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
        let mut summary = Summary::default();
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
        let mut out = BufWriter::with_capacity(1 << 16, out);
        let Codes { int2, int8, rows } = self.header.codes;
        let n_optional = 2 * usize::from(int2) + 2 * usize::from(int8);
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
        let mut file = Writer::begin(&mut out, Kind::Gallery, VERSION, &header, n_sections)?;
        if int2 {
            self.write_int2(&mut file)?;
        }
        if int8 {
            self.write_int8(&mut file)?;
        }
        if let Some(encoding) = rows {
            let n_bytes = self.n_rows() * self.records.dim() * encoding.component_bytes();
            file.section(ROWS, n_bytes as u64, |sink| {
                self.encoded_rows()
                    .try_for_each(|encoded| sink.write_all(&encoded.row))
            })?;
        }
        self.write_entries(&mut file)?;
        file.finish()
    }

    fn n_rows(&self) -> usize {
        self.header.n_rows as usize
    }

    fn encoded_rows(&self) -> impl Iterator<Item = EncodedRow> {
        (0..self.n_rows()).map(|idx| {
            self.records
                .encoded(idx, self.header.codes)
                .expect("records do not change")
        })
    }

    fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.n_rows()).map(|idx| self.records.entry(idx).expect("records do not change"))
    }

    fn write_int2<W: Write + Seek>(&self, file: &mut Writer<'_, W>) -> io::Result<()> {
        let columns = int2_columns(self.records.dim());
        let n_padded = self.n_rows().next_multiple_of(INT2_BLOCK);
        file.section(INT2, (2 * n_padded * columns) as u64, |sink| {
            for plane in 0..2 {
                let rows = self
                    .encoded_rows()
                    .map(|mut row| std::mem::take(&mut row.int2[plane]));
                write_blocks(sink, rows, INT2_BLOCK, columns, 1)?;
            }
            Ok(())
        })?;
        file.section(INT2_FACTORS, 4 * n_padded as u64, |sink| {
            for plane in 0..2 {
                for row in self.encoded_rows() {
                    sink.write_all(&row.factors[plane].to_bits().to_le_bytes())?;
                }
                sink.write_all(&vec![0; 2 * (n_padded - self.n_rows())])?;
            }
            Ok(())
        })
    }

    fn write_int8<W: Write + Seek>(&self, file: &mut Writer<'_, W>) -> io::Result<()> {
        let columns = int8_columns(self.records.dim());
        let n_padded = self.n_rows().next_multiple_of(INT8_BLOCK);
        file.section(INT8, (4 * n_padded * columns) as u64, |sink| {
            let rows = self
                .encoded_rows()
                .map(|row| row.int8.iter().map(|code| code.cast_unsigned()).collect());
            write_blocks(sink, rows, INT8_BLOCK, columns, 4)
        })?;
        file.section(INT8_SCALES, 4 * n_padded as u64, |sink| {
            for row in self.encoded_rows() {
                sink.write_all(&row.scale.to_le_bytes())?;
            }
            sink.write_all(&vec![0; 4 * (n_padded - self.n_rows())])
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
    mut rows: impl Iterator<Item = Vec<u8>>,
    block: usize,
    columns: usize,
    unit: usize,
) -> io::Result<()> {
    let mut bytes = vec![0; block * columns * unit];
    loop {
        bytes.fill(0);
        let mut n_rows = 0;
        for (in_block, row) in rows.by_ref().take(block).enumerate() {
            for (column, codes) in row.chunks_exact(unit).enumerate() {
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
