//! Files on their way into the store: appended piece by piece, and continued after either
//! side was restarted.
//!
//! A file is announced by its hash and length. Beside it lies a log of *checkpoints*: how
//! many bytes there were, and their hash. A checkpoint proves itself, because whoever
//! continues reads the file again and takes the last checkpoint whose hash fits; so neither
//! the order in which the disk wrote things nor a bit that turned over can do more harm than
//! to go back by one checkpoint.

use std::io;
use std::path::{Path, PathBuf};

use eyas_shared::fingerprint::{ContentHasher, Fingerprint};

use super::fs::Fs;
use super::{Slots, SlotsError};

/// Bytes that are collected in memory before they are written, and read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Bytes between two checkpoints unless the caller says otherwise: what a power cut may cost
/// of a transfer over a slow link.
pub const CHECKPOINT_BYTES: u64 = 64 << 10;

/// Most checkpoints of one file; the distance grows for very large files.
const MAX_CHECKPOINTS: u64 = 1 << 14;

/// Room that stays free for records and logs, in bytes.
const RESERVE_BYTES: u64 = 1 << 20;

/// Folder of files that no generation uses yet.
pub(super) const STAGED: &str = "staged";

/// Length and hash of one checkpoint.
const ENTRY_BYTES: usize = 8 + 32;

/// A file that is being received. Dropping it keeps what has come so far.
pub struct Staging<'s, F: Fs> {
    slots: &'s Slots<F>,
    hash: Fingerprint,
    bytes: u64,
    step: u64,
    hasher: ContentHasher,
    have: u64,
    /// Received, not yet written.
    piece: Vec<u8>,
    /// Bytes up to the last checkpoint, and how many checkpoints there are.
    safe: u64,
    n_entries: u64,
    _lock: F::Lock,
}

/// A file that waits for its installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagedFile {
    /// Its content.
    pub hash: Fingerprint,
    /// Bytes that are there.
    pub have: u64,
    /// Whether it is all there, and its hash was checked.
    pub is_whole: bool,
    /// Whether a signature lies beside it.
    pub is_signed: bool,
}

/// The names of one staged file.
pub(super) struct Names {
    pub(super) whole: PathBuf,
    pub(super) part: PathBuf,
    pub(super) log: PathBuf,
    pub(super) lock: PathBuf,
}

impl Names {
    pub(super) fn of(root: &Path, hash: Fingerprint) -> Self {
        let at = |ending: &str| root.join(STAGED).join(format!("{hash}{ending}"));
        Self {
            whole: at(""),
            part: at(".part"),
            log: at(".log"),
            lock: at(".lock"),
        }
    }
}

