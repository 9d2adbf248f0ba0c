//! Hostile content in a right frame: damaged files whose checksums fit, and files made up
//! from a header that lies.

use eyas_shared::container::{self, Container, Kind, Tag};
use eyas_shared::fingerprint::{Fingerprint, SpaceId};
use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK, int2_columns};
use eyas_shared::gallery::delta::{self, DeltaHeader};
use eyas_shared::gallery::int8::int8_columns;
use eyas_shared::gallery::{self, Codes, Gallery, GalleryHeader, RowEncoding};
use eyas_shared::random::Random;

use crate::samples;

/// Where the checksums of a file lie, and what each is of.
struct Section {
    /// Of the tag; the checksum follows it.
    start: usize,
    data: std::ops::Range<usize>,
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return usize::try_from(value).ok();
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

/// The header's bytes and the sections, as far as the frame can be followed.
fn follow(bytes: &[u8]) -> Option<(std::ops::Range<usize>, Vec<Section>)> {
    let mut at = 16;
    let len = varint(bytes, &mut at)?;
    let header = at..at.checked_add(len)?;
    bytes.get(header.clone())?;
    at = header.end;
    let n_sections = varint(bytes, &mut at)?;
    let mut sections = Vec::new();
    for _ in 0..n_sections.min(64) {
        let start = at;
        at += 8;
        let pad = varint(bytes, &mut at)?;
        at = at.checked_add(pad)?;
        let len = varint(bytes, &mut at)?;
        let data = at..at.checked_add(len)?;
        if bytes.get(data.clone()).is_none() {
            break;
        }
        at = data.end;
        sections.push(Section { start, data });
    }
    Some((header, sections))
}

/// Makes the checksums of a file right again, and those of a file within it.
pub(crate) fn reseal(bytes: &mut [u8]) {
    let Some((header, sections)) = follow(bytes) else {
        return;
    };
    let crc = crc32fast::hash(&bytes[header]).to_le_bytes();
    bytes[12..16].copy_from_slice(&crc);
    for Section { start, data } in sections {
        let tag: Tag = bytes[start..start + 4].try_into().unwrap();
        if tag == *b"NEW " {
            reseal(&mut bytes[data.clone()]);
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&tag);
        crc.update(&(data.len() as u64).to_le_bytes());
        crc.update(&bytes[data]);
        bytes[start + 4..start + 8].copy_from_slice(&crc.finalize().to_le_bytes());
    }
}

/// Damages a file in one to four places and mostly makes its checksums right again.
pub(crate) fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let n_bytes = bytes.len();
        let at = random.below(n_bytes);
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.bits() as u8,
            2 => {
                let word = hostile_number(random).to_le_bytes();
                let len = word.len().min(n_bytes - at);
                bytes[at..at + len].copy_from_slice(&word[..len]);
            }
            3 => {
                // Another place of the file.
                let from = random.below(n_bytes);
                let len = random.below(64).min(n_bytes - at).min(n_bytes - from);
                bytes.copy_within(from..from + len, at);
            }
            4 => {
                let len = random.below(64).min(n_bytes - at);
                bytes[at..at + len].fill(if random.chance(0.5) { 0 } else { 0xff });
            }
            5 if random.chance(0.2) => bytes.truncate(at.max(1)),
            5 => bytes.extend(std::iter::repeat_n(0, random.below(3))),
            // In the header and the frame, where most decisions are made.
            _ => {
                let at = random.below(n_bytes.min(300));
                bytes[at] = random.bits() as u8;
            }
        }
    }
    if random.chance(0.9) {
        reseal(bytes);
    }
}

fn hostile_number(random: &mut Random) -> u32 {
    let near = random.below(5) as u32;
    match random.below(6) {
        0 => near,
        1 => u32::MAX - near,
        2 => (1 << 31) - 2 + near,
        3 => f32::NAN.to_bits(),
        4 => f32::INFINITY.to_bits(),
        _ => random.bits() as u32,
    }
}

