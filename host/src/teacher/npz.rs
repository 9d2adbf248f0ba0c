//! NumPy's `.npz` archives: ZIP files whose members are stored or deflated `.npy` files.
//!
//! The central directory is read, every length checked against the file and every member
//! against its CRC. No other use of ZIP is meant: no encryption, no parts, no paths on disk.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::DeflateDecoder;
use thiserror::Error;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;

/// Bytes of the end record without its comment.
const END_BYTES: usize = 22;
/// Longest comment after the end record.
const MAX_COMMENT: usize = u16::MAX as usize;
/// Bytes of the record that leads to the 64-bit end record.
const LOCATOR_BYTES: usize = 20;
/// What [`Archive::head`] gives at least, if there is as much: a `.npy` header of version 1
/// fits.
const HEAD_BYTES: usize = 1 << 16;
/// Deflate can not shrink by more than about this factor.
const MAX_RATIO: u64 = 1100;

/// Why an archive can not be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveFault {
    /// No end record.
    #[error("it is not a whole .npz archive: it has no central directory")]
    NoDirectory,
    /// A length or offset that leads out of the file.
    #[error("the .npz archive is damaged: {what} at byte {offset} leads out of {n_bytes} bytes")]
    Outside {
        /// Which record.
        what: &'static str,
        /// Where it should be.
        offset: u64,
        /// Length of the file.
        n_bytes: usize,
    },
    /// A member in a form that NumPy does not write.
    #[error("array `{name}` of the .npz archive is {what}; NumPy stores or deflates")]
    Unsupported {
        /// Which member.
        name: String,
        /// How it is kept.
        what: String,
    },
    /// A member whose content does not fit its directory entry.
    #[error("array `{name}` of the .npz archive is damaged: {what}")]
    Damaged {
        /// Which member.
        name: String,
        /// What does not fit.
        what: String,
    },
    /// No such member.
    #[error("the .npz archive has no array `{name}`")]
    NoArray {
        /// Which one.
        name: String,
    },
}

/// Members of an archive that lies in memory.
#[derive(Debug)]
pub struct Archive<'b> {
    bytes: &'b [u8],
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: String,
    method: u16,
    is_encrypted: bool,
    crc: u32,
    packed: u64,
    unpacked: u64,
    offset: u64,
}

impl<'b> Archive<'b> {
    /// Reads the directory.
    ///
    /// # Errors
    /// If there is none, or it leads out of the file.
    pub fn open(bytes: &'b [u8]) -> Result<Self, ArchiveFault> {
        let (n_members, offset) = directory(bytes)?;
        let mut at = Cursor {
            bytes,
            offset,
            what: "a directory entry",
        };
        let mut members = Vec::new();
        for _ in 0..n_members {
            members.push(Member::read(&mut at)?);
        }
        Ok(Self { bytes, members })
    }

    /// Names of the arrays, without `.npy`, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    /// The first bytes of a member, enough for the header of a `.npy` file. Not checked.
    ///
    /// # Errors
    /// If there is no such member or it leads out of the file.
    pub fn head(&self, name: &str) -> Result<Vec<u8>, ArchiveFault> {
        let member = self.member(name)?;
        let packed = self.packed(member)?;
        let n_bytes = member.unpacked.min(HEAD_BYTES as u64);
        Ok(match member.method {
            0 => packed[..packed.len().min(HEAD_BYTES)].to_vec(),
            _ => inflate(member, packed, n_bytes)?,
        })
    }

    /// The bytes of a member, checked against its CRC.
    ///
    /// # Errors
    /// If there is no such member or anything about it does not fit.
    pub fn read(&self, name: &str) -> Result<Cow<'b, [u8]>, ArchiveFault> {
        let member = self.member(name)?;
        let packed = self.packed(member)?;
        let content = match member.method {
            0 => Cow::Borrowed(packed),
            _ => Cow::Owned(inflate(member, packed, member.unpacked)?),
        };
        if content.len() as u64 != member.unpacked {
            let what = format!("{} bytes instead of {}", content.len(), member.unpacked);
            return Err(member.damaged(what));
        }
        let mut crc = flate2::Crc::new();
        crc.update(&content);
        if crc.sum() != member.crc {
            return Err(member.damaged("its checksum does not fit".to_owned()));
        }
        Ok(content)
    }

    fn member(&self, name: &str) -> Result<&Member, ArchiveFault> {
        let found = self.members.iter().find(|member| member.name == name);
        found.ok_or_else(|| ArchiveFault::NoArray {
            name: name.to_owned(),
        })
    }

    /// The member's bytes as they lie in the file.
    fn packed(&self, member: &Member) -> Result<&'b [u8], ArchiveFault> {
        let unsupported = |what: String| ArchiveFault::Unsupported {
            name: member.name.clone(),
            what,
        };
        if member.is_encrypted {
            return Err(unsupported("encrypted".to_owned()));
        }
        if ![0, 8].contains(&member.method) {
            return Err(unsupported(format!(
                "compressed by method {}",
                member.method
            )));
        }
        let mut at = Cursor {
            bytes: self.bytes,
            offset: member.offset,
            what: "an array",
        };
        if at.u32()? != LOCAL {
            return Err(member.damaged("no array begins where the directory says".to_owned()));
        }
        at.skip(22);
        let (n_name, n_extra) = (at.u16()?, at.u16()?);
        at.skip(u64::from(n_name) + u64::from(n_extra));
        at.take(member.packed)
    }
}

