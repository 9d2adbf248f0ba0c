//! Which cells a user means: `SESSION`, or `SESSION#PART` with a part of a cell's key.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::bench::results::{Cell, Results};

/// A session and, if there is one, a part of a cell's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The session's folder.
    pub session: PathBuf,
    /// Part of the key of one cell.
    pub part: Option<String>,
}

impl Choice {
    /// Splits a word of the command line: a folder of that very name is a session, whatever
    /// signs its name holds.
    #[must_use]
    pub fn of(word: &str) -> Self {
        match word.rsplit_once('#') {
            Some((session, part)) if !Path::new(word).is_dir() => Self {
                session: session.into(),
                part: Some(part.to_owned()),
            },
            _ => Self {
                session: word.into(),
                part: None,
            },
        }
    }
}

/// Why cells can not be paired.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChoiceError {
    /// No key holds the part.
    #[error("no cell of `{session}` has `{part}` in its key; there are {}", keys.join(", "))]
    None {
        /// Folder.
        session: String,
        /// What was asked for.
        part: String,
        /// All cells.
        keys: Vec<String>,
    },
    /// Several keys hold it.
    #[error("{} cells of `{session}` have `{part}` in their keys: {}", keys.len(), keys.join(", "))]
    Several {
        /// Folder.
        session: String,
        /// What was asked for.
        part: String,
        /// Those cells.
        keys: Vec<String>,
    },
    /// No cell has a partner.
    #[error("no cell of `{a}` has the key of a cell of `{b}`: {} and {}", a_keys.join(", "), b_keys.join(", "))]
    NoPairs {
        /// First folder.
        a: String,
        /// Second folder.
        b: String,
        /// Cells of the first session.
        a_keys: Vec<String>,
        /// Cells of the second one.
        b_keys: Vec<String>,
    },
}

/// Cells that belong together, and those that stay alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Indices into the cells of both sessions.
    pub pairs: Vec<(usize, usize)>,
    /// Keys of the first session without a partner.
    pub only_a: Vec<String>,
    /// Keys of the second session without a partner.
    pub only_b: Vec<String>,
}

/// Pairs the cells that two choices mean. Named cells are compared whatever their keys; so
/// are the only cells of two sessions; others by equal keys.
///
/// # Errors
/// If a part means no cell or several, or nothing can be paired.
pub fn pairs(
    (a, a_cells): (&Choice, &Results),
    (b, b_cells): (&Choice, &Results),
) -> Result<Pairs, ChoiceError> {
    let (a_all, b_all) = (&a_cells.cells, &b_cells.cells);
    let named = (named(a, a_all)?, named(b, b_all)?);
    let (a_one, b_one) = match named {
        // A named cell's partner has its key, unless it is named too or the only one.
        (Some(a_idx), None) => (
            Some(a_idx),
            only(b_all).or_else(|| of_key(b_all, &a_all[a_idx])),
        ),
        (None, Some(b_idx)) => (
            only(a_all).or_else(|| of_key(a_all, &b_all[b_idx])),
            Some(b_idx),
        ),
        (None, None) => (only(a_all), only(b_all)),
        both => both,
    };
    if let (Some(a_idx), Some(b_idx)) = (a_one, b_one) {
        return Ok(Pairs {
            pairs: vec![(a_idx, b_idx)],
            ..Pairs::default()
        });
    }
    let found = by_key(a_all, b_all);
    if found.pairs.is_empty() || named != (None, None) {
        return Err(ChoiceError::NoPairs {
            a: a.session.display().to_string(),
            b: b.session.display().to_string(),
            a_keys: keys(a_all.iter()),
            b_keys: keys(b_all.iter()),
        });
    }
    Ok(found)
}

fn by_key(a: &[Cell], b: &[Cell]) -> Pairs {
    let mut found = Pairs::default();
    for (a_idx, cell) in a.iter().enumerate() {
        match of_key(b, cell) {
            Some(b_idx) => found.pairs.push((a_idx, b_idx)),
            None => found.only_a.push(cell.key.clone()),
        }
    }
    let alone = b.iter().filter(|cell| of_key(a, cell).is_none());
    found.only_b = keys(alone);
    found
}

fn keys<'a>(cells: impl Iterator<Item = &'a Cell>) -> Vec<String> {
    cells.map(|cell| cell.key.clone()).collect()
}

fn only(cells: &[Cell]) -> Option<usize> {
    (cells.len() == 1).then_some(0)
}

fn of_key(cells: &[Cell], like: &Cell) -> Option<usize> {
    cells.iter().position(|cell| cell.key == like.key)
}

/// The cell that a choice names, if it names one: by its whole key, or by a part that no
/// other key holds.
fn named(choice: &Choice, cells: &[Cell]) -> Result<Option<usize>, ChoiceError> {
    let Some(part) = &choice.part else {
        return Ok(None);
    };
    if let Some(whole) = cells.iter().position(|cell| cell.key == *part) {
        return Ok(Some(whole));
    }
    let holds = |(_, cell): &(usize, &Cell)| cell.key.contains(part.as_str());
    let found: Vec<(usize, &Cell)> = cells.iter().enumerate().filter(holds).collect();
    let session = choice.session.display().to_string();
    let part = part.clone();
    match found[..] {
        [(cell_idx, _)] => Ok(Some(cell_idx)),
        [] => Err(ChoiceError::None {
            session,
            part,
            keys: keys(cells.iter()),
        }),
        _ => Err(ChoiceError::Several {
            session,
            part,
            keys: keys(found.into_iter().map(|(_, cell)| cell)),
        }),
    }
}
