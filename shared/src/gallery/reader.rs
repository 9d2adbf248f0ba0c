//! A gallery as its bytes lie.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::codes::{INT2_BLOCK, int2_columns, int2_low_bytes, int2_offset, int8_codes};
use super::content::Summary;
use super::strings::Strings;
use super::{
    Codes, EncodedRow, Entry, GalleryError, GalleryHeader, HeaderV1, IDS, INT2, INT2_FACTORS,
    INT2_LOW, Int8Codes, LABEL_OF_ROW, LABELS, NAMES, Picked, REMOVED, ROWS, RowEncoding,
    SCHEMA_KEY, THUMBNAILS, VERSION, VERSION_OF_INT2_BLOCKS, written_version,
};
use crate::container::{self, Container, Kind, Tag};
use crate::embedding::MAX_DIM;
use crate::fingerprint::{Fingerprint, ImageId};

/// 2-bit codes: high bits in blocks of [`INT2_BLOCK`] rows, low bits row by row; see
/// [`super::codes`].
#[derive(Clone, Copy)]
pub struct Int2Codes<'a> {
    /// The plane of high bits: blocks of `columns` units of 32 bytes.
    pub high: &'a [u8],
    /// Factors of the high plane alone: one little-endian f16 a row, padded to whole blocks
    /// with 0.
    pub factors: &'a [[u8; 2]],
    /// Units in a block: 8 components each.
    pub columns: usize,
    low: LowBits<'a>,
}

#[derive(Clone, Copy)]
enum LowBits<'a> {
    /// `columns` bytes of each row, then the factor of both planes.
    Rows(&'a [u8]),
    /// Version 2: in blocks as the high bits are, the factors apart.
    Blocks {
        plane: &'a [u8],
        factors: &'a [[u8; 2]],
    },
}

impl<'a> Int2Codes<'a> {
    fn open(container: &Container<'a>, columns: usize, n_rows: u64) -> Result<Self, GalleryError> {
        let n_padded = n_rows.next_multiple_of(INT2_BLOCK as u64);
        let n_planes = if container.version <= VERSION_OF_INT2_BLOCKS {
            2
        } else {
            1
        };
        let plane_bytes = n_padded * columns as u64;
        let planes = sized(container, "int2 codes", INT2, n_planes * plane_bytes)?;
        let factors = sized(
            container,
            "int2 factors",
            INT2_FACTORS,
            n_planes * 2 * n_padded,
        )?;
        let (high, other_plane) = planes.split_at(plane_bytes as usize);
        let (factors, other_factors) = factors.as_chunks().0.split_at(n_padded as usize);
        let low = if container.version <= VERSION_OF_INT2_BLOCKS {
            LowBits::Blocks {
                plane: other_plane,
                factors: other_factors,
            }
        } else {
            let n_bytes = n_rows * int2_low_bytes(columns) as u64;
            LowBits::Rows(sized(container, "int2 low bits", INT2_LOW, n_bytes)?)
        };
        Ok(Self {
            high,
            factors,
            columns,
            low,
        })
    }

    /// The low bits of every row, each with the little-endian f16 factor of both planes behind
    /// it; `None` if the file does not hold them together.
    #[must_use]
    pub fn low_rows(&self) -> Option<&'a [u8]> {
        match self.low {
            LowBits::Rows(rows) => Some(rows),
            LowBits::Blocks { .. } => None,
        }
    }

    /// Appends one row of what [`low_rows`](Self::low_rows) holds: `columns` bytes and 2.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn push_low_row(&self, row_idx: u32, rows: &mut Vec<u8>) {
        match self.low {
            LowBits::Rows(stored) => {
                let row_bytes = int2_low_bytes(self.columns);
                rows.extend_from_slice(&stored[row_idx as usize * row_bytes..][..row_bytes]);
            }
            LowBits::Blocks { plane, factors } => {
                rows.extend(self.column(plane, row_idx));
                rows.extend_from_slice(&factors[row_idx as usize]);
            }
        }
    }

    /// The bytes of a row in a plane that lies in blocks.
    fn column(&self, plane: &'a [u8], row_idx: u32) -> impl Iterator<Item = u8> {
        let start = int2_offset(self.columns, row_idx as usize, 0);
        let column = plane[start..].iter().step_by(INT2_BLOCK);
        column.take(self.columns).copied()
    }
}

