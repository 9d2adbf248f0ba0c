//! The frame of every file that this project writes: a checked header and sections that
//! are read in place.
//!
//! A file is one postcard value (a struct that ends in a sequence of sections) that borrows everything from the bytes it
//! is read from. Padding in front of each section puts its data at a multiple of
//! [`ALIGNMENT`] from the start of the file, so a memory map can be searched as it lies.
//! `FORMATS.md` has the byte tables.
//!
//! Reading takes time in the number of sections, not in their size; [`Container::verify`]
//! reads every byte.

mod pieces;
mod writer;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use pieces::Pieces;
pub use writer::{Sink, Writer, write};

/// Sections begin at multiples of this many bytes.
pub const ALIGNMENT: usize = 64;

/// First bytes of every file. The 0x89 says that it is not text; CR LF and 0x1A show a
/// transfer in text mode at once (after PNG, section 5.2).
pub const MAGIC: [u8; 8] = [0x89, b'E', b'Y', b'A', b'S', b'\r', b'\n', 0x1a];

const MAX_HEADER_BYTES: usize = 1 << 20;
const MAX_SECTIONS: usize = 64;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// A student: what a board loads to encode.
    Bundle = 1,
    /// Embeddings that are searched.
    Gallery = 2,
    /// A teacher: networks and the projection behind them.
    Teacher = 3,
    /// Embeddings of a manifest's images: the host's cache.
    Embeddings = 4,
    /// What turns one gallery into another.
    Delta = 5,
}

impl Kind {
    fn of_code(code: u16) -> Option<Self> {
        [
            Self::Bundle,
            Self::Gallery,
            Self::Teacher,
            Self::Embeddings,
            Self::Delta,
        ]
        .into_iter()
        .find(|kind| *kind as u16 == code)
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Gallery => "gallery",
            Self::Teacher => "teacher",
            Self::Embeddings => "embeddings file",
            Self::Delta => "gallery delta",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.noun())
    }
}

/// Why bytes are not a file of this project, or not a whole one.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContainerError {
    /// Some other file.
    #[error("not an eyas file: it begins with {found:02x?}")]
    NotEyas {
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// Another kind of file than was asked for.
    #[error("this is a {found}, but a {expected} is needed")]
    OtherKind {
        /// What was asked for.
        expected: Kind,
        /// What the file says it is.
        found: Kind,
    },
    /// A kind that this build does not know.
    #[error("file kind {code} is not known to this build")]
    UnknownKind {
        /// The number in the file.
        code: u16,
    },
    /// Written by a newer program.
    #[error("{kind} has format version {found}; this build reads up to {newest}")]
    TooNew {
        /// What the file is.
        kind: Kind,
        /// Its version.
        found: u16,
        /// The newest version that this build reads.
        newest: u16,
    },
    /// The bytes end early.
    #[error("cut short: the file ends inside its {part} ({bytes} bytes in all)")]
    Truncated {
        /// What was being read.
        part: &'static str,
        /// Length of the file.
        bytes: usize,
    },
    /// The bytes go on after the last section.
    #[error("damaged: {extra} bytes follow the last section")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// A checksum does not fit.
    #[error("damaged: the checksum of the {part} does not fit")]
    Checksum {
        /// `header`, or the section's tag.
        part: String,
    },
    /// Some other contradiction.
    #[error("damaged: {what}")]
    Malformed {
        /// What contradicts what.
        what: String,
    },
}

impl ContainerError {
    /// A contradiction, in words.
    pub fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed { what: what.into() }
    }
}

/// Four letters that name a section.
pub type Tag = [u8; 4];

/// The frame up to its sections, of which a length follows.
#[derive(Serialize, Deserialize)]
struct Frame<'a> {
    magic: [u8; 8],
    kind_le: [u8; 2],
    version_le: [u8; 2],
    header_crc_le: [u8; 4],
    header: &'a [u8],
    n_sections: u32,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Section<'a> {
    tag: Tag,
    crc_le: [u8; 4],
    pad: &'a [u8],
    data: &'a [u8],
}

/// A file whose frame was checked, borrowing from its bytes.
#[derive(Clone)]
pub struct Container<'a> {
    /// Format version of its kind, from 1.
    pub version: u16,
    /// The kind's own header, a postcard value.
    pub header: &'a [u8],
    sections: Vec<Section<'a>>,
}

