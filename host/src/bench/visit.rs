//! What the board said in one visit to a cell: raw, one JSON file a visit.
//!
//! A visit starts the cell's process anew, so that every window has its own cold start.
//! Everything in a session's results follows from these records and its catalog.

use std::path::{Path, PathBuf};

use eyas_shared::files::{self, FileError};
use eyas_shared::link::bench::{Moment, Operator, Prepared, Sample, Used};
use serde::{Deserialize, Serialize};

use super::record::{self, RecordError};

/// Folder of the records in a session.
pub const VISITS: &str = "visits";

const SCHEMA: &str = "eyas.visit/1";

/// What a visit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// All queries, once.
    Accuracy,
    /// One window of this round and, if a window before it was flagged, of this try.
    Window {
        /// From 0.
        round: usize,
        /// From 0.
        again: usize,
    },
}

impl Purpose {
    fn name(self) -> String {
        match self {
            Self::Accuracy => "accuracy".to_owned(),
            Self::Window { round, again: 0 } => format!("window-{round}"),
            Self::Window { round, again } => format!("window-{round}-again-{again}"),
        }
    }
}

/// One visit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Visit {
    schema: String,
    /// Key of the cell.
    pub cell: String,
    /// What it was for.
    pub purpose: Purpose,
    /// Number of the visit in the session, from 0: their order in time.
    pub number: usize,
    /// What is added to the board's clock to get the host's, in microseconds.
    pub clock_offset_us: i64,
    /// What it took to be ready.
    pub prepared: Option<Prepared>,
    /// What the first query took.
    pub first: Option<Sample>,
    /// The window.
    pub window: Option<WindowRecord>,
    /// Queries that were answered, by index.
    pub answers: Vec<AnswerRecord>,
    /// Queries that were not, by index, with the reason.
    pub failed: Vec<(usize, String)>,
    /// The student's operators.
    pub operators: Vec<Operator>,
    /// What the process used.
    pub used: Option<Used>,
    /// Why the visit came to nothing; none if it did not.
    pub failure: Option<String>,
}

/// A window as the board said it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowRecord {
    /// The board at its beginning.
    pub before: Moment,
    /// The board at its end.
    pub after: Moment,
    /// Nanoseconds of decode, preprocess, encode and search of each query, in order.
    #[serde(with = "samples")]
    pub samples: Vec<Sample>,
}

/// A query as the board answered it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerRecord {
    /// Index of the query.
    pub query: usize,
    /// Id, label and score, best first.
    pub matches: Vec<(String, String, f32)>,
    /// `match`, `uncertain` or `unknown`.
    pub verdict: Option<String>,
    /// Microseconds of the whole query.
    pub total_us: u64,
    /// Cosine of the board's embedding with the host's.
    pub cosine: f64,
    /// Id of the host's own first match.
    pub host_first: String,
    /// The board's embedding in the plane of the gallery's map.
    pub at: [f32; 2],
}

impl Visit {
    /// A visit that has not begun.
    #[must_use]
    pub fn new(cell: &str, purpose: Purpose, number: usize) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            cell: cell.to_owned(),
            purpose,
            number,
            clock_offset_us: 0,
            prepared: None,
            first: None,
            window: None,
            answers: Vec::new(),
            failed: Vec::new(),
            operators: Vec::new(),
            used: None,
            failure: None,
        }
    }

    /// Where a visit's record lies in its session.
    fn path(session: &Path, cell: &str, purpose: Purpose) -> PathBuf {
        let name = format!("{}--{}.json", cell.replace('/', "--"), purpose.name());
        session.join(VISITS).join(name)
    }

    /// The record of a visit; none if there is none.
    ///
    /// # Errors
    /// If there is something else in its place: nothing that was measured is passed over.
    pub fn read(session: &Path, cell: &str, purpose: Purpose) -> Result<Option<Self>, RecordError> {
        let path = Self::path(session, cell, purpose);
        if !path.exists() {
            return Ok(None);
        }
        let visit = record::read(&path, SCHEMA, |visit: &Self| &visit.schema)?;
        let is_it = visit.cell == cell && visit.purpose == purpose;
        Ok(is_it.then_some(visit))
    }

    /// Puts the record into its session.
    ///
    /// # Errors
    /// If the system refuses.
    ///
    /// # Panics
    /// Never: a record has a JSON form.
    pub fn save(&self, session: &Path) -> Result<(), FileError> {
        let json = serde_json::to_string(self).expect("a record has a JSON form");
        let path = Self::path(session, &self.cell, self.purpose);
        files::replace(&path, (json + "\n").as_bytes())
    }
}

/// Samples as lists of four numbers.
mod samples {
    use super::{Deserialize, Sample};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(samples: &[Sample], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(
            samples
                .iter()
                .map(|it| [it.decode, it.preprocess, it.encode, it.search]),
        )
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<Sample>, D::Error> {
        let rows = Vec::<[u64; 4]>::deserialize(from)?;
        let samples = rows.into_iter();
        Ok(samples
            .map(|[decode, preprocess, encode, search]| Sample {
                decode,
                preprocess,
                encode,
                search,
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(VISITS)).unwrap();
        let purpose = Purpose::Window { round: 3, again: 1 };
        let mut visit = Visit::new("s/f16/1/g", purpose, 7);
        visit.window = Some(WindowRecord {
            before: Moment::default(),
            after: Moment::default(),
            samples: vec![Sample {
                decode: 1,
                preprocess: 2,
                encode: 3,
                search: u64::MAX,
            }],
        });
        visit.save(folder.path()).unwrap();
        let read = |cell, purpose| Visit::read(folder.path(), cell, purpose);
        assert_eq!(read("s/f16/1/g", purpose).unwrap(), Some(visit));
        assert_eq!(read("s/f16/1/g", Purpose::Accuracy).unwrap(), None);
        assert_eq!(read("s/f32/1/g", purpose).unwrap(), None);
        let path = Visit::path(folder.path(), "s/f16/1/g", purpose);
        std::fs::write(path, "{").unwrap();
        assert!(read("s/f16/1/g", purpose).is_err(), "damaged is not absent");
    }
}