/// A gallery whose frame was checked, borrowing from its bytes.
#[derive(Clone)]
pub struct Gallery<'a> {
    /// What the gallery says of itself.
    pub header: GalleryHeader,
    /// Format version of its file.
    version: u16,
    container: Container<'a>,
    rows: Option<(RowEncoding, &'a [u8])>,
    int8: Option<Int8Codes<'a>>,
    int2: Option<Int2Codes<'a>>,
    ids: &'a [[u8; 16]],
    label_of_row: &'a [[u8; 4]],
    labels: Strings<'a>,
    names: Strings<'a>,
    thumbnails: Option<Strings<'a>>,
    /// One bit a row, the first in the lowest; empty if none was removed.
    removed: &'a [u8],
}

fn read_header(container: &Container<'_>) -> Result<GalleryHeader, GalleryError> {
    if container.version == 1 {
        let old: HeaderV1 = container::read_header(container)?;
        return Ok(old.into());
    }
    match container.header.split_first_chunk::<8>() {
        Some((key, fields)) if *key == SCHEMA_KEY => Ok(container::decode(fields)?),
        _ => Err(GalleryError::Header {
            what: "its fields are not those of gallery versions 2 to 4".to_owned(),
        }),
    }
}

fn check_header(header: &GalleryHeader, version: u16) -> Result<(), GalleryError> {
    let fault = |what| Err(GalleryError::Header { what });
    if !(1..=MAX_DIM).contains(&(header.dim as usize)) {
        return fault(format!("dimension {} is not in 1..={MAX_DIM}", header.dim));
    }
    let GalleryHeader {
        n_rows,
        n_removed,
        n_labels,
        ..
    } = *header;
    if n_rows == 0 || n_labels == 0 || n_labels > n_rows {
        return fault(format!("{n_rows} rows with {n_labels} labels"));
    }
    if n_removed > n_rows {
        return fault(format!("{n_removed} of {n_rows} rows were removed"));
    }
    if !header.codes.can_score() {
        return fault(format!("codes `{}` can not score", header.codes));
    }
    if version > written_version(header.codes) {
        return fault(format!("version {version} with codes `{}`", header.codes));
    }
    Ok(())
}

/// The data of one section, of a length that the header implies.
pub(super) fn sized<'a>(
    container: &Container<'a>,
    section: &'static str,
    tag: Tag,
    expected: u64,
) -> Result<&'a [u8], GalleryError> {
    let data = container.section(tag)?;
    let found = data.len() as u64;
    if found == expected {
        Ok(data)
    } else {
        Err(GalleryError::SectionLength {
            section,
            expected,
            found,
        })
    }
}

