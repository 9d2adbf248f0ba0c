//! Lays out a file, in memory or section by section.

use std::io::{self, Cursor, Seek, SeekFrom, Write};

use serde::Serialize;

use super::{ALIGNMENT, Kind, MAGIC, MAX_HEADER_BYTES, MAX_SECTIONS, Tag, tag_name};

/// Lays out a file in memory: `header` is encoded with postcard, each section aligned and
/// summed.
///
/// The same input gives the same bytes.
///
/// # Panics
/// If `header` can not be encoded (maps and unsized sequences can't) or there are more
/// sections than a reader accepts.
#[must_use]
pub fn write<H: Serialize>(
    kind: Kind,
    version: u16,
    header: &H,
    sections: &[(Tag, &[u8])],
) -> Vec<u8> {
    let n_bytes: usize = sections
        .iter()
        .map(|(_, data)| data.len() + 2 * ALIGNMENT)
        .sum();
    let mut out = Cursor::new(Vec::with_capacity(n_bytes));
    (|| {
        let mut writer = Writer::begin(&mut out, kind, version, header, sections.len())?;
        for (tag, data) in sections {
            writer.section(*tag, data.len() as u64, |sink| sink.write_all(data))?;
        }
        writer.finish()
    })()
    .expect("memory takes what it is given");
    out.into_inner()
}

/// Lays out a file section by section, for what does not fit into memory.
pub struct Writer<'w, W> {
    out: &'w mut W,
    /// Bytes so far.
    at: u64,
    missing_sections: usize,
}

impl<'w, W: Write + Seek> Writer<'w, W> {
    /// Begins a file at the start of `out`, which must be empty.
    ///
    /// # Errors
    /// If `out` can not be written.
    ///
    /// # Panics
    /// As [`write`].
    pub fn begin<H: Serialize>(
        out: &'w mut W,
        kind: Kind,
        version: u16,
        header: &H,
        n_sections: usize,
    ) -> io::Result<Self> {
        assert!(
            n_sections <= MAX_SECTIONS,
            "more than {MAX_SECTIONS} sections"
        );
        let header = postcard::to_stdvec(header).expect("stored headers have a postcard form");
        assert!(
            header.len() <= MAX_HEADER_BYTES,
            "header of {} bytes",
            header.len()
        );
        // The fields of `Frame` in order; `reading_gives_back_what_was_written` holds the
        // two together.
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&(kind as u16).to_le_bytes());
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        push_varint(&mut bytes, header.len() as u64);
        bytes.extend_from_slice(&header);
        push_varint(&mut bytes, n_sections as u64);
        out.write_all(&bytes)?;
        Ok(Self {
            out,
            at: bytes.len() as u64,
            missing_sections: n_sections,
        })
    }

    /// Writes the next section: `fill` gives exactly `len` bytes.
    ///
    /// # Errors
    /// If `out` can not be written, or `fill` fails.
    ///
    /// # Panics
    /// If `fill` gives another number of bytes, or all sections were written.
    pub fn section(
        &mut self,
        tag: Tag,
        len: u64,
        fill: impl FnOnce(&mut Sink<'_, W>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.missing_sections = self
            .missing_sections
            .checked_sub(1)
            .expect("no more sections than were announced");
        let mut crc = crc32fast::Hasher::new();
        crc.update(&tag);
        crc.update(&len.to_le_bytes());
        let mut data_len = Vec::new();
        push_varint(&mut data_len, len);
        // The checksum is filled in behind the data; the length of the padding fits one
        // varint byte: it is below 64.
        let mut front = [tag, [0; 4]].concat();
        let unpadded = self.at as usize + front.len() + 1 + data_len.len();
        let pad = (ALIGNMENT - unpadded % ALIGNMENT) % ALIGNMENT;
        front.push(pad as u8);
        front.resize(front.len() + pad, 0);
        front.extend_from_slice(&data_len);
        self.out.write_all(&front)?;
        let mut sink = Sink {
            out: self.out,
            crc,
            n_bytes: 0,
        };
        fill(&mut sink)?;
        let (crc, n_bytes) = (sink.crc.finalize(), sink.n_bytes);
        assert_eq!(n_bytes, len, "length of section `{}`", tag_name(tag));
        self.out.seek(SeekFrom::Start(self.at + 4))?;
        self.out.write_all(&crc.to_le_bytes())?;
        self.at += front.len() as u64 + len;
        self.out.seek(SeekFrom::Start(self.at))?;
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// If `out` can not be written.
    ///
    /// # Panics
    /// If a section is missing.
    pub fn finish(self) -> io::Result<()> {
        assert_eq!(self.missing_sections, 0, "sections are missing");
        self.out.flush()
    }
}

/// Takes the data of one section.
pub struct Sink<'w, W> {
    out: &'w mut W,
    crc: crc32fast::Hasher,
    n_bytes: u64,
}

impl<W: Write> Write for Sink<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_bytes = self.out.write(bytes)?;
        self.crc.update(&bytes[..n_bytes]);
        self.n_bytes += n_bytes as u64;
        Ok(n_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A length as postcard writes it (LEB128).
fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