/// Bytes that are zeros, ones, numbers at the edge or noise.
fn filling(random: &mut Random, n_bytes: usize) -> Vec<u8> {
    match random.below(4) {
        0 => vec![0; n_bytes],
        1 => vec![0xff; n_bytes],
        2 => {
            let words = std::iter::repeat_with(|| hostile_number(random).to_le_bytes());
            words.flatten().take(n_bytes).collect()
        }
        _ => {
            let words = std::iter::repeat_with(|| random.bits().to_le_bytes());
            words.flatten().take(n_bytes).collect()
        }
    }
}

/// A section of strings: in order, overlapping, beyond the end or noise.
fn strings(random: &mut Random, n: usize) -> Vec<u8> {
    let n_bytes = random.below(40 + 4 * n);
    let mut offsets: Vec<u32> = match random.below(4) {
        0 => (0..=n).map(|i| (i * n_bytes / n.max(1)) as u32).collect(),
        1 => (0..=n)
            .map(|i| if i % 2 == 0 { 0 } else { n_bytes as u32 })
            .collect(),
        2 => (0..=n).map(|_| hostile_number(random)).collect(),
        _ => (0..=n).map(|_| random.below(n_bytes + 1) as u32).collect(),
    };
    if random.chance(0.9) {
        (offsets[0], offsets[n]) = (0, n_bytes as u32);
    }
    let mut bytes: Vec<u8> = offsets
        .iter()
        .flat_map(|offset| offset.to_le_bytes())
        .collect();
    bytes.extend(if random.chance(0.8) {
        vec![b'a'; n_bytes]
    } else {
        filling(random, n_bytes)
    });
    bytes
}

fn some_codes(random: &mut Random) -> Codes {
    Codes {
        int2: random.chance(0.5),
        int8: random.chance(0.6),
        rows: [None, Some(RowEncoding::F16), Some(RowEncoding::F32)][random.below(3)],
    }
}

/// The first bytes of every gallery's, or delta's, header.
fn schema_key(bytes: &[u8], kind: Kind, version: u16) -> [u8; 8] {
    let container = Container::read(bytes, kind, version).unwrap();
    *container.header.first_chunk().unwrap()
}

/// A gallery whose sections are as long as its header says, mostly, and hold anything.
pub(crate) fn gallery(random: &mut Random) -> Vec<u8> {
    let dim = match random.below(12) {
        0 => hostile_number(random),
        1 => 8190 + random.below(4) as u32,
        _ => 1 + random.below(40) as u32,
    };
    let n_rows = if dim > 1000 {
        1 + random.below(4)
    } else {
        1 + random.below(70)
    } as u32;
    let rarely = |random: &mut Random, usual: u32| {
        if random.chance(0.05) {
            hostile_number(random)
        } else {
            usual
        }
    };
    let n_labels = 1 + random.below(n_rows as usize) as u32;
    let n_removed = match random.below(3) {
        0 => 0,
        _ => random.below(n_rows as usize + 1) as u32,
    };
    let header = GalleryHeader {
        space: SpaceId(Fingerprint([3; 32])),
        dim,
        n_rows: rarely(random, n_rows),
        n_removed: rarely(random, n_removed),
        n_labels: rarely(random, n_labels),
        codes: some_codes(random),
        teacher: "t".repeat(random.below(3)),
        manifest: Fingerprint([4; 32]),
        content: random.chance(0.5).then_some(Fingerprint([5; 32])),
    };
    // Any version that may have these codes, and now and then one that may not.
    let newest = if random.chance(0.05) {
        gallery::VERSION
    } else {
        gallery::written_version(header.codes)
    };
    let version = 2 + random.below(usize::from(newest) - 1) as u16;
    let sections = sections(random, &header, version, n_rows as usize, n_labels as usize);
    let mut borrowed: Vec<(Tag, &[u8])> = sections
        .iter()
        .map(|(tag, data)| (*tag, &data[..]))
        .collect();
    random.shuffle(&mut borrowed);
    let key = schema_key(
        &samples::small_galleries()[0],
        Kind::Gallery,
        gallery::VERSION,
    );
    container::write(Kind::Gallery, version, &(key, header), &borrowed)
}