impl<'a> Gallery<'a> {
    /// Checks the frame, the header and the length of every section; independent of the
    /// number of rows.
    ///
    /// # Errors
    /// [`GalleryError`] says what does not fit.
    pub fn open(bytes: &'a [u8]) -> Result<Self, GalleryError> {
        let container = Container::read(bytes, Kind::Gallery, VERSION)?;
        let header = read_header(&container)?;
        check_header(&header, container.version)?;
        let n_rows = u64::from(header.n_rows);
        let dim = header.dim as usize;
        let sized = |section, tag, n_bytes| sized(&container, section, tag, n_bytes);
        let rows = match header.codes.rows {
            None => None,
            Some(encoding) => {
                let n_bytes = n_rows * (dim * encoding.component_bytes()) as u64;
                Some((encoding, sized("rows", ROWS, n_bytes)?))
            }
        };
        let int8 = if header.codes.int8 {
            Some(Int8Codes::open(&container, dim, n_rows)?)
        } else {
            None
        };
        let int2 = if header.codes.int2 {
            Some(Int2Codes::open(&container, int2_columns(dim), n_rows)?)
        } else {
            None
        };
        let removed: &[u8] = if header.n_removed == 0 {
            &[]
        } else {
            sized("removed rows", REMOVED, n_rows.div_ceil(8))?
        };
        let thumbnails = match container.sections_with(THUMBNAILS).next() {
            None => None,
            Some(data) => Some(Strings::open("thumbnails", data, header.n_rows)?),
        };
        Ok(Self {
            rows,
            int8,
            int2,
            ids: sized("ids", IDS, n_rows * 16)?.as_chunks().0,
            label_of_row: sized("label of row", LABEL_OF_ROW, n_rows * 4)?
                .as_chunks()
                .0,
            labels: Strings::open("labels", container.section(LABELS)?, header.n_labels)?,
            names: Strings::open("names", container.section(NAMES)?, header.n_rows)?,
            thumbnails,
            removed,
            version: container.version,
            header,
            container,
        })
    }

    /// Compares every section with its checksum.
    ///
    /// # Errors
    /// [`GalleryError`] names the first section that was damaged.
    pub fn verify_checksums(&self) -> Result<(), GalleryError> {
        Ok(self.container.verify()?)
    }

    /// Reads everything once: checksums, strings, label numbers, that every row but the
    /// removed ones is a unit vector, that no image occurs twice among them, and that the
    /// content is what the header names.
    ///
    /// # Errors
    /// [`GalleryError`] names the first section or row that does not fit.
    pub fn verify(&self) -> Result<(), GalleryError> {
        self.verify_checksums()?;
        let strings = [
            Some(&self.labels),
            Some(&self.names),
            self.thumbnails.as_ref(),
        ];
        for strings in strings.into_iter().flatten() {
            strings.verify()?;
        }
        for label_idx in 0..self.header.n_labels {
            if self.labels.text(label_idx).is_none() {
                let what = format!("label {label_idx} is not text");
                return Err(GalleryError::Header { what });
            }
        }
        let tolerance = self.norm_tolerance();
        let mut row = vec![0.0; self.dim()];
        for row_idx in 0..self.n_rows() {
            let fault = |what| Err(GalleryError::Row { row_idx, what });
            if self.entry(row_idx).is_none() {
                return fault("its name or label is missing");
            }
            if self
                .thumbnails
                .is_some_and(|all| all.bytes(row_idx).is_none())
            {
                return fault("its thumbnail is missing");
            }
            if self.is_removed(row_idx) {
                continue;
            }
            self.row_into(row_idx, &mut row);
            let norm: f32 = row.iter().map(|x| x * x).sum();
            if norm.is_nan() || (norm - 1.0).abs() > tolerance {
                return fault("it is not a unit vector");
            }
        }
        let n_removed = (0..self.n_rows())
            .filter(|row| self.is_removed(*row))
            .count();
        if n_removed != self.header.n_removed as usize {
            let what = format!(
                "{} rows were removed, but {n_removed} are marked",
                self.header.n_removed
            );
            return Err(GalleryError::Header { what });
        }
        match self.header.content {
            None => Ok(()),
            Some(expected) => {
                let found = self.computed_content()?;
                if found == expected {
                    Ok(())
                } else {
                    let (expected, found) = (expected.short(), found.short());
                    Err(GalleryError::OtherContent { expected, found })
                }
            }
        }
    }

    /// How far the squared length of a stored row may be from 1.
    fn norm_tolerance(&self) -> f32 {
        match self.rows {
            // f16 rounding moves the squared length by less than 2^-10.
            Some(_) => 2e-3,
            // Each component moves by at most half a step, which is at most 1 / 127.
            None => {
                let error = (self.dim() as f32).sqrt() / 254.0;
                2e-3 + 2.0 * error + error * error
            }
        }
    }

