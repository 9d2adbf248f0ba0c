//! What a session is about, beside what the board says: cells, queries, galleries and the
//! board itself. Written once, when the session begins; with it and the visits the results
//! can be computed again anywhere.

use std::path::Path;

use eyas_shared::files::{self, FileError};
use serde::{Deserialize, Serialize};

use super::record::{self, RecordError};
use super::results::{Board, BundleFacts, GalleryFacts, Protocol, QueryImage, ReliabilityBin};

const FILE: &str = "catalog.json";

const SCHEMA: &str = "eyas.catalog/1";

/// What a session is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    schema: String,
    /// Name of the plan.
    pub name: String,
    /// Hash of the plan's text and of what the command line chose of it.
    pub plan: String,
    /// When the session began, UTC.
    pub began: String,
    /// Name, version and commit of the host's program.
    pub host: String,
    /// How it is measured.
    pub protocol: Protocol,
    /// The board, as it was when the session began.
    pub board: Board,
    /// Images that ask.
    pub queries: Vec<QueryImage>,
    /// Galleries.
    pub galleries: Vec<CatalogGallery>,
    /// Cells, in the order of the plan.
    pub cells: Vec<CatalogCell>,
}

/// A gallery of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatalogGallery {
    /// For reports.
    pub facts: GalleryFacts,
    /// For each query, rows with its label, its own image left out.
    pub n_relevant: Vec<usize>,
}

/// A cell of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatalogCell {
    /// `student/precision/threads/gallery`.
    pub key: String,
    /// Name of the student.
    pub student: String,
    /// `f32`, `f16` or `int8`.
    pub precision: String,
    /// Threads that encode and search.
    pub threads: u16,
    /// Name of the gallery.
    pub gallery: String,
    /// The student's file.
    pub bundle: BundleFacts,
    /// The curve of its calibration for the gallery; empty if there is none.
    pub reliability: Vec<ReliabilityBin>,
    /// Names of the nodes of the student's ONNX file.
    pub layers: Vec<String>,
}

/// What is known at the beginning.
pub(super) struct Beginning {
    pub(super) name: String,
    pub(super) plan: String,
    pub(super) began: String,
    pub(super) host: String,
    pub(super) protocol: Protocol,
}

impl Catalog {
    pub(super) fn new(
        beginning: Beginning,
        queries: Vec<QueryImage>,
        galleries: Vec<CatalogGallery>,
        cells: Vec<CatalogCell>,
        board: Board,
    ) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            name: beginning.name,
            plan: beginning.plan,
            began: beginning.began,
            host: beginning.host,
            protocol: beginning.protocol,
            board,
            queries,
            galleries,
            cells,
        }
    }

    /// The gallery of a cell, which the catalog has.
    #[must_use]
    pub fn gallery(&self, name: &str) -> Option<&CatalogGallery> {
        { self.galleries.iter() }.find(|gallery| gallery.facts.name == name)
    }

    /// Reads the catalog of a session.
    ///
    /// # Errors
    /// If there is none, or one of another version.
    pub fn read(session: &Path) -> Result<Self, RecordError> {
        record::read(&session.join(FILE), SCHEMA, |it: &Self| &it.schema)
    }

    /// Puts the catalog into a session.
    ///
    /// # Errors
    /// If the system refuses.
    ///
    /// # Panics
    /// Never: a catalog has a JSON form.
    pub fn save(&self, session: &Path) -> Result<(), FileError> {
        let json = serde_json::to_string(self).expect("a catalog has a JSON form");
        files::replace(&session.join(FILE), (json + "\n").as_bytes())
    }

    /// What is different in a session that is to go on as this one; none if nothing is but
    /// the time that it began.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let mine = |cell: &CatalogCell| (cell.key.clone(), cell.bundle.hash.clone());
        let cells = |of: &Self| of.cells.iter().map(mine).collect::<Vec<_>>();
        let galleries = |of: &Self| {
            let all = of.galleries.iter();
            all.map(|it| (it.facts.name.clone(), it.facts.hash.clone()))
                .collect::<Vec<_>>()
        };
        let differences = [
            (self.plan != other.plan, "its plan"),
            (self.queries != other.queries, "the images that ask"),
            (galleries(self) != galleries(other), "a gallery"),
            (cells(self) != cells(other), "a student"),
            (self.board.cpu != other.board.cpu, "the board's processor"),
            (
                self.board.program_hash != other.board.program_hash,
                "the board's program",
            ),
        ];
        let found = differences.iter().find(|(differs, _)| *differs);
        found.map(|(_, what)| *what)
    }
}
