//! Sections of byte strings: names, labels, thumbnails.

use std::io::{self, Write};

use super::GalleryError;

/// `n` strings of bytes: `n + 1` little-endian u32 offsets, then the bytes.
#[derive(Clone, Copy)]
pub(super) struct Strings<'a> {
    section: &'static str,
    offsets: &'a [[u8; 4]],
    bytes: &'a [u8],
}

impl<'a> Strings<'a> {
    pub(super) fn open(
        section: &'static str,
        bytes: &'a [u8],
        n: u32,
    ) -> Result<Self, GalleryError> {
        let table = 4 * (u64::from(n) + 1);
        let too_short = GalleryError::SectionLength {
            section,
            expected: table,
            found: bytes.len() as u64,
        };
        let split = usize::try_from(table)
            .ok()
            .and_then(|table| bytes.split_at_checked(table));
        let (offsets, bytes) = split.ok_or(too_short)?;
        let offsets = offsets.as_chunks().0;
        let end = |offset: Option<&[u8; 4]>| offset.map(|le| u32::from_le_bytes(*le) as usize);
        if end(offsets.first()) != Some(0) || end(offsets.last()) != Some(bytes.len()) {
            let what = format!("its {section} do not fill their section");
            return Err(GalleryError::Header { what });
        }
        Ok(Self {
            section,
            offsets,
            bytes,
        })
    }

    /// Checks that the strings follow each other, so that together they are no longer than
    /// their section.
    pub(super) fn verify(&self) -> Result<(), GalleryError> {
        let ends = || self.offsets.iter().map(|le| u32::from_le_bytes(*le));
        if ends().is_sorted() {
            return Ok(());
        }
        let what = format!("its {} overlap", self.section);
        Err(GalleryError::Header { what })
    }

    pub(super) fn bytes(&self, idx: u32) -> Option<&'a [u8]> {
        let idx = idx as usize;
        let start = u32::from_le_bytes(*self.offsets.get(idx)?) as usize;
        let end = u32::from_le_bytes(*self.offsets.get(idx + 1)?) as usize;
        self.bytes.get(start..end)
    }

    pub(super) fn text(&self, idx: u32) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(idx)?).ok()
    }
}

/// Bytes of the section that holds these strings; `None` if offsets can not count them.
pub(super) fn section_len<'s>(strings: impl Iterator<Item = &'s [u8]>) -> Option<u64> {
    let (mut n_strings, mut n_bytes) = (0_u64, 0_u64);
    for string in strings {
        n_strings += 1;
        n_bytes += string.len() as u64;
    }
    u32::try_from(n_bytes).ok()?;
    Some(4 * (n_strings + 1) + n_bytes)
}

/// Writes such a section. Goes through the strings twice.
pub(super) fn write<'s, S: Iterator<Item = &'s [u8]>>(
    out: &mut impl Write,
    strings: impl Fn() -> S,
) -> io::Result<()> {
    let mut end = 0_u32;
    out.write_all(&end.to_le_bytes())?;
    for string in strings() {
        end += string.len() as u32;
        out.write_all(&end.to_le_bytes())?;
    }
    strings().try_for_each(|string| out.write_all(string))
}
