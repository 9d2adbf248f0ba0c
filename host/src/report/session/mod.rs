//! A bench session as a chapter: the answer first, then what it rests on.

mod classes;
mod front;
mod latency;
mod map;
mod pictures;
mod recall;
mod scores;
mod windows;

use super::plot::{KeyEntry, Shape};
use super::select::{self, Limit};
use super::text::{Naming, counted, percent, share_between, significant, thousands};
use super::{Block, Chapter, Section, Thumbnail, pareto};
use crate::bench::measures::Measure;
use crate::bench::results::{Board, Cell, Results};
use eyas_device::hints::human_bytes;

/// What a session says, with what a reader must know first.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// One or two sentences.
    pub answer: Vec<String>,
    /// Failures and the like.
    pub warnings: Vec<String>,
    /// The rest.
    pub chapter: Chapter,
}

/// A session with what many sections need.
pub(super) struct View<'a> {
    pub(super) results: &'a Results,
    pub(super) naming: Naming,
    /// Names of students in the order of the plan: a student's place is its color.
    pub(super) students: Vec<&'a str>,
    /// For each cell, whether no other that can be chosen is quicker and better.
    pub(super) is_on_front: Vec<bool>,
    /// The best cell within the limits, or without them if none keeps them.
    pub(super) best: Option<&'a Cell>,
    pub(super) limits: &'a [Limit],
    /// Where the numbers come from.
    pub(super) origin: String,
}

/// Makes a chapter of a session. `picture` gives the pictures of images by their identity.
#[must_use]
pub fn tell(
    results: &Results,
    limits: &[Limit],
    picture: &dyn Fn(&str) -> Option<Thumbnail>,
) -> Said {
    let view = View::of(results, limits);
    let sections = [
        front::section(&view),
        front::all_cells(&view),
        recall::section(&view),
        latency::section(&view),
        windows::section(&view),
        latency::operators(&view),
        scores::section(&view),
        classes::section(&view),
        map::section(&view),
        pictures::section(&view, picture),
        Some(view.how()),
    ];
    Said {
        answer: view.answer(),
        warnings: view.warnings(),
        chapter: Chapter {
            title: String::new(),
            summary: Vec::new(),
            sections: sections.into_iter().flatten().collect(),
        },
    }
}

/// The value of a measure; none if there is no such measure.
pub(super) fn value(cell: &Cell, measure: &str) -> Option<f64> {
    Measure::by_name(measure)?.read(cell)
}

/// Which cells are on the front of recall_at_1 over a cost, among those that can be compared.
pub(super) fn front_over(cells: &[Cell], cost: &str) -> Vec<bool> {
    let point = |(cell, is_comparable): (&Cell, bool)| {
        let pair = value(cell, cost).zip(value(cell, "recall_at_1"));
        pair.filter(|_| is_comparable)
            .unwrap_or((f64::NAN, f64::NAN))
    };
    let comparable = select::comparable(cells);
    let points: Vec<(f64, f64)> = cells.iter().zip(comparable).map(point).collect();
    pareto::front(&points)
}

impl<'a> View<'a> {
    pub(super) fn of(results: &'a Results, limits: &'a [Limit]) -> Self {
        let cells = &results.cells;
        let mut students: Vec<&str> = Vec::new();
        for cell in cells {
            if !students.contains(&&*cell.student) {
                students.push(&cell.student);
            }
        }
        let within = select::best(cells, limits);
        Self {
            naming: Naming::of(cells),
            students,
            is_on_front: front_over(cells, "p95_ms"),
            best: within.or_else(|| select::best(cells, &[])),
            limits,
            origin: origin(results),
            results,
        }
    }

    /// Which color stands for a cell's student.
    pub(super) fn color(&self, cell: &Cell) -> usize {
        let mut students = self.students.iter();
        students.position(|name| *name == cell.student).unwrap_or(0)
    }

    /// Colors of students and shapes of precisions that occur.
    pub(super) fn key(&self) -> Vec<KeyEntry> {
        let mut precisions: Vec<&str> = Vec::new();
        for cell in &self.results.cells {
            if !precisions.contains(&&*cell.precision) {
                precisions.push(&cell.precision);
            }
        }
        let students = self.students.iter().enumerate();
        let students = students.map(|(idx, name)| KeyEntry::of_color(idx, name));
        let precisions = precisions.iter();
        let precisions =
            precisions.map(|name| KeyEntry::of_shape(Shape::of_precision(name), None, true, name));
        students.chain(precisions).collect()
    }