fn section_crc(tag: Tag, data: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&tag);
    crc.update(&(data.len() as u64).to_le_bytes());
    crc.update(data);
    crc.finalize()
}

fn tag_name(tag: Tag) -> String {
    tag.escape_ascii().to_string()
}

impl<'a> Container<'a> {
    /// Reads the frame of a file of the given kind and up to the given version.
    ///
    /// Checks the magic, kind, version, header checksum, alignment and that every byte
    /// belongs to something. Section data is borrowed and not looked at: see
    /// [`verify`](Self::verify).
    ///
    /// # Errors
    /// [`ContainerError`] says what does not fit.
    pub fn read(bytes: &'a [u8], kind: Kind, newest: u16) -> Result<Self, ContainerError> {
        let start = bytes.get(..16).ok_or_else(|| {
            if MAGIC.starts_with(&bytes[..bytes.len().min(8)]) {
                ContainerError::Truncated {
                    part: "first 16 bytes",
                    bytes: bytes.len(),
                }
            } else {
                ContainerError::NotEyas {
                    found: bytes[..bytes.len().min(8)].to_vec(),
                }
            }
        })?;
        if start[..8] != MAGIC {
            return Err(ContainerError::NotEyas {
                found: start[..8].to_vec(),
            });
        }
        let code = u16::from_le_bytes([start[8], start[9]]);
        let version = u16::from_le_bytes([start[10], start[11]]);
        let found = Kind::of_code(code).ok_or(ContainerError::UnknownKind { code })?;
        if found != kind {
            return Err(ContainerError::OtherKind {
                expected: kind,
                found,
            });
        }
        if version > newest {
            return Err(ContainerError::TooNew {
                kind,
                found: version,
                newest,
            });
        }
        if version == 0 {
            return Err(ContainerError::malformed("format version 0 was never used"));
        }
        let (frame, mut rest) =
            postcard::take_from_bytes::<Frame<'a>>(bytes).map_err(unreadable("header", bytes))?;
        if frame.header.len() > MAX_HEADER_BYTES {
            return Err(ContainerError::malformed("the header is larger than 1 MiB"));
        }
        if crc32fast::hash(frame.header).to_le_bytes() != frame.header_crc_le {
            return Err(ContainerError::Checksum {
                part: "header".to_owned(),
            });
        }
        if frame.n_sections as usize > MAX_SECTIONS {
            return Err(ContainerError::malformed("more than 64 sections"));
        }
        let mut sections = Vec::new();
        for _ in 0..frame.n_sections {
            let (section, after) = postcard::take_from_bytes::<Section<'a>>(rest)
                .map_err(unreadable("sections", bytes))?;
            check_section(bytes, &section)?;
            sections.push(section);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(ContainerError::TrailingBytes { extra: rest.len() });
        }
        Ok(Self {
            version,
            header: frame.header,
            sections,
        })
    }

    /// The data of the one section with this tag.
    ///
    /// # Errors
    /// If there is none.
    pub fn section(&self, tag: Tag) -> Result<&'a [u8], ContainerError> {
        self.sections_with(tag).next().ok_or_else(|| {
            ContainerError::malformed(format!("section `{}` is missing", tag_name(tag)))
        })
    }

    /// The data of every section with this tag, in file order.
    pub fn sections_with(&self, tag: Tag) -> impl Iterator<Item = &'a [u8]> {
        self.sections
            .iter()
            .filter(move |section| section.tag == tag)
            .map(|section| section.data)
    }

    /// Tag and data of every section, in file order.
    pub fn sections(&self) -> impl Iterator<Item = (String, &'a [u8])> {
        self.sections
            .iter()
            .map(|section| (tag_name(section.tag), section.data))
    }

    /// Compares every section with its checksum; reads the whole file.
    ///
    /// # Errors
    /// [`ContainerError::Checksum`] names the first section that does not fit.
    pub fn verify(&self) -> Result<(), ContainerError> {
        for section in &self.sections {
            if section_crc(section.tag, section.data).to_le_bytes() != section.crc_le {
                let part = format!("section `{}`", tag_name(section.tag));
                return Err(ContainerError::Checksum { part });
            }
        }
        Ok(())
    }
}