impl Member {
    fn read(at: &mut Cursor<'_>) -> Result<Self, ArchiveFault> {
        if at.u32()? != CENTRAL {
            return Err(ArchiveFault::NoDirectory);
        }
        at.skip(4);
        let (flags, method) = (at.u16()?, at.u16()?);
        at.skip(4);
        let crc = at.u32()?;
        let (packed, unpacked) = (at.u32()?, at.u32()?);
        let (n_name, n_extra, n_comment) = (at.u16()?, at.u16()?, at.u16()?);
        at.skip(8);
        let offset = at.u32()?;
        let name = String::from_utf8_lossy(at.take(n_name.into())?).into_owned();
        let extra = at.take(n_extra.into())?;
        at.skip(n_comment.into());
        let mut member = Self {
            name: name.strip_suffix(".npy").unwrap_or(&name).to_owned(),
            method,
            is_encrypted: flags & 1 != 0,
            crc,
            packed: packed.into(),
            unpacked: unpacked.into(),
            offset: offset.into(),
        };
        member.widen(extra)?;
        Ok(member)
    }

    /// Sizes that do not fit 32 bits stand in an extra field, in this order.
    fn widen(&mut self, extra: &[u8]) -> Result<(), ArchiveFault> {
        let mut fields = Cursor {
            bytes: extra,
            offset: 0,
            what: "an extra field",
        };
        while fields.offset < extra.len() as u64 {
            let (kind, n_bytes) = (fields.u16()?, fields.u16()?);
            let end = fields.offset + u64::from(n_bytes);
            if kind == 1 {
                for size in [&mut self.unpacked, &mut self.packed, &mut self.offset] {
                    if *size == u64::from(u32::MAX) {
                        *size = fields.u64()?;
                    }
                }
            }
            fields.offset = end;
        }
        Ok(())
    }

    fn damaged(&self, what: String) -> ArchiveFault {
        ArchiveFault::Damaged {
            name: self.name.clone(),
            what,
        }
    }
}

/// Number of members and the offset of the first directory entry.
fn directory(bytes: &[u8]) -> Result<(u64, u64), ArchiveFault> {
    let last = bytes.len().checked_sub(END_BYTES);
    let last = last.ok_or(ArchiveFault::NoDirectory)?;
    let candidates = (last.saturating_sub(MAX_COMMENT)..=last).rev();
    let is_end = |at: &usize| bytes[*at..].starts_with(&END.to_le_bytes());
    let end = { candidates }.find(is_end);
    let end = end.ok_or(ArchiveFault::NoDirectory)?;
    let mut at = Cursor {
        bytes,
        offset: end as u64 + 10,
        what: "the directory",
    };
    let n_members = at.u16()?;
    at.skip(4);
    let offset = at.u32()?;
    if n_members != u16::MAX && offset != u32::MAX {
        return Ok((n_members.into(), offset.into()));
    }
    at.offset = (end as u64).saturating_sub(LOCATOR_BYTES as u64);
    if at.u32()? != LOCATOR_64 {
        return Ok((n_members.into(), offset.into()));
    }
    at.skip(4);
    at.offset = at.u64()?;
    if at.u32()? != END_64 {
        return Err(ArchiveFault::NoDirectory);
    }
    at.skip(28);
    let n_members = at.u64()?;
    at.skip(8);
    Ok((n_members, at.u64()?))
}

/// At most `n_bytes` of what was deflated.
fn inflate(member: &Member, packed: &[u8], n_bytes: u64) -> Result<Vec<u8>, ArchiveFault> {
    if n_bytes > (packed.len() as u64 + 1).saturating_mul(MAX_RATIO) {
        let what = format!("{} bytes can not hold {n_bytes}", packed.len());
        return Err(member.damaged(what));
    }
    let mut content = Vec::with_capacity(n_bytes as usize);
    DeflateDecoder::new(packed)
        .take(n_bytes)
        .read_to_end(&mut content)
        .map_err(|err| member.damaged(err.to_string()))?;
    Ok(content)
}

/// Little-endian numbers from a place on.
struct Cursor<'b> {
    bytes: &'b [u8],
    offset: u64,
    /// For the error.
    what: &'static str,
}

impl<'b> Cursor<'b> {
    fn take(&mut self, n_bytes: u64) -> Result<&'b [u8], ArchiveFault> {
        let end = self.offset.checked_add(n_bytes);
        let end = end.filter(|end| *end <= self.bytes.len() as u64);
        let outside = || ArchiveFault::Outside {
            what: self.what,
            offset: self.offset,
            n_bytes: self.bytes.len(),
        };
        let end = end.ok_or_else(outside)?;
        let taken = &self.bytes[self.offset as usize..end as usize];
        self.offset = end;
        Ok(taken)
    }

    fn skip(&mut self, n_bytes: u64) {
        self.offset = self.offset.saturating_add(n_bytes);
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ArchiveFault> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64)?);
        Ok(out)
    }

    fn u16(&mut self) -> Result<u16, ArchiveFault> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, ArchiveFault> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ArchiveFault> {
        self.array().map(u64::from_le_bytes)
    }
}