    /// The cell whose answers are looked at: the best, or the one that is right most often.
    pub(super) fn looked_at(&self) -> Option<&'a Cell> {
        let mut found = self.best.filter(|cell| cell.accuracy.is_some());
        if found.is_some() {
            return found;
        }
        let recall = |cell: &Cell| value(cell, "recall_at_1");
        for cell in self
            .results
            .cells
            .iter()
            .filter(|cell| cell.accuracy.is_some())
        {
            if found.is_none_or(|best| recall(cell) > recall(best)) {
                found = Some(cell);
            }
        }
        found
    }

    /// Whether fronts are of flagged windows only.
    pub(super) fn is_provisional(&self) -> bool {
        self.best.is_none() && self.is_on_front.contains(&true)
    }

    /// Everything in one line: what a pointer on a cell's mark shows.
    pub(super) fn text_of(&self, cell: &Cell) -> String {
        let mut parts = Vec::new();
        for (name, label) in [
            ("recall_at_1", "recall_at_1"),
            ("p95_ms", "p95"),
            ("rss_mb", "memory"),
            ("bundle_mb", "bundle"),
        ] {
            let unit = Measure::by_name(name).map_or("", |measure| measure.unit);
            if let Some(value) = value(cell, name) {
                parts.push(
                    format!("{label} {} {unit}", significant(value))
                        .trim_end()
                        .to_owned(),
                );
            }
        }
        if let Some(reason) = select::why_not(cell) {
            parts.push(format!("not to be chosen: {reason}"));
        }
        format!("{}: {}", self.naming.name(cell), parts.join(", "))
    }

    fn answer(&self) -> Vec<String> {
        let board = name_of(&self.results.board);
        let Some(best) = self.best else {
            let mut sentences = vec![self.answer_without_best(&board)];
            sentences.extend(self.front_sentence());
            return sentences;
        };
        let (Some(accuracy), Some(performance)) = (&best.accuracy, &best.performance) else {
            return Vec::new();
        };
        let within = self.limits.iter().all(|limit| limit.holds(best));
        let limits = self.limits_text();
        let lead = match (self.limits.is_empty(), within) {
            (true, _) => "Best:".to_owned(),
            (false, true) => format!("Best with {limits}:"),
            (false, false) => format!("No cell has {limits}. Best of all:"),
        };
        let mut sentences = vec![format!(
            "{lead} {} finds the right label first for {} of {} ({} to {} with 95 % confidence), \
             and answers within {} ms for 95 of 100 queries on {board}, with {} MB of memory and \
             a bundle of {}.",
            self.naming.name(best),
            percent(accuracy.recall_at_1),
            counted(accuracy.n, "query", "queries"),
            percent(accuracy.recall_at_1_interval[0]),
            percent(accuracy.recall_at_1_interval[1]),
            significant(performance.p95_ms),
            significant(performance.peak_bytes as f64 / 1e6),
            human_bytes(best.bundle.bytes),
        )];
        sentences.extend(self.front_sentence());
        sentences
    }

    fn answer_without_best(&self, board: &str) -> String {
        let mut reasons: Vec<&str> = Vec::new();
        for reason in self.results.cells.iter().filter_map(select::why_not) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        if self.results.cells.is_empty() {
            return format!("Nothing was measured on {board}.");
        }
        format!(
            "None of {} on {board} can be chosen: {}.",
            counted(self.results.cells.len(), "cell", "cells"),
            reasons.join("; ")
        )
    }

    fn front_sentence(&self) -> Option<String> {
        let marked = self.results.cells.iter().zip(&self.is_on_front);
        let mut front: Vec<&Cell> = marked
            .filter(|(_, is)| **is)
            .map(|(cell, _)| cell)
            .collect();
        front.sort_by(|a, b| {
            let p95 = |cell: &Cell| value(cell, "p95_ms").unwrap_or(f64::MAX);
            p95(a).total_cmp(&p95(b))
        });
        let shown = |cell: &&Cell| {
            let number = |name| value(cell, name).map_or(String::new(), significant);
            let (recall, p95) = (number("recall_at_1"), number("p95_ms"));
            format!("{} ({recall} at {p95} ms)", self.naming.name(cell))
        };
        let n_others = self.results.cells.len() - front.len();
        let names: Vec<String> = front.iter().map(shown).collect();
        let lead = if self.is_provisional() {
            "By the times of flagged windows, no other is"
        } else {
            "No other is"
        };
        (front.len() > 1).then(|| {
            format!(
                "{lead} both quicker and right more often than: {}. {} of {} cells are beaten or \
                 can not be chosen.",
                names.join(", "),
                n_others,
                self.results.cells.len()
            )
        })
    }

    pub(super) fn limits_text(&self) -> String {
        let limits: Vec<String> = self.limits.iter().map(Limit::to_string).collect();
        limits.join(" and ")
    }

    fn warnings(&self) -> Vec<String> {
        let cells = &self.results.cells;
        let mut warnings = Vec::new();
        for cell in cells {
            let name = self.naming.name(cell);
            for failure in &cell.failures {
                warnings.push(format!("{name} failed: {failure}"));
            }
            let n_failed = cell.accuracy.as_ref().map_or(0, |found| found.failed.len());
            if n_failed > 0 {
                let queries = counted(n_failed, "query was", "queries were");
                warnings.push(format!("{name}: {queries} not answered"));
            }
            let is_never_clean = |p: &crate::bench::results::Performance| p.n_clean == 0;
            if cell.performance.as_ref().is_some_and(is_never_clean) {
                warnings.push(format!(
                    "{name}: all windows are flagged; its times are not comparable"
                ));
            }
        }
        warnings
    }

    fn how(&self) -> Section {
        let (results, protocol) = (self.results, &self.results.protocol);
        let mut facts = vec![
            (
                "session",
                format!("{}, began {}", results.name, results.began),
            ),
            ("plan", results.plan.clone()),
            ("host", results.host.clone()),
            (
                "protocol",
                format!(
                    "{}: {} windows a cell, flagged ones measured again up to {} times, each of at \
                     least {} s and {} queries after {} s of warm-up, over {} images in turn; {} matches a query; order by seed {}",
                    protocol.mode,
                    protocol.n_windows,
                    protocol.n_retries,
                    protocol.at_least_s,
                    protocol.at_least,
                    protocol.warm_up_s,
                    protocol.n_window_images,
                    protocol.top_k,
                    protocol.seed
                ),
            ),
        ];
        facts.extend(facts_of(&results.board));
        for gallery in &results.galleries {
            let text = format!(
                "{}: {} rows of {} labels in {}, {}, embedded by {}, {}",
                gallery.name,
                thousands(gallery.n_rows as u64),
                thousands(gallery.n_labels as u64),
                gallery.codes,
                human_bytes(gallery.bytes),
                gallery.teacher,
                gallery.hash
            );
            facts.push(("gallery", text));
        }
        facts.push(("queries", thousands(results.queries.len() as u64)));
        let facts = facts.into_iter();
        let facts = facts.filter(|(_, value)| !value.is_empty());
        let facts = facts
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let mut blocks = vec![Block::Facts(facts), self.conventions()];
        if !results.incidents.is_empty() {
            let incidents = results.incidents.iter();
            let incidents = (1..)
                .zip(incidents)
                .map(|(n, text)| (n.to_string(), text.clone()));
            blocks.push(Block::Text("What went on meanwhile:".to_owned()));
            blocks.push(Block::Facts(incidents.collect()));
        }
        Section::new("How this was measured", blocks)
    }

    fn conventions(&self) -> Block {
        let facts = Measure::ALL
            .iter()
            .map(|measure| (measure.name.to_owned(), measure.convention.to_owned()));
        Block::Folded(
            "What the names mean".to_owned(),
            vec![Block::Facts(facts.collect())],
        )
    }
}