fn sections(
    random: &mut Random,
    header: &GalleryHeader,
    version: u16,
    n_rows: usize,
    n_labels: usize,
) -> Vec<(Tag, Vec<u8>)> {
    // A dimension that no file has room for is refused before any section.
    let dim = (header.dim as usize).min(8192);
    let mut sizes: Vec<(Tag, usize)> = vec![(*b"IDS ", 16 * n_rows)];
    if let Some(rows) = header.codes.rows {
        sizes.push((*b"ROWS", n_rows * dim * rows.component_bytes()));
    }
    if header.codes.int8 {
        let n_padded = n_rows.next_multiple_of(INT8_BLOCK);
        sizes.push((*b"SCL8", 4 * n_padded));
        if version > 3 {
            sizes.push((*b"INT8", 4 * int8_columns(dim) * n_padded));
            sizes.push((*b"LOW8", 4 * int8_columns(dim) * n_rows));
        } else {
            sizes.push((*b"INT8", 4 * dim.div_ceil(4) * n_padded));
        }
    }
    if header.codes.int2 {
        let n_padded = n_rows.next_multiple_of(INT2_BLOCK);
        let n_planes = if version > 2 { 1 } else { 2 };
        sizes.push((*b"INT2", n_planes * int2_columns(dim) * n_padded));
        sizes.push((*b"FAC2", n_planes * 2 * n_padded));
        if version > 2 {
            sizes.push((*b"LOW2", (int2_columns(dim) + 2) * n_rows));
        }
    }
    if header.n_removed > 0 {
        sizes.push((*b"GONE", n_rows.div_ceil(8)));
    }
    let mut sections: Vec<(Tag, Vec<u8>)> = sizes
        .into_iter()
        .map(|(tag, n_bytes)| {
            let off_by = usize::from(random.chance(0.01));
            (tag, filling(random, n_bytes + off_by))
        })
        .collect();
    let labels_of_rows = if random.chance(0.8) {
        (0..n_rows)
            .flat_map(|_| (random.below(n_labels + 1) as u32).to_le_bytes())
            .collect()
    } else {
        filling(random, 4 * n_rows)
    };
    sections.push((*b"LROW", labels_of_rows));
    sections.push((*b"LABL", strings(random, n_labels)));
    sections.push((*b"NAME", strings(random, n_rows)));
    if random.chance(0.5) {
        sections.push((*b"THMB", strings(random, n_rows)));
    }
    if random.chance(0.02) {
        let left_out = random.below(sections.len());
        sections.remove(left_out);
    }
    sections
}

/// A delta that begins from the base, or not, and adds records that are whole, or not.
pub(crate) fn delta(random: &mut Random, base: &Gallery<'_>) -> Vec<u8> {
    let (_, whole) = samples::delta();
    let whole = delta::Delta::read(whole).unwrap();
    let added = if random.chance(0.5) {
        let container = Container::read(&samples::delta().1, Kind::Delta, delta::VERSION).unwrap();
        container.section(*b"NEW ").unwrap().to_vec()
    } else {
        gallery(random)
    };
    let n_goes = random.below(12);
    let mut goes: Vec<[u8; 16]> = (0..n_goes)
        .map(|_| match random.below(20) {
            0 => [random.bits() as u8; 16],
            _ => base.id(random.below(base.n_rows() as usize) as u32).0,
        })
        .collect();
    if random.chance(0.9) {
        goes.sort_unstable();
        goes.dedup();
    }
    let header = DeltaHeader {
        n_removed: goes.len() as u32,
        n_added: if random.chance(0.9) {
            whole.header.n_added
        } else {
            hostile_number(random)
        },
        n_images: hostile_number(random),
        base: if random.chance(0.9) {
            whole.header.base
        } else {
            Fingerprint([1; 32])
        },
        dim: if random.chance(0.95) {
            whole.header.dim
        } else {
            hostile_number(random)
        },
        ..whole.header
    };
    let goes = goes.concat();
    let mut sections: Vec<(Tag, &[u8])> = vec![(*b"GONE", &goes)];
    if random.chance(0.9) {
        sections.push((*b"NEW ", &added));
    }
    let key = schema_key(&samples::delta().1, Kind::Delta, delta::VERSION);
    container::write(Kind::Delta, delta::VERSION, &(key, header), &sections)
}
