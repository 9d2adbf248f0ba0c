//! A session's folder: what the plan was, what the board said, what came of it.
//!
//! ```text
//! plan.toml       the plan, as it was given
//! catalog.json    cells, queries, galleries, the board
//! visits/         what the board said, one file a visit
//! incidents.json  links that broke, boards that started anew
//! energy.csv      readings of a power meter, if there are any
//! log.txt         what happened when, for people
//! samples.csv     every measured query
//! results.json    what came of it; reports are written from this
//! pictures/       small pictures of queries and of what was found
//! ```

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use eyas_shared::files::{self, FileError};
use eyas_shared::timing::Stage;
use thiserror::Error;

use super::catalog::Catalog;
use super::compute;
use super::energy::{READINGS_FILE, Readings, ReadingsError};
use super::record::RecordError;
use super::results::{PICTURES, RESULTS_FILE, Results};
use super::visit::{Purpose, VISITS, Visit};

const PLAN_FILE: &str = "plan.toml";
const LOG_FILE: &str = "log.txt";
const SAMPLES_FILE: &str = "samples.csv";
const INCIDENTS_FILE: &str = "incidents.json";

/// Largest file that is read here.
const MAX_BYTES: u64 = 1 << 30;

/// A session's folder, held by one process.
pub struct Session {
    folder: PathBuf,
    log: File,
    incidents: Vec<String>,
}

