//! The file that says what is measured on which board: students x threads x galleries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use eyas_device::port::BASE_BAUD;
use eyas_shared::files::{self, FileError};
use eyas_shared::link::bench::{MAX_THREADS, MAX_WINDOW_IMAGES, MAX_WINDOW_MS};
use eyas_shared::link::message::MAX_MATCHES;
use serde::Deserialize;
use thiserror::Error;

use crate::link::{Address, ClientError, Options};
use crate::recipe::suggestion;

const MAX_BYTES: u64 = 1 << 20;

/// What is measured. Relative paths start at the file's folder.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// For reports.
    pub name: String,
    /// What is asked of each cell.
    #[serde(default)]
    pub mode: Mode,
    /// Orders cells and windows.
    #[serde(default)]
    pub seed: u64,
    /// Matches per query, at most 31: one more is asked for, in case the query itself is in
    /// the gallery.
    #[serde(default = "ten")]
    pub top_k: u16,
    /// Numbers of threads that encode and search.
    #[serde(default = "one_thread")]
    pub threads: Vec<u16>,
    /// Whether the operators of each student are timed too.
    #[serde(default)]
    pub profile: bool,
    /// Where the board is.
    #[serde(default)]
    pub board: BoardPlan,
    /// Who asks.
    pub queries: QueryPlan,
    /// How long is measured.
    #[serde(default)]
    pub performance: PerformancePlan,
    /// What a power meter said.
    pub energy: Option<EnergyPlan>,
    /// Bundles by the student's name: one or several precisions of the same student.
    pub students: BTreeMap<String, Vec<PathBuf>>,
    /// Gallery files by name.
    pub galleries: BTreeMap<String, PathBuf>,
}

/// What is asked of each cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// How quick it is.
    Performance,
    /// How often it is right.
    Accuracy,
    /// Both.
    #[default]
    Both,
}

impl Mode {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Performance => "performance",
            Self::Accuracy => "accuracy",
            Self::Both => "both",
        }
    }
}

/// Where the board is; what the command line says goes before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoardPlan {
    /// Serial port.
    pub port: Option<PathBuf>,
    /// Speed that the board listens at.
    pub baud: Option<u32>,
    /// Speed to raise the line to.
    pub fast_baud: Option<u32>,
    /// Command whose standard input and output lead to the board.
    pub stdio_command: Option<String>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryPlan {
    /// A folder or a CSV list of labelled images.
    pub manifest: PathBuf,
    /// The split that asks; images with the query role if none is named.
    pub split: Option<String>,
    /// At most so many, spread evenly over the list.
    pub limit: Option<usize>,
}

/// How long is measured: by default as MLPerf Tiny has it, the median of five windows of at
/// least 10 s and 10 queries each.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PerformancePlan {
    /// Windows per cell, each in a process of its own.
    pub windows: usize,
    /// A window lasts at least so long ...
    pub at_least_s: f64,
    /// ... and until so many queries were answered.
    pub at_least: u32,
    /// Queries before each window that do not count.
    pub warm_up_s: f64,
    /// Query images that are asked in turn.
    pub images: usize,
    /// How often a window is measured again because it was flagged.
    pub retries: usize,
}

impl Default for PerformancePlan {
    fn default() -> Self {
        Self {
            windows: 5,
            at_least_s: 10.0,
            at_least: 10,
            warm_up_s: 1.0,
            images: 16,
            retries: 2,
        }
    }
}

/// What a power meter said: a CSV file with the columns `unix_s` and `watts`, or `unix_s`,
/// `volts` and `amperes`. It is read when the session has ended, or later with
/// `eyas bench --replay SESSION --readings FILE`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnergyPlan {
    /// The file.
    pub readings: PathBuf,
    /// What is added to the meter's clock to get the host's.
    #[serde(default)]
    pub offset_s: f64,
}

fn ten() -> u16 {
    10
}

fn one_thread() -> Vec<u16> {
    vec![1]
}

