//! A sweep's folder as it was left, for those who have not its file: records and tables.

use std::path::{Path, PathBuf};

use eyas_shared::files::{self, FileError};
use serde::Deserialize;

use super::record::{CellRecord, RECORD_FILE};

/// Name of the folder of cells.
const CELLS: &str = "cells";

/// Name of the table that holds the teacher's scores.
const TABLE: &str = "table.csv";

/// Largest table that is read.
const MAX_BYTES: u64 = 16 << 20;

/// A sweep that was run, wholly or in part.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSweep {
    /// Where it lies.
    pub folder: PathBuf,
    /// What came of its cells, by student, loss and seed.
    pub records: Vec<CellRecord>,
    /// The teacher's own score in each gallery, as far as the table has it.
    pub teacher: Vec<TeacherScore>,
}

/// The teacher's own score in a gallery, as `table.csv` holds it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TeacherScore {
    /// Name of the gallery.
    pub gallery: String,
    /// Images that asked.
    pub n_queries: usize,
    /// Images that were searched.
    pub n_gallery: usize,
    /// Of the teacher.
    pub teacher_recall_at_1: f64,
    /// Of the teacher.
    pub teacher_mean_average_precision_at_r: f64,
}

impl StoredSweep {
    /// Reads a sweep's folder; `None` if it holds no cell's record. Links are not followed,
    /// and records of another version left out.
    ///
    /// # Errors
    /// If a folder or a file can not be read.
    pub fn open(folder: &Path) -> Result<Option<Self>, FileError> {
        let cells = folder.join(CELLS);
        if !cells.is_dir() {
            return Ok(None);
        }
        // cells/STUDENT/LOSS/seed-N
        let mut level = vec![cells];
        for _ in 0..3 {
            let mut below = Vec::new();
            for folder in &level {
                below.extend(folders_in(folder)?);
            }
            level = below;
        }
        let mut records: Vec<CellRecord> = { level.iter() }
            .filter_map(|folder| CellRecord::open(folder))
            .collect();
        records.sort_by(|a, b| (&a.student, &a.loss, a.seed).cmp(&(&b.student, &b.loss, b.seed)));
        if records.is_empty() {
            return Ok(None);
        }
        let folder = folder.to_owned();
        let teacher = teacher_scores(&folder)?;
        Ok(Some(Self {
            folder,
            records,
            teacher,
        }))
    }
}

fn folders_in(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = std::fs::read_dir(folder).map_err(FileError::because("list", folder))?;
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(FileError::because("list", folder))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

/// One a gallery; lines that are no such scores are left out.
fn teacher_scores(folder: &Path) -> Result<Vec<TeacherScore>, FileError> {
    let path = folder.join(TABLE);
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let bytes = files::read(&path, MAX_BYTES)?;
    let mut scores: Vec<TeacherScore> = Vec::new();
    for line in csv::Reader::from_reader(&bytes[..]).deserialize().flatten() {
        let score: TeacherScore = line;
        if scores.iter().all(|known| known.gallery != score.gallery) {
            scores.push(score);
        }
    }
    Ok(scores)
}

impl CellRecord {
    /// The record in a cell's folder, whatever it follows from; none if there is none.
    #[must_use]
    pub fn open(folder: &Path) -> Option<Self> {
        let bytes = files::read(&folder.join(RECORD_FILE), MAX_BYTES).ok()?;
        let record: Self = serde_json::from_slice(&bytes).ok()?;
        record.is_of_this_version().then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const HEAD: &str = "student,gallery,n_queries,n_gallery,teacher_recall_at_1,teacher_mean_average_precision_at_r\n";

    #[test]
    fn a_folder_gives_records_in_order_and_the_teachers_scores() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(StoredSweep::open(root.path()).unwrap(), None);
        for (student, seed) in [("s", 2), ("s", 1), ("a", 1)] {
            let cell = root.path().join(format!("cells/{student}/reg/seed-{seed}"));
            fs::create_dir_all(&cell).unwrap();
            let json = serde_json::json!({
                "schema": "eyas.cell/1", "fingerprint": "", "student": student, "loss": "reg",
                "seed": seed, "n_parameters": 7, "multiply_adds": 9, "failures": [], "scores": [],
            });
            fs::write(cell.join(RECORD_FILE), json.to_string()).unwrap();
        }
        let broken = root.path().join("cells/s/reg/seed-9");
        fs::create_dir_all(&broken).unwrap();
        fs::write(broken.join(RECORD_FILE), "{").unwrap();
        let lines = "s,g,10,20,0.8,0.7\na,g,10,20,0.8,0.7\na,h,no,20,0.8,0.7\n";
        fs::write(root.path().join(TABLE), format!("{HEAD}{lines}")).unwrap();

        let sweep = StoredSweep::open(root.path()).unwrap().unwrap();
        let names: Vec<(&str, u64)> = { sweep.records.iter() }
            .map(|record| (&*record.student, record.seed))
            .collect();
        assert_eq!(names, [("a", 1), ("s", 1), ("s", 2)]);
        let [score] = &sweep.teacher[..] else {
            panic!("{:?}", sweep.teacher)
        };
        assert_eq!((&*score.gallery, score.teacher_recall_at_1), ("g", 0.8));
    }
}