/// Why a session can not go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The system refuses a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its catalog can not be used.
    #[error(transparent)]
    Catalog(#[from] RecordError),
    /// What the board said in one visit can not be used.
    #[error(transparent)]
    Visit(RecordError),
    /// The board has said nothing yet, or the records of it are gone.
    #[error("the session `{}` has no visits, from which results could be computed", path.display())]
    Nothing {
        /// Where.
        path: PathBuf,
    },
    /// Its readings can not be used.
    #[error(transparent)]
    Readings(#[from] ReadingsError),
    /// There is something already.
    #[error("`{}` is there already", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// Another process measures in it.
    #[error("another process works in the session `{}`", path.display())]
    Busy {
        /// Where.
        path: PathBuf,
    },
    /// It is of something else.
    #[error("the session `{}` can not go on: {what} is not what it began with", path.display())]
    Other {
        /// Where.
        path: PathBuf,
        /// What is different.
        what: &'static str,
    },
}

impl Session {
    /// Makes a new folder.
    ///
    /// # Errors
    /// If there is something at the path, or the system refuses.
    pub fn create(folder: &Path, plan: &str) -> Result<Self, SessionError> {
        if folder.exists() {
            let path = folder.to_owned();
            return Err(SessionError::Exists { path });
        }
        for folder in [folder, &folder.join(VISITS), &folder.join(PICTURES)] {
            files::create_folder(folder)?;
        }
        files::replace(&folder.join(PLAN_FILE), plan.as_bytes())?;
        Self::hold(folder)
    }

    /// Opens a folder to go on in.
    ///
    /// # Errors
    /// If it is no session, or another process works in it.
    pub fn open(folder: &Path) -> Result<Self, SessionError> {
        files::read(&folder.join(PLAN_FILE), MAX_BYTES)?;
        Self::hold(folder)
    }

    fn hold(folder: &Path) -> Result<Self, SessionError> {
        let path = folder.join(LOG_FILE);
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.map_err(FileError::because("open", &path))?;
        match log.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = folder.to_owned();
                return Err(SessionError::Busy { path });
            }
            Err(TryLockError::Error(source)) => {
                return Err(FileError::because("lock", &path)(source).into());
            }
        }
        Ok(Self {
            incidents: read_incidents(folder),
            folder: folder.to_owned(),
            log,
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a line into the log, with the time.
    pub fn log(&mut self, line: &str) {
        // The log is for people; a full disk shows at the records.
        let _ = writeln!(self.log, "{}  {line}", utc_now());
    }

    /// Keeps what should not have happened; it stands in the results.
    ///
    /// # Errors
    /// If the system refuses.
    ///
    /// # Panics
    /// Never: a list of texts has a JSON form.
    pub fn note_incident(&mut self, what: &str) -> Result<(), FileError> {
        self.log(what);
        self.incidents.push(what.to_owned());
        let json = serde_json::to_string(&self.incidents).expect("texts have a JSON form");
        let path = self.folder.join(INCIDENTS_FILE);
        files::replace(&path, (json + "\n").as_bytes())
    }
}

fn read_incidents(folder: &Path) -> Vec<String> {
    let bytes = files::read(&folder.join(INCIDENTS_FILE), MAX_BYTES).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Reads all visits that a session's catalog asks for and that are there, in the order of
/// time.
///
/// # Errors
/// If a record is damaged.
pub fn visits(folder: &Path, catalog: &Catalog) -> Result<Vec<Visit>, RecordError> {
    let mut visits = Vec::new();
    for cell in &catalog.cells {
        let read = |purpose| Visit::read(folder, &cell.key, purpose);
        visits.extend(read(Purpose::Accuracy)?);
        for round in 0..catalog.protocol.n_windows {
            for again in 0..=catalog.protocol.n_retries {
                visits.extend(read(Purpose::Window { round, again })?);
            }
        }
    }
    visits.sort_by_key(|visit| visit.number);
    Ok(visits)
}

/// Computes a session's results from what the board said.
///
/// # Errors
/// If its catalog, visits or readings can not be used, or there are no visits.
pub fn compute_results(folder: &Path) -> Result<(Results, Vec<Visit>), SessionError> {
    let catalog = Catalog::read(folder)?;
    let visits = visits(folder, &catalog).map_err(SessionError::Visit)?;
    if visits.is_empty() {
        let path = folder.to_owned();
        return Err(SessionError::Nothing { path });
    }
    let readings = folder.join(READINGS_FILE);
    let readings = match readings.exists() {
        true => Some(Readings::read(&readings, catalog.protocol.energy_offset_s)?),
        false => None,
    };
    let incidents = read_incidents(folder);
    let results = compute::results(&catalog, &visits, &incidents, readings.as_ref());
    Ok((results, visits))
}

/// Computes results and samples, and writes both.
///
/// # Errors
/// As [`compute_results`], or if the system refuses.
pub fn write_results(folder: &Path) -> Result<Results, SessionError> {
    let (results, visits) = compute_results(folder)?;
    files::replace(
        &folder.join(SAMPLES_FILE),
        samples_csv(&results, &visits).as_bytes(),
    )?;
    files::replace(&folder.join(RESULTS_FILE), results.to_json().as_bytes())?;
    Ok(results)
}

/// Every measured query, a line each, in the order of time.
fn samples_csv(results: &Results, visits: &[Visit]) -> String {
    use std::fmt::Write;
    let best_pace = compute::best_pace(visits);
    let mut text = String::from("cell,round,again,flags,query");
    for stage in Stage::ALL {
        let _ = write!(text, ",{}_us", stage.name());
    }
    text.push('\n');
    let known = |key: &str| results.cells.iter().any(|cell| cell.key == key);
    for visit in visits.iter().filter(|visit| known(&visit.cell)) {
        let (Some(window), Purpose::Window { round, again }) = (&visit.window, visit.purpose)
        else {
            continue;
        };
        let raised = compute::window_flags(window, best_pace);
        let flags: BTreeSet<&str> = raised.iter().map(|raised| raised.flag.name()).collect();
        let flags = flags.into_iter().collect::<Vec<_>>().join("+");
        for (query, sample) in window.samples.iter().enumerate() {
            let cell = &visit.cell;
            let _ = write!(text, "{cell},{round},{again},{flags},{query}");
            for stage in Stage::ALL {
                let _ = write!(text, ",{:.1}", sample.nanos(stage) as f64 / 1e3);
            }
            text.push('\n');
        }
    }
    text
}

/// `2026-11-21 20:28:24 UTC`.
#[must_use]
pub fn utc_now() -> String {
    let [year, month, day, hour, minute, second] = utc(unix_seconds());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// `20261121_202824`, the name of a session that begins now.
#[must_use]
pub fn name_now() -> String {
    let [year, month, day, hour, minute, second] = utc(unix_seconds());
    format!("{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}")
}

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Year, month, day, hour, minute and second of the Gregorian calendar.
fn utc(unix_seconds: u64) -> [u64; 6] {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut days, rest) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    [
        year,
        month,
        days + 1,
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, [1970, 1, 1, 0, 0, 0]),
            (951_826_154, [2000, 2, 29, 12, 9, 14]),
            (1_709_251_199, [2024, 2, 29, 23, 59, 59]),
            (1_795_292_904, [2026, 11, 21, 20, 28, 24]),
            (4_107_542_400, [2100, 3, 1, 0, 0, 0]),
        ] {
            assert_eq!(utc(seconds), date);
        }
    }

    #[test]
    fn a_session_is_held_by_one_process_and_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("20260101_000000");
        let mut session = Session::create(&path, "name = \"x\"\n").unwrap();
        session.note_incident("the link broke").unwrap();
        assert!(matches!(
            Session::open(&path),
            Err(SessionError::Busy { .. })
        ));
        drop(session);
        assert!(matches!(
            Session::create(&path, ""),
            Err(SessionError::Exists { .. })
        ));
        let again = Session::open(&path).unwrap();
        assert_eq!(again.incidents, ["the link broke"]);
    }
}