/// Why a plan can not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The file can not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not TOML, or not a plan's keys.
    #[error("plan `{}`: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and what, over several lines.
        message: String,
        /// A key that was probably meant.
        suggestion: Option<String>,
    },
    /// A value that makes no sense.
    #[error("plan `{}`: {what}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl Plan {
    /// Reads and checks a plan; paths in it become relative to the current folder.
    ///
    /// # Errors
    /// If it can not be read, has unknown or missing keys, or values that make no sense.
    pub fn read(path: &Path) -> Result<(Self, String), PlanError> {
        let bytes = files::read(path, MAX_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|_| PlanError::Value {
            path: path.to_owned(),
            what: "it is not UTF-8 text".to_owned(),
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        Ok((Self::parse(&text, path, base)?, text))
    }

    /// Checks a plan's text; `path` is for messages, paths in it start at `base`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str, path: &Path, base: &Path) -> Result<Self, PlanError> {
        let mut plan: Self = toml::from_str(text).map_err(|err| PlanError::Syntax {
            path: path.to_owned(),
            message: err.to_string().trim_end().to_owned(),
            suggestion: suggestion(err.message()),
        })?;
        let from_base = |path: &mut PathBuf| *path = base.join(&*path);
        from_base(&mut plan.queries.manifest);
        plan.students.values_mut().flatten().for_each(from_base);
        plan.galleries.values_mut().for_each(from_base);
        if let Some(energy) = &mut plan.energy {
            from_base(&mut energy.readings);
        }
        let path = path.to_owned();
        match plan.fault() {
            Some(what) => Err(PlanError::Value { path, what }),
            None => Ok(plan),
        }
    }

    fn fault(&self) -> Option<String> {
        let performance = &self.performance;
        let longest = f64::from(MAX_WINDOW_MS) / 1000.0;
        let seconds = |seconds: f64| (0.0..=longest).contains(&seconds);
        let is_name = |name: &String| {
            !name.is_empty() && !name.contains(['/', '#', ',']) && name.trim() == name
        };
        let names = || self.students.keys().chain(self.galleries.keys());
        if let Some(name) = names().find(|name| !is_name(name)) {
            return Some(format!(
                "the name `{name}` is empty, holds one of `/#,` or begins or ends with a space"
            ));
        }
        if let Some(name) =
            { self.students.iter() }.find_map(|(name, bundles)| bundles.is_empty().then_some(name))
        {
            return Some(format!("student `{name}` names no bundle"));
        }
        let has = |threads: &u16| (1..=MAX_THREADS).contains(threads);
        let wrong = [
            (self.students.is_empty(), "no student is named".to_owned()),
            (self.galleries.is_empty(), "no gallery is named".to_owned()),
            (
                self.threads.is_empty() || !self.threads.iter().all(has),
                format!("threads: 1 to {MAX_THREADS} each, at least one number"),
            ),
            (
                !(1..MAX_MATCHES).contains(&self.top_k),
                format!("top_k is not in 1..{MAX_MATCHES}"),
            ),
            (
                !(1..=1000).contains(&performance.windows),
                "performance: windows is not in 1..=1000".to_owned(),
            ),
            (
                !seconds(performance.at_least_s) || !seconds(performance.warm_up_s),
                format!("performance: at_least_s and warm_up_s are 0 to {longest}"),
            ),
            (
                !(1..=MAX_WINDOW_IMAGES).contains(&performance.images),
                format!("performance: images is not in 1..={MAX_WINDOW_IMAGES}"),
            ),
            (
                self.queries.limit == Some(0),
                "queries: limit is 0".to_owned(),
            ),
            (
                self.board.port.is_some() && self.board.stdio_command.is_some(),
                "board: either port or stdio_command".to_owned(),
            ),
        ];
        let found = wrong.into_iter().find(|(is_wrong, _)| *is_wrong);
        found.map(|(_, what)| what)
    }

    /// Where the board is, by the plan alone.
    ///
    /// # Errors
    /// If the plan names none, and this machine has not exactly one port.
    pub fn address(&self) -> Result<Address, ClientError> {
        let board = &self.board;
        let baud = board.baud.unwrap_or(BASE_BAUD);
        match (&board.stdio_command, &board.port) {
            (Some(command), _) => Ok(Address::Command(command.clone())),
            (None, Some(port)) => Ok(Address::serial(port, baud)),
            (None, None) => Address::only_one(baud),
        }
    }

    /// How sessions with the board are begun, by the plan alone.
    #[must_use]
    pub fn options(&self) -> Options {
        Options {
            raise_to: self.board.fast_baud,
            ..Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"
name = "shelf"
threads = [1, 2]
[queries]
manifest = "photos"
[students]
small = ["s-f16.bundle", "s-int8.bundle"]
[galleries]
shop = "shop.gallery"
"#;

    fn parse(text: &str) -> Result<Plan, PlanError> {
        Plan::parse(text, Path::new("p/board.toml"), Path::new("p"))
    }

    #[test]
    fn what_a_plan_leaves_out_is_as_the_field_has_it() {
        let plan = parse(PLAN).unwrap();
        assert_eq!(plan.mode, Mode::Both);
        assert_eq!(plan.performance.windows, 5);
        assert_eq!(plan.performance.at_least_s, 10.0);
        assert_eq!(plan.students["small"][1], Path::new("p/s-int8.bundle"));
        assert_eq!(plan.queries.manifest, Path::new("p/photos"));
        let command = PLAN.to_owned() + "[board]\nstdio_command = \"ssh board\"\n";
        let address = parse(&command).unwrap().address().unwrap();
        assert_eq!(address, Address::Command("ssh board".to_owned()));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let message =
            |from: &str, to: &str| parse(&PLAN.replace(from, to)).unwrap_err().to_string();
        assert!(message("threads", "thread").contains("unknown field `thread`"));
        assert!(message("[1, 2]", "[0]").contains("threads"));
        assert!(message("[1, 2]", "[1]\ntop_k = 32").contains("top_k"));
        assert!(message("shop =", "\"a/b\" =").contains("`a/b`"));
        let empty = message("[\"s-f16.bundle\", \"s-int8.bundle\"]", "[]");
        assert!(empty.contains("`small` names no bundle"), "{empty}");
    }
}