/// How people call the board.
pub(super) fn name_of(board: &Board) -> String {
    let names = [&board.model, &board.cpu];
    let named = names.into_iter().find(|name| !name.is_empty());
    named.map_or_else(|| "an unnamed board".to_owned(), Clone::clone)
}

fn origin(results: &Results) -> String {
    let (board, program) = (name_of(&results.board), &results.board.program);
    format!(
        "session {}, {}, on {board}, {program}",
        results.name, results.began
    )
}

fn facts_of(board: &Board) -> Vec<(&'static str, String)> {
    let clock = board
        .max_clock_mhz
        .map_or(String::new(), |clock| format!(" at up to {clock} MHz"));
    let governor = match board.governor.as_str() {
        "" => String::new(),
        governor => format!(", governor {governor}"),
    };
    vec![
        ("board", name_of(board)),
        (
            "processor",
            format!(
                "{}, {} cores{clock}, {}{governor}",
                board.cpu, board.n_cores, board.architecture
            ),
        ),
        (
            "memory",
            format!(
                "{}, swap {}",
                human_bytes(board.memory_bytes),
                human_bytes(board.swap_bytes)
            ),
        ),
        ("kernel", board.kernel.clone()),
        (
            "program",
            format!("{}, {}", board.program, board.program_hash),
        ),
        ("matcher", board.matcher_kernel.clone()),
        ("reached by", board.address.clone()),
    ]
}

/// A share with its interval, of a cell.
pub(super) fn recall_text(cell: &Cell) -> Option<String> {
    let accuracy = cell.accuracy.as_ref()?;
    Some(share_between(
        accuracy.recall_at_1,
        accuracy.recall_at_1_interval,
    ))
}
