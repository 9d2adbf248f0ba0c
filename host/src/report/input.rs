//! What a folder holds, told by the files in it, and read as a record.

use std::path::{Path, PathBuf};

use eyas_shared::files::{self, FileError};
use eyas_shared::preprocess::{Limits, decode};
use thiserror::Error;

use super::Thumbnail;
use crate::bench::record::RecordError;
use crate::bench::results::{PICTURES, RESULTS_FILE, Results};
use crate::runs::events::{self, EVENT_FILE, Scalar};
use crate::runs::{MAX_FILE_BYTES, Run};
use crate::sweep::StoredSweep;

/// A record with its folder.
#[derive(Clone, Debug)]
pub enum Input {
    /// A bench session.
    Session(Session),
    /// A training run.
    Run(Training),
    /// A sweep.
    Sweep(StoredSweep),
}

/// A bench session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Where it lies.
    pub folder: PathBuf,
    /// What it found.
    pub results: Box<Results>,
}

/// A training run with the numbers of its steps.
#[derive(Clone, Debug)]
pub struct Training {
    /// What it was and how far it came.
    pub run: Run,
    /// Numbers at steps, by their names, as TensorBoard shows them.
    pub scalars: Vec<Scalar>,
}

/// Why a folder gives no record.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InputError {
    /// Nothing that is known lies in it.
    #[error(
        "`{}` is neither a session (`results.json`), nor a run (`recipe.toml` with \
         `metrics.jsonl`), nor a sweep (`cells`)", .0.display()
    )]
    Unknown(PathBuf),
    /// A file can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A session's results can not be used.
    #[error(transparent)]
    Session(#[from] RecordError),
}

/// Reads what a folder holds.
///
/// # Errors
/// If it is not known, or can not be read.
pub fn read(folder: &Path) -> Result<Input, InputError> {
    if folder.join(RESULTS_FILE).is_file() {
        let results = Box::new(Results::read(folder)?);
        let folder = folder.to_owned();
        return Ok(Input::Session(Session { folder, results }));
    }
    if let Some(run) = Run::open(folder)? {
        let events = folder.join(EVENT_FILE);
        let scalars = if events.is_file() {
            events::scalars(&files::read(&events, MAX_FILE_BYTES)?)
        } else {
            Vec::new()
        };
        return Ok(Input::Run(Training { run, scalars }));
    }
    match StoredSweep::open(folder)? {
        Some(sweep) => Ok(Input::Sweep(sweep)),
        None => Err(InputError::Unknown(folder.to_owned())),
    }
}

impl Session {
    /// The picture of an image; none if it was not kept, or is none.
    #[must_use]
    pub fn picture(&self, id: &str) -> Option<Thumbnail> {
        let is_name = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_name {
            return None;
        }
        let path = self.folder.join(PICTURES).join(format!("{id}.jpg"));
        let bytes = files::read(&path, Limits::DEFAULT.max_bytes).ok()?;
        Thumbnail::of(&decode(&bytes, &Limits::DEFAULT).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn folders_are_told_apart_by_what_lies_in_them() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let folder = root.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            folder
        };
        assert!(matches!(read(&at("none")), Err(InputError::Unknown(_))));
        let session = at("session");
        std::fs::write(session.join(RESULTS_FILE), fixture::session().to_json()).unwrap();
        let Input::Session(found) = read(&session).unwrap() else {
            panic!("a session");
        };
        assert_eq!(found.results.name, fixture::session().name);
        let run = at("run");
        std::fs::write(run.join("recipe.toml"), "name = \"r\"\n").unwrap();
        std::fs::write(run.join("metrics.jsonl"), "").unwrap();
        assert!(matches!(read(&run), Ok(Input::Run(_))));
        std::fs::write(session.join(RESULTS_FILE), "{}").unwrap();
        assert!(matches!(read(&session), Err(InputError::Session(_))));
    }

    #[test]
    fn pictures_are_only_sought_by_the_names_of_images() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("session");
        std::fs::create_dir_all(folder.join(PICTURES)).unwrap();
        let image = eyas_shared::bundle::probe_image(0);
        let jpeg = Thumbnail::of(&image).unwrap().into_jpeg();
        let id = "0123456789abcdef0123456789abcdef";
        std::fs::write(folder.join(PICTURES).join(format!("{id}.jpg")), &jpeg).unwrap();
        std::fs::write(root.path().join("outside.jpg"), &jpeg).unwrap();
        let results = fixture::session();
        let session = Session {
            folder,
            results: Box::new(results),
        };
        assert!(session.picture(id).is_some());
        assert!(session.picture("../../outside").is_none());
        assert!(session.picture(&"0".repeat(32)).is_none());
    }
}
