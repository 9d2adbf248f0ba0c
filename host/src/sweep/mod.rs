//! A sweep: students x losses x seeds, each trained, exported and scored alike, in one
//! table.
//!
//! [`mod@file`] reads what is asked for, [`ground`] holds the galleries and queries that all
//! are scored on, [`record`] what is kept of each cell, [`table`] the means over seeds,
//! [`stored`] reads all that back without the file.
//! Training is not here: the command line calls what `eyas train` calls.

pub mod file;
pub mod ground;
pub mod record;
pub mod stored;
pub mod table;

pub use file::{Cell, SweepError, SweepFile};
pub use ground::{Ground, GroundError};
pub use record::{Ceiling, CellRecord, Mode, Score};
pub use stored::{StoredSweep, TeacherScore};
pub use table::{Summary, Sweep};