impl<F: Fs> Slots<F> {
    /// Begins to receive a file, or goes on with it: [`Staging::have`] says from where.
    ///
    /// A file that is in the store already has all its bytes at once.
    ///
    /// # Errors
    /// If the length is refused, room is short, or somebody else receives the same file.
    pub fn stage(&self, hash: Fingerprint, bytes: u64) -> Result<Staging<'_, F>, SlotsError> {
        self.stage_by(hash, bytes, CHECKPOINT_BYTES)
    }

    /// [`stage`](Self::stage) with a checkpoint at least every `step` bytes.
    ///
    /// # Errors
    /// As [`stage`](Self::stage).
    pub fn stage_by(
        &self,
        hash: Fingerprint,
        bytes: u64,
        step: u64,
    ) -> Result<Staging<'_, F>, SlotsError> {
        let limit = self.settings()?.max_file_bytes;
        if !(1..=limit).contains(&bytes) {
            return Err(SlotsError::Length { bytes, limit });
        }
        let lock = self.lock_staged(hash)?;
        let mut staging = Staging {
            slots: self,
            hash,
            bytes,
            step: step.max(bytes / MAX_CHECKPOINTS).max(1),
            hasher: ContentHasher::new(),
            have: 0,
            piece: Vec::new(),
            safe: 0,
            n_entries: 0,
            _lock: lock,
        };
        if self.locate(hash)?.is_some() {
            staging.have = bytes;
            staging.safe = bytes;
        } else {
            staging.resume()?;
            self.check_space(bytes - staging.have)?;
        }
        Ok(staging)
    }

    /// Whether a whole file with this content is in the store.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn has(&self, hash: Fingerprint) -> Result<bool, SlotsError> {
        Ok(self.locate(hash)?.is_some())
    }

    /// Files that wait for their installation, or of which a part is there.
    ///
    /// # Errors
    /// If the folder can not be read.
    pub fn staged(&self) -> Result<Vec<StagedFile>, SlotsError> {
        let folder = self.root.join(STAGED);
        let names = self.fs.list(&folder);
        let names = names.map_err(SlotsError::because("read", &folder))?;
        let mut files = Vec::new();
        for name in &names {
            let hex = name.strip_suffix(".part").unwrap_or(name);
            let Some(hash) = Fingerprint::from_hex(hex) else {
                continue;
            };
            files.push(StagedFile {
                hash,
                have: self.fs.len(&folder.join(name)).unwrap_or(0),
                is_whole: hex == name,
                is_signed: self.signature_of(hash)?.is_some(),
            });
        }
        Ok(files)
    }

    /// Forgets a staged file, whole or in part. A file that a generation uses stays.
    ///
    /// # Errors
    /// If the system refuses, or the file is being received.
    pub fn discard(&self, hash: Fingerprint) -> Result<(), SlotsError> {
        let _lock = self.lock_staged(hash)?;
        self.forget(hash)
    }

    /// [`discard`](Self::discard) by whoever has the lock or needs none.
    pub(super) fn forget(&self, hash: Fingerprint) -> Result<(), SlotsError> {
        let names = Names::of(&self.root, hash);
        for path in [names.log, names.part, names.whole, names.lock] {
            self.remove_if_there(&path)?;
        }
        Ok(())
    }

    pub(super) fn lock_staged(&self, hash: Fingerprint) -> Result<F::Lock, SlotsError> {
        let path = Names::of(&self.root, hash).lock;
        let lock = self.fs.try_lock(&path);
        let lock = lock.map_err(SlotsError::because("lock", &path))?;
        let doing = "receiving the same file";
        lock.ok_or(SlotsError::Busy { doing, path })
    }

    pub(super) fn check_space(&self, missing: u64) -> Result<(), SlotsError> {
        let free = self.fs.free_bytes(&self.root);
        let free = free.map_err(SlotsError::because("measure", &self.root))?;
        let needed = missing.saturating_add(RESERVE_BYTES);
        if needed > free {
            let path = self.root.clone();
            return Err(SlotsError::NoSpace { needed, free, path });
        }
        Ok(())
    }

    pub(super) fn remove_if_there(&self, path: &Path) -> Result<(), SlotsError> {
        match self.fs.remove(path) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(SlotsError::because("remove", path)(err))
            }
            _ => Ok(()),
        }
    }
}