fn unreadable(part: &'static str, bytes: &[u8]) -> impl Fn(postcard::Error) -> ContainerError {
    let bytes = bytes.len();
    move |err| match err {
        postcard::Error::DeserializeUnexpectedEnd => ContainerError::Truncated { part, bytes },
        other => ContainerError::malformed(format!("the {part} can not be read ({other})")),
    }
}

fn check_section(bytes: &[u8], section: &Section<'_>) -> Result<(), ContainerError> {
    let fault = |what: &str| {
        let name = tag_name(section.tag);
        Err(ContainerError::malformed(format!(
            "section `{name}` {what}"
        )))
    };
    let offset = section.data.as_ptr().addr() - bytes.as_ptr().addr();
    if !offset.is_multiple_of(ALIGNMENT) {
        return fault("is not aligned");
    }
    if section.pad.len() >= ALIGNMENT {
        return fault("has more padding than it needs");
    }
    if section.pad.iter().any(|byte| *byte != 0) {
        return fault("has padding that is not zero");
    }
    Ok(())
}

/// Reads a kind's own header.
///
/// # Errors
/// If it does not decode to `T`, or not all of it.
pub fn read_header<'a, T: Deserialize<'a>>(container: &Container<'a>) -> Result<T, ContainerError> {
    decode(container.header)
}

/// Decodes the fields of a header.
///
/// # Errors
/// If they do not decode to `T`, or not all of them.
pub fn decode<'a, T: Deserialize<'a>>(header: &'a [u8]) -> Result<T, ContainerError> {
    match postcard::take_from_bytes(header) {
        Ok((header, [])) => Ok(header),
        Ok(_) => Err(ContainerError::malformed(
            "the header is longer than its fields",
        )),
        Err(err) => Err(ContainerError::malformed(format!(
            "the header can not be read ({err})"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<u8> {
        let long: Vec<u8> = (0..300_u32).map(|i| i as u8).collect();
        write(
            Kind::Gallery,
            1,
            &(7_u32, "seven"),
            &[(*b"ROWS", &long), (*b"IDS ", b"abc")],
        )
    }

    #[test]
    fn reading_gives_back_what_was_written() {
        let bytes = example();
        let container = Container::read(&bytes, Kind::Gallery, 1).unwrap();
        assert_eq!(
            read_header::<(u32, &str)>(&container).unwrap(),
            (7, "seven")
        );
        assert_eq!(container.section(*b"ROWS").unwrap().len(), 300);
        assert_eq!(container.section(*b"IDS ").unwrap(), b"abc");
        container.verify().unwrap();
        // The hand-laid bytes are what postcard itself writes.
        let (frame, _) = postcard::take_from_bytes::<Frame<'_>>(&bytes).unwrap();
        let mut again = postcard::to_stdvec(&frame).unwrap();
        for section in &container.sections {
            again.extend(postcard::to_stdvec(section).unwrap());
        }
        assert_eq!(again, bytes);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = example();
        for len in 0..bytes.len() {
            assert!(
                Container::read(&bytes[..len], Kind::Gallery, 1).is_err(),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = example();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let outcome = Container::read(&damaged, Kind::Gallery, 1)
                    .and_then(|container| container.verify());
                assert!(outcome.is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn disagreements_name_both_sides() {
        let bytes = example();
        let message = |kind, newest| {
            Container::read(&bytes, kind, newest)
                .err()
                .unwrap()
                .to_string()
        };
        assert_eq!(
            message(Kind::Bundle, 1),
            "this is a gallery, but a bundle is needed"
        );
        let newer = write(Kind::Gallery, 3, &0_u8, &[]);
        assert_eq!(
            Container::read(&newer, Kind::Gallery, 2)
                .err()
                .unwrap()
                .to_string(),
            "gallery has format version 3; this build reads up to 2"
        );
        assert!(
            Container::read(b"\x89PNG\r\n\x1a\n........", Kind::Gallery, 1)
                .err()
                .unwrap()
                .to_string()
                .starts_with("not an eyas file")
        );
    }

    #[test]
    fn more_sections_than_any_file_has_are_refused_unread() {
        let mut bytes = write(Kind::Gallery, 1, &0_u8, &[]);
        bytes.pop();
        bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        let read = Container::read(&bytes, Kind::Gallery, 1);
        let message = read.err().unwrap().to_string();
        assert_eq!(message, "damaged: more than 64 sections");
    }
}
