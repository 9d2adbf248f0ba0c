//! Which generation serves: one small record, written to two files in turn.
//!
//! Two records that alternate, and not one that is replaced by renaming: writing touches one
//! file's content and no folder, so it is atomic on any file system whose `fsync` holds its
//! word (also on FAT, where a rename is not), and it needs no free space, so that a full disk
//! can still confirm and roll back. A torn write spoils the older record only; its checksum
//! says so. Should both be lost, the newest generation that was confirmed is found by its own
//! record.

use std::io;
use std::path::Path;

use eyas_shared::fingerprint::Fingerprint;
use serde::{Deserialize, Serialize};

use super::SlotsError;
use super::fs::Fs;

/// Length of a record file.
const RECORD_BYTES: usize = 2048;

const MAGIC: [u8; 8] = *b"EYASPTR1";

/// Longest reason that is kept, in bytes.
const MAX_REASON_BYTES: usize = 800;

const RECORDS: [&str; 2] = ["pointer-a", "pointer-b"];

/// Folder with one record for each generation that was confirmed.
pub(super) const GENERATIONS: &str = "generations";

/// A student with the gallery that it searches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Counts up with every installation and rollback.
    pub number: u64,
    /// The student's bundle.
    pub bundle: Fingerprint,
    /// The gallery.
    pub gallery: Fingerprint,
    /// Security counter of the bundle's signature; 0 without one.
    pub bundle_counter: u64,
    /// Security counter of the gallery's signature; 0 without one.
    pub gallery_counter: u64,
}

/// A generation that has to prove itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnTrial {
    /// Which.
    pub generation: Generation,
    /// How often it was started.
    pub starts: u32,
}

/// The last generation that was not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its bundle, as far as one was named.
    pub bundle: Option<Fingerprint>,
    /// Its gallery, as far as one was named.
    pub gallery: Option<Fingerprint>,
    /// Why it was refused or rolled back.
    pub reason: String,
}

/// What the store points at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// Counts up with every write.
    pub sequence: u64,
    /// Number of the next generation.
    pub next_number: u64,
    /// What serves, unless a trial does.
    pub confirmed: Option<Generation>,
    /// What served before.
    pub previous: Option<Generation>,
    /// What is being tried.
    pub trial: Option<OnTrial>,
    /// Highest confirmed counter of a bundle.
    pub bundle_floor: u64,
    /// Highest confirmed counter of a gallery.
    pub gallery_floor: u64,
    /// Why the last one was not kept.
    pub refusal: Option<Refusal>,
}

impl Pointer {
    /// Generations whose files are needed.
    pub(super) fn generations(&self) -> impl Iterator<Item = &Generation> {
        let trial = self.trial.as_ref().map(|trial| &trial.generation);
        [self.confirmed.as_ref(), self.previous.as_ref(), trial]
            .into_iter()
            .flatten()
    }

    /// The newest readable record; the newest confirmed generation if there is none.
    ///
    /// A record that the disk does not give back is passed over: the other one, or the scan,
    /// serves something that was whole.
    pub(super) fn read<F: Fs>(fs: &F, root: &Path) -> Result<Self, SlotsError> {
        let records = RECORDS.map(|name| read_record(fs, &root.join(name)).unwrap_or(None));
        match records.into_iter().flatten().max_by_key(|p| p.sequence) {
            Some(pointer) => Ok(pointer),
            None => Self::by_scan(fs, root),
        }
    }

    /// Like [`read`](Self::read) for whoever changes the store on its ground: a record that
    /// the disk does not give back is an error, because what is built on the other one could
    /// throw away what this one needs.
    pub(super) fn read_surely<F: Fs>(fs: &F, root: &Path) -> Result<Self, SlotsError> {
        for name in RECORDS {
            let path = root.join(name);
            read_record(fs, &path).map_err(SlotsError::because("read", &path))?;
        }
        Self::read(fs, root)
    }

    /// Writes this as the newest record: to the file that does not hold the newest one.
    pub(super) fn write<F: Fs>(&mut self, fs: &F, root: &Path) -> Result<(), SlotsError> {
        let mut newest: Option<(Self, usize)> = None;
        for (record_idx, name) in RECORDS.iter().enumerate() {
            let path = root.join(name);
            // Unlike `read` this takes no answer but a sure one: a record that only seems to
            // be lost would come back later, with a higher number than what is written now.
            let record = read_record(fs, &path).map_err(SlotsError::because("read", &path))?;
            if let Some(record) = record
                && newest
                    .as_ref()
                    .is_none_or(|(known, _)| record.sequence > known.sequence)
            {
                newest = Some((record, record_idx));
            }
        }
        let mut target = 0;
        if let Some((record, record_idx)) = newest {
            // After an error or a kill nobody knows whether the record that was read is on
            // the disk, and it has to be before the other one is touched. It is written
            // again, because a system that failed to sync once may take its copy for synced.
            put_record(fs, &root.join(RECORDS[record_idx]), &record)?;
            target = 1 - record_idx;
            self.sequence = self.sequence.max(record.sequence);
        }
        self.sequence += 1;
        let path = root.join(RECORDS[target]);
        let is_new = fs.len(&path).is_err();
        put_record(fs, &path, self)?;
        if is_new {
            let synced = fs.sync_folder(root);
            synced.map_err(SlotsError::because("sync", root))?;
        }
        Ok(())
    }