impl<F: Fs> Staging<'_, F> {
    /// Bytes that are there: what is sent next begins here.
    #[must_use]
    pub fn have(&self) -> u64 {
        self.have
    }

    /// Bytes that a power cut can not take any more.
    #[must_use]
    pub fn safe(&self) -> u64 {
        self.safe
    }

    /// Length of the whole file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The content that was announced.
    #[must_use]
    pub fn hash(&self) -> Fingerprint {
        self.hash
    }

    /// Takes the next bytes. Those before [`have`](Self::have) are taken as known.
    ///
    /// # Errors
    /// If they leave a gap or go beyond the end, or the disk refuses; what was safe stays.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SlotsError> {
        let end = offset.checked_add(bytes.len() as u64);
        let Some(end) = end.filter(|end| *end <= self.bytes && offset <= self.have) else {
            return Err(SlotsError::OutOfOrder {
                offset,
                have: self.have,
                bytes: self.bytes,
            });
        };
        if end <= self.have {
            return Ok(());
        }
        let mut rest = &bytes[(self.have - offset) as usize..];
        while !rest.is_empty() {
            let room = PIECE_BYTES - self.piece.len();
            let (now, later) = rest.split_at(rest.len().min(room));
            self.piece.extend_from_slice(now);
            self.have += now.len() as u64;
            rest = later;
            if self.piece.len() == PIECE_BYTES {
                self.flush()?;
            }
            if self.have - self.safe >= self.step {
                self.checkpoint()?;
            }
        }
        Ok(())
    }

    /// Makes all bytes safe from a power cut.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn checkpoint(&mut self) -> Result<(), SlotsError> {
        self.flush()?;
        if self.safe == self.have {
            return Ok(());
        }
        let names = Names::of(&self.slots.root, self.hash);
        let fs = &self.slots.fs;
        self.sync_part(&names.part)?;
        let entry = encode_entry(self.have, self.hasher.clone().finish());
        let offset = self.n_entries * ENTRY_BYTES as u64;
        fs.write_at(&names.log, offset, &entry)
            .map_err(SlotsError::because("write", &names.log))?;
        fs.sync(&names.log)
            .map_err(SlotsError::because("sync", &names.log))?;
        if self.n_entries == 0 {
            self.slots.sync_folder(STAGED)?;
        }
        self.n_entries += 1;
        self.safe = self.have;
        Ok(())
    }

    /// Ends the transfer: the content must be what its hash says, and is safe afterwards.
    ///
    /// # Errors
    /// If bytes are missing; if the content is another, which is thrown away; if the disk
    /// refuses.
    pub fn finish(mut self) -> Result<(), SlotsError> {
        if self.have < self.bytes {
            return Err(SlotsError::NotWhole {
                hash: self.hash,
                have: self.have,
                bytes: self.bytes,
            });
        }
        if self.slots.locate(self.hash)?.is_some() {
            return Ok(());
        }
        self.flush()?;
        let expected = self.hash;
        let found = self.hasher.clone().finish();
        if found != expected {
            self.slots.forget(self.hash)?;
            return Err(SlotsError::OtherContent { expected, found });
        }
        let names = Names::of(&self.slots.root, self.hash);
        let fs = &self.slots.fs;
        self.sync_part(&names.part)?;
        fs.rename(&names.part, &names.whole)
            .map_err(SlotsError::because("rename", &names.part))?;
        self.slots.sync_folder(STAGED)?;
        self.slots.remove_if_there(&names.log)?;
        self.slots.remove_if_there(&names.lock)
    }

    /// A system that failed to sync once may take what it has in memory for synced: then all
    /// has to be written anew, and is sent again.
    fn sync_part(&self, part: &Path) -> Result<(), SlotsError> {
        let synced = self.slots.fs.sync(part);
        if synced.is_err() {
            // The first error is the one to tell.
            let _ = self.slots.forget(self.hash);
        }
        synced.map_err(SlotsError::because("sync", part))
    }

    fn flush(&mut self) -> Result<(), SlotsError> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let part = Names::of(&self.slots.root, self.hash).part;
        let offset = self.have - self.piece.len() as u64;
        let written = self.slots.fs.write_at(&part, offset, &self.piece);
        written.map_err(SlotsError::because("write", &part))?;
        self.hasher.update(&self.piece);
        self.piece.clear();
        Ok(())
    }

    /// Finds the last checkpoint that the file's bytes bear out.
    fn resume(&mut self) -> Result<(), SlotsError> {
        let names = Names::of(&self.slots.root, self.hash);
        let fs = &self.slots.fs;
        let max_bytes = (MAX_CHECKPOINTS + 2) * 2 * ENTRY_BYTES as u64;
        // A log that can not be read costs the time of sending again, no more.
        let log = fs.read(&names.log, max_bytes).unwrap_or_default();
        let mut hasher = ContentHasher::new();
        let mut at = 0;
        let mut buffer = vec![0; PIECE_BYTES];
        for (entry_idx, entry) in (0_u64..).zip(log.as_chunks::<ENTRY_BYTES>().0) {
            let (have, prefix) = decode_entry(entry);
            if have > self.bytes || have < at {
                break;
            }
            while at < have {
                let n = (have - at).min(PIECE_BYTES as u64) as usize;
                let piece = &mut buffer[..n];
                if fs.read_at(&names.part, at, piece).ok() != Some(n) {
                    return Ok(());
                }
                hasher.update(piece);
                at += n as u64;
            }
            if hasher.clone().finish() != prefix {
                return Ok(());
            }
            (self.have, self.safe) = (have, have);
            self.hasher = hasher.clone();
            self.n_entries = entry_idx + 1;
        }
        Ok(())
    }
}

fn encode_entry(have: u64, prefix: Fingerprint) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..8].copy_from_slice(&have.to_le_bytes());
    entry[8..].copy_from_slice(&prefix.0);
    entry
}

fn decode_entry(entry: &[u8; ENTRY_BYTES]) -> (u64, Fingerprint) {
    let (have, prefix) = entry.split_at(8);
    let have = have.try_into().expect("the first 8 bytes");
    let prefix = prefix.try_into().expect("the other 32 bytes");
    (u64::from_le_bytes(have), Fingerprint(prefix))
}