    /// What the gallery holds, whatever the order of its rows: the header's word for it, or,
    /// in version 1, from all records.
    ///
    /// # Errors
    /// In version 1, if an image occurs twice or a record is damaged.
    pub fn content(&self) -> Result<Fingerprint, GalleryError> {
        match self.header.content {
            Some(content) => Ok(content),
            None => self.computed_content(),
        }
    }

    fn computed_content(&self) -> Result<Fingerprint, GalleryError> {
        let GalleryHeader { space, codes, .. } = self.header;
        self.summary()?.finish(space, self.dim(), codes)
    }

    /// Every record that was not removed.
    pub(super) fn summary(&self) -> Result<Summary, GalleryError> {
        let is_removed = |row| self.is_removed(row as u32);
        Summary::of(self.codes(), &Picked::all(self), is_removed)
    }

    /// Format version of the file.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Components of a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.header.dim as usize
    }

    /// Number of rows, those that were removed included.
    #[must_use]
    pub fn n_rows(&self) -> u32 {
        self.header.n_rows
    }

    /// Number of images that can be found.
    #[must_use]
    pub fn n_images(&self) -> u32 {
        self.header.n_rows - self.header.n_removed
    }

    /// Whether a row was removed; such rows are never an answer.
    #[must_use]
    pub fn is_removed(&self, row_idx: u32) -> bool {
        let byte = self.removed.get(row_idx as usize / 8).copied();
        byte.unwrap_or(0) >> (row_idx % 8) & 1 == 1
    }

    /// The codes that every search reads from end to end, or the rows where there are none.
    #[must_use]
    pub fn scanned(&self) -> &'a [u8] {
        match (self.int2, self.int8, self.rows) {
            (Some(codes), _, _) => codes.high,
            (None, Some(codes), _) => codes.scanned(),
            (None, None, Some((_, rows))) => rows,
            (None, None, None) => &[],
        }
    }

    /// The int8 codes, if there are any.
    #[must_use]
    pub fn int8(&self) -> Option<Int8Codes<'a>> {
        self.int8
    }

    /// The 2-bit codes, if there are any.
    #[must_use]
    pub fn int2(&self) -> Option<Int2Codes<'a>> {
        self.int2
    }

    /// Writes one row, as f32, to `row`: from the most exact of its codes.
    ///
    /// # Panics
    /// If there is no such row or `row` is not `dim` long.
    pub fn row_into(&self, row_idx: u32, row: &mut [f32]) {
        assert_eq!(row.len(), self.dim(), "buffer of another dimension");
        self.rows_into(row_idx, row);
    }

    /// Writes as many rows as `rows` holds, as f32, starting with `first_row`.
    ///
    /// # Panics
    /// If the gallery ends before that.
    pub fn rows_into(&self, first_row: u32, rows: &mut [f32]) {
        let Some((encoding, stored)) = self.rows else {
            let dim = self.dim();
            for (row_idx, row) in (first_row..).zip(rows.chunks_exact_mut(dim)) {
                self.int8_row_into(row_idx, row);
            }
            return;
        };
        let component_bytes = encoding.component_bytes();
        let start = first_row as usize * self.dim() * component_bytes;
        let bytes = &stored[start..][..rows.len() * component_bytes];
        match encoding {
            RowEncoding::F32 => {
                for (x, bytes) in rows.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *x = f32::from_le_bytes(*bytes);
                }
            }
            RowEncoding::F16 => {
                // In pieces, so that the hardware conversion sees slices.
                let mut halves = [f16::ZERO; 64];
                for (out, bytes) in rows.chunks_mut(64).zip(bytes.chunks(128)) {
                    let halves = &mut halves[..out.len()];
                    for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
                        *half = f16::from_bits(u16::from_le_bytes(*bytes));
                    }
                    halves.convert_to_f32_slice(out);
                }
            }
        }
    }

    /// One row as it is stored, if that is in f16: little-endian components.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn f16_row(&self, row_idx: u32) -> Option<&'a [[u8; 2]]> {
        match self.rows {
            Some((RowEncoding::F16, stored)) => {
                let (halves, _) = stored.as_chunks();
                Some(&halves[row_idx as usize * self.dim()..][..self.dim()])
            }
            _ => None,
        }
    }

    fn int8_row_into(&self, row_idx: u32, row: &mut [f32]) {
        let int8 = self.int8.expect("a gallery without rows has int8 codes");
        let scale = f32::from_le_bytes(int8.scales[row_idx as usize]);
        let codes = int8.codes(row_idx as usize, row.len());
        for (code, x) in codes.zip(row.iter_mut()) {
            *x = scale * f32::from(code);
        }
    }

    /// One row as it is stored.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn encoded_row(&self, row_idx: u32) -> EncodedRow {
        self.stored_row(row_idx, self.codes())
    }

    /// One row as it is stored, of which only some codes are needed.
    pub(super) fn stored_row(&self, row_idx: u32, part: Codes) -> EncodedRow {
        let row = row_idx as usize;
        let mut encoded = EncodedRow::default();
        if let Some(int2) = self.int2.filter(|_| part.int2) {
            let mut low = Vec::with_capacity(int2_low_bytes(int2.columns));
            int2.push_low_row(row_idx, &mut low);
            let factor = *low.last_chunk().expect("the factor is there");
            low.truncate(int2.columns);
            encoded.int2 = [int2.column(int2.high, row_idx).collect(), low];
            encoded.factors = [int2.factors[row], factor].map(f16::from_le_bytes);
        }
        if let Some(int8) = self.int8.filter(|_| part.int8) {
            encoded.scale = f32::from_le_bytes(int8.scales[row]);
            encoded.int8 = int8.codes(row, self.dim()).collect();
            encoded.int8.resize(int8_codes(self.dim()), 0);
        }
        if let Some((encoding, stored)) = self.rows.filter(|_| part.rows.is_some()) {
            let row_bytes = self.dim() * encoding.component_bytes();
            encoded.row = stored[row * row_bytes..][..row_bytes].to_vec();
        }
        encoded
    }

    /// Identity of a row's image.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn id(&self, row_idx: u32) -> ImageId {
        ImageId(self.ids[row_idx as usize])
    }

    /// Number of a row's label, from 0 to `n_labels`; not checked against it.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn label_idx(&self, row_idx: u32) -> u32 {
        u32::from_le_bytes(self.label_of_row[row_idx as usize])
    }

    /// Text of a label; `None` if the number or the file is bad.
    #[must_use]
    pub fn label(&self, label_idx: u32) -> Option<&'a str> {
        self.labels.text(label_idx)
    }

    /// A row's image; `None` if there is no such row or its strings are damaged.
    #[must_use]
    pub fn entry(&self, row_idx: u32) -> Option<Entry<'a>> {
        if row_idx >= self.header.n_rows {
            return None;
        }
        let label = self.label(self.label_idx(row_idx))?;
        Some(Entry {
            id: self.id(row_idx),
            label,
            name: self.names.text(row_idx)?,
        })
    }

    /// A small picture of a row's image, a JPEG file; `None` if the gallery has none.
    #[must_use]
    pub fn thumbnail(&self, row_idx: u32) -> Option<&'a [u8]> {
        self.thumbnails?
            .bytes(row_idx)
            .filter(|picture| !picture.is_empty())
    }

    /// Whether the gallery has thumbnails.
    #[must_use]
    pub fn has_thumbnails(&self) -> bool {
        self.thumbnails.is_some()
    }

    /// Name and bytes of every section.
    pub fn sections(&self) -> impl Iterator<Item = (String, usize)> {
        self.container
            .sections()
            .map(|(name, data)| (name, data.len()))
    }

    /// How rows are stored.
    #[must_use]
    pub fn codes(&self) -> Codes {
        self.header.codes
    }
}