    /// Keeps the reason why a generation was not kept.
    pub(super) fn refuse(
        &mut self,
        bundle: Option<Fingerprint>,
        gallery: Option<Fingerprint>,
        reason: &str,
    ) {
        let mut end = reason.len().min(MAX_REASON_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = reason[..end].to_owned();
        self.refusal = Some(Refusal {
            bundle,
            gallery,
            reason,
        });
    }

    /// What can be known without a pointer: the newest generation that was confirmed, and
    /// the one before it.
    fn by_scan<F: Fs>(fs: &F, root: &Path) -> Result<Self, SlotsError> {
        let mut found = confirmed_generations(fs, root)?;
        let floor = |counter: fn(&Generation) -> u64| found.iter().map(counter).max();
        let (bundle_floor, gallery_floor) = (
            floor(|generation| generation.bundle_counter).unwrap_or(0),
            floor(|generation| generation.gallery_counter).unwrap_or(0),
        );
        let confirmed = found.pop();
        Ok(Self {
            sequence: 0,
            next_number: confirmed.as_ref().map_or(1, |newest| newest.number + 1),
            previous: found.pop(),
            confirmed,
            trial: None,
            bundle_floor,
            gallery_floor,
            refusal: None,
        })
    }
}

/// The confirmed generations that have a record, oldest first.
fn confirmed_generations<F: Fs>(fs: &F, root: &Path) -> Result<Vec<Generation>, SlotsError> {
    let folder = root.join(GENERATIONS);
    let names = match fs.list(&folder) {
        Ok(names) => names,
        Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(err) => return Err(SlotsError::because("read", &folder)(err)),
    };
    let mut found = Vec::new();
    for name in names {
        // One that can not be read is none: an older one may be.
        let record = fs.read(&folder.join(name), RECORD_BYTES as u64);
        found.extend(record.ok().and_then(|bytes| decode::<Generation>(&bytes)));
    }
    found.sort_unstable_by_key(|generation| generation.number);
    Ok(found)
}

/// Keeps a generation as confirmed, for the case that the pointer is lost.
pub(super) fn keep_confirmed<F: Fs>(
    fs: &F,
    root: &Path,
    generation: &Generation,
) -> Result<(), SlotsError> {
    // Nobody needs this record before the pointer is written, which is after it is whole.
    let folder = root.join(GENERATIONS);
    put_record(fs, &folder.join(record_name(generation.number)), generation)?;
    fs.sync_folder(&folder)
        .map_err(SlotsError::because("sync", &folder))
}

/// Name of the record of a confirmed generation.
pub(super) fn record_name(number: u64) -> String {
    format!("{number:020}")
}

fn put_record<F: Fs>(fs: &F, path: &Path, value: &impl Serialize) -> Result<(), SlotsError> {
    fs.write_at(path, 0, &encode(value))
        .map_err(SlotsError::because("write", path))?;
    fs.sync(path).map_err(SlotsError::because("sync", path))
}

fn read_record<F: Fs>(fs: &F, path: &Path) -> io::Result<Option<Pointer>> {
    match fs.read(path, RECORD_BYTES as u64) {
        Ok(bytes) => Ok(decode(&bytes)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        // Longer than any record: damaged.
        Err(err) if err.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(err) => Err(err),
    }
}

/// Magic, length and SHA-256 of the value, the value, zeros.
fn encode(value: &impl Serialize) -> Vec<u8> {
    let value = postcard::to_stdvec(value).expect("integers, hashes and text can be written");
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&Fingerprint::of_bytes(&value).0);
    bytes.extend_from_slice(&value);
    assert!(
        bytes.len() <= RECORD_BYTES,
        "a record's parts are bounded: {} bytes",
        bytes.len()
    );
    bytes.resize(RECORD_BYTES, 0);
    bytes
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Option<T> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (n_bytes, rest) = rest.split_first_chunk::<4>()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let value = rest.get(..u32::from_le_bytes(*n_bytes) as usize)?;
    if *magic != MAGIC || Fingerprint::of_bytes(value).0 != *hash {
        return None;
    }
    let (value, left) = postcard::take_from_bytes(value).ok()?;
    left.is_empty().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(number: u64) -> Generation {
        Generation {
            number,
            bundle: Fingerprint([1; 32]),
            gallery: Fingerprint([2; 32]),
            bundle_counter: u64::MAX,
            gallery_counter: u64::MAX,
        }
    }

    #[test]
    fn the_largest_record_fits_and_comes_back() {
        let mut largest = Pointer {
            sequence: u64::MAX,
            next_number: u64::MAX,
            confirmed: Some(generation(u64::MAX)),
            previous: Some(generation(u64::MAX - 1)),
            trial: Some(OnTrial {
                generation: generation(u64::MAX - 2),
                starts: u32::MAX,
            }),
            bundle_floor: u64::MAX,
            gallery_floor: u64::MAX,
            refusal: None,
        };
        let hash = Some(Fingerprint([3; 32]));
        largest.refuse(hash, hash, &"ü".repeat(10_000));
        let bytes = encode(&largest);
        assert_eq!(bytes.len(), RECORD_BYTES);
        assert_eq!(decode(&bytes), Some(largest));
    }

    #[test]
    fn no_bit_of_a_record_changes_unnoticed() {
        let whole = encode(&generation(7));
        let used = 44 + postcard::to_stdvec(&generation(7)).unwrap().len();
        for bit in 0..8 * used {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode::<Generation>(&bytes), None, "bit {bit}");
        }
        for n_bytes in 0..used {
            assert_eq!(decode::<Generation>(&whole[..n_bytes]), None);
        }
    }
}
