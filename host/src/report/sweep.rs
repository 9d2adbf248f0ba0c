//! A sweep as a chapter: which loss and student, over seeds.

use super::plot::{Axis, Dot, DotRow, Dots, Figure, KeyEntry, Point, Scatter, Shape, Size};
use super::text::{counted, share, significant, thousands};
use super::{Block, Cell, Chapter, Section, Table, pareto};
use crate::sweep::table::Spread;
use crate::sweep::{CellRecord, Mode, Score, StoredSweep, TeacherScore};
use eyas_device::hints::human_bytes;

/// Seeds of one student, loss, gallery, mode and precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Group<'a> {
    /// Name of the student.
    pub student: &'a str,
    /// Name of the loss.
    pub loss: &'a str,
    /// Name of the gallery.
    pub gallery: &'a str,
    /// Who embedded the gallery.
    pub mode: Mode,
    /// How weights are stored.
    pub precision: String,
    /// recall_at_1 of each seed.
    pub recalls: Vec<f64>,
    /// mean_average_precision_at_r of each seed.
    pub precisions_at_r: Vec<f64>,
    /// Of the bundle of the last seed: all have the same layers.
    pub bundle_bytes: usize,
    /// Weights of the network.
    pub n_parameters: u64,
    /// Multiply-adds of one image.
    pub multiply_adds: u64,
}

impl Group<'_> {
    fn recall(&self) -> f64 {
        Spread::of(&self.recalls).map_or(f64::NAN, |spread| spread.mean)
    }

    fn name(&self) -> String {
        format!("{} {}", self.student, self.loss)
    }
}

/// Scores over seeds, best asymmetric recall first within a gallery.
#[must_use]
pub fn groups(sweep: &StoredSweep) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for record in &sweep.records {
        for score in &record.scores {
            add(&mut groups, record, score);
        }
    }
    groups.sort_by(|a, b| {
        (a.gallery.cmp(b.gallery))
            .then(a.mode.cmp(&b.mode))
            .then(b.recall().total_cmp(&a.recall()))
            .then_with(|| (a.student, a.loss, &a.precision).cmp(&(b.student, b.loss, &b.precision)))
    });
    groups
}

fn add<'a>(groups: &mut Vec<Group<'a>>, record: &'a CellRecord, score: &'a Score) {
    let precision = score.precision.to_string();
    let is_same = |group: &&mut Group<'_>| {
        (group.student, group.loss, group.gallery)
            == (&*record.student, &*record.loss, &*score.gallery)
            && group.mode == score.mode
            && group.precision == precision
    };
    let means = &score.means;
    if let Some(group) = groups.iter_mut().find(is_same) {
        group.recalls.push(means.recall_at_1);
        group
            .precisions_at_r
            .push(means.mean_average_precision_at_r);
        group.bundle_bytes = score.bundle_bytes;
        return;
    }
    groups.push(Group {
        student: &record.student,
        loss: &record.loss,
        gallery: &score.gallery,
        mode: score.mode,
        precision,
        recalls: vec![means.recall_at_1],
        precisions_at_r: vec![means.mean_average_precision_at_r],
        bundle_bytes: score.bundle_bytes,
        n_parameters: record.n_parameters,
        multiply_adds: record.multiply_adds,
    });
}

/// One sentence: the best of the sweep.
#[must_use]
pub fn answer(sweep: &StoredSweep) -> Option<String> {
    let groups = groups(sweep);
    let best = groups
        .iter()
        .find(|group| group.mode == Mode::Asymmetric)
        .or(groups.first())?;
    let teacher = teacher_of(sweep, best.gallery).map_or(String::new(), |teacher| {
        format!(
            "; the teacher itself has {}",
            share(teacher.teacher_recall_at_1)
        )
    });
    Some(format!(
        "{} {} has the highest recall_at_1 of the sweep in gallery {} ({}): {}, mean of {}{teacher}.",
        best.name(),
        best.precision,
        best.gallery,
        best.mode,
        share(best.recall()),
        counted(best.recalls.len(), "seed", "seeds"),
    ))
}

/// Cells that failed, in words.
#[must_use]
pub fn warnings(sweep: &StoredSweep) -> Vec<String> {
    let failed = sweep.records.iter().flat_map(|record| {
        record.failures.iter().map(move |reason| {
            format!(
                "{} {} seed {} failed: {reason}",
                record.student, record.loss, record.seed
            )
        })
    });
    failed.collect()
}

fn teacher_of<'a>(sweep: &'a StoredSweep, gallery: &str) -> Option<&'a TeacherScore> {
    sweep.teacher.iter().find(|score| score.gallery == gallery)
}

/// Makes a chapter of a sweep.
#[must_use]
pub fn tell(sweep: &StoredSweep) -> Chapter {
    let groups = groups(sweep);
    let mut galleries: Vec<&str> = groups.iter().map(|group| group.gallery).collect();
    galleries.dedup();
    let mut sections = Vec::new();
    for gallery in galleries {
        let inside: Vec<&Group<'_>> = groups
            .iter()
            .filter(|group| group.gallery == gallery)
            .collect();
        sections.push(section(sweep, gallery, &inside));
    }
    sections.push(how(sweep));
    let summary = Vec::new();
    Chapter {
        title: String::new(),
        summary,
        sections,
    }
}

fn section(sweep: &StoredSweep, gallery: &str, groups: &[&Group<'_>]) -> Section {
    let teacher = teacher_of(sweep, gallery);
    let mut blocks = vec![Block::Figures(vec![dots(teacher, groups)])];
    let fronts = [
        (
            "bundle, MB",
            "Recall against bundle size",
            bundle_mb as fn(&Group<'_>) -> f64,
        ),
        (
            "multiply-adds, millions",
            "Recall against arithmetic",
            mega_adds,
        ),
    ];
    let fronts = fronts.map(|(label, title, cost)| front(groups, label, title, cost));
    blocks.push(Block::Figures(fronts.into_iter().flatten().collect()));
    blocks.push(Block::Table(table(sweep, teacher, groups)));
    Section::new(&format!("Gallery {gallery}"), blocks)
}

fn bundle_mb(group: &Group<'_>) -> f64 {
    group.bundle_bytes as f64 / 1e6
}

fn mega_adds(group: &Group<'_>) -> f64 {
    group.multiply_adds as f64 / 1e6
}

/// Asymmetric ones are filled circles and their like, symmetric ones diamonds.
fn shape_of(group: &Group<'_>) -> Shape {
    match group.mode {
        Mode::Asymmetric => Shape::of_precision(&group.precision),
        Mode::Symmetric => Shape::Diamond,
    }
}

fn color_of(mode: Mode) -> usize {
    usize::from(mode == Mode::Symmetric)
}

fn dots(teacher: Option<&TeacherScore>, groups: &[&Group<'_>]) -> Figure {
    let mut names: Vec<String> = Vec::new();
    for group in groups {
        if !names.contains(&group.name()) {
            names.push(group.name());
        }
    }
    let dot = |group: &&Group<'_>| {
        let spread = Spread::of(&group.recalls)?;
        let interval = spread
            .deviation
            .map(|by| [spread.mean - by, spread.mean + by]);
        Some(Dot {
            value: spread.mean,
            interval,
            of: group.recalls.clone(),
            color: color_of(group.mode),
            shape: shape_of(group),
            text: format!(
                "{} {} {}: {}",
                group.name(),
                group.precision,
                group.mode,
                spread_text(&group.recalls)
            ),
        })
    };
    let row = |name: &String| DotRow {
        name: name.clone(),
        dots: groups
            .iter()
            .filter(|group| group.name() == **name)
            .filter_map(dot)
            .collect(),
    };
    let dots = Dots {
        x: Axis::linear("recall_at_1"),
        rows: names.iter().map(row).collect(),
        level: teacher.map(|teacher| {
            let recall = teacher.teacher_recall_at_1;
            (recall, format!("teacher {}", share(recall)))
        }),
    };
    let mut precisions: Vec<&str> = Vec::new();
    for group in groups.iter().filter(|group| group.mode == Mode::Asymmetric) {
        if !precisions.contains(&&*group.precision) {
            precisions.push(&group.precision);
        }
    }
    let asymmetric = precisions.iter().map(|precision| {
        let meaning = format!("asymmetric {precision}: the teacher embedded the gallery");
        KeyEntry::of_shape(Shape::of_precision(precision), Some(0), true, &meaning)
    });
    let mut key: Vec<KeyEntry> = asymmetric.collect();
    if groups.iter().any(|group| group.mode == Mode::Symmetric) {
        let meaning = "symmetric: the student itself did";
        key.push(KeyEntry::of_shape(Shape::Diamond, Some(1), true, meaning));
    }
    let mut figure = Figure {
        title: "recall_at_1 by student and loss".to_owned(),
        description: "A row for each student with a loss, a mark for each mode and precision."
            .to_owned(),
        key,
        note:
            "Mark: mean over the seeds; line: one sample standard deviation to both sides; small \
               dots: single seeds."
                .to_owned(),
        ..Figure::default()
    };
    figure.narrow = dots.draw(Size::NARROW.width, &figure);
    figure.wide = Some(dots.draw(Size::WIDE.width, &figure));
    figure
}

/// Asymmetric recall over a cost; none if all cost the same.
fn front(
    groups: &[&Group<'_>],
    label: &str,
    title: &str,
    cost: fn(&Group<'_>) -> f64,
) -> Option<Figure> {
    let asymmetric: Vec<&&Group<'_>> = { groups.iter() }
        .filter(|group| group.mode == Mode::Asymmetric && cost(group) > 0.0)
        .collect();
    let first = cost(asymmetric.first()?);
    if asymmetric.iter().all(|group| cost(group) == first) {
        return None;
    }
    let costs: Vec<(f64, f64)> = asymmetric
        .iter()
        .map(|group| (cost(group), group.recall()))
        .collect();
    let mut students: Vec<&str> = asymmetric.iter().map(|group| group.student).collect();
    students.sort_unstable();
    students.dedup();
    let point = |(group, is_marked): (&&&Group<'_>, bool)| Point {
        x: cost(group),
        y: group.recall(),
        interval: None,
        color: students
            .iter()
            .position(|name| *name == group.student)
            .unwrap_or(0),
        shape: shape_of(group),
        is_marked,
        name: format!("{} {}", group.name(), group.precision),
        text: format!(
            "{} {}: {}",
            group.name(),
            group.precision,
            spread_text(&group.recalls)
        ),
    };
    let scatter = Scatter {
        x: Axis::log(label),
        y: Axis::linear("asymmetric recall_at_1"),
        points: asymmetric
            .iter()
            .zip(pareto::front(&costs))
            .map(point)
            .collect(),
        is_front: true,
        is_share: true,
        level: None,
    };
    let mut figure = Figure {
        title: title.to_owned(),
        description: format!(
            "Students with losses by {label} and recall_at_1; the front is joined by a step line."
        ),
        note: "Means over the seeds. Filled: on the front; hollow: another is cheaper and better."
            .to_owned(),
        ..Figure::default()
    };
    figure.narrow = scatter.draw(Size::NARROW.high(270.0), &figure);
    Some(figure)
}

fn spread_text(values: &[f64]) -> String {
    let Some(spread) = Spread::of(values) else {
        return "–".to_owned();
    };
    let deviation = spread
        .deviation
        .map_or(String::new(), |by| format!(" ± {by:.4}"));
    format!("{:.4}{deviation}", spread.mean)
}

fn table(sweep: &StoredSweep, teacher: Option<&TeacherScore>, groups: &[&Group<'_>]) -> Table {
    let row = |group: &&Group<'_>| {
        let of_teacher = teacher.filter(|teacher| teacher.teacher_recall_at_1 > 0.0);
        vec![
            Cell::from(group.name()),
            group.mode.to_string().into(),
            group.precision.clone().into(),
            group.recalls.len().to_string().into(),
            spread_text(&group.recalls).into(),
            Cell::from(
                of_teacher.map(|teacher| share(group.recall() / teacher.teacher_recall_at_1)),
            ),
            spread_text(&group.precisions_at_r).into(),
            human_bytes(group.bundle_bytes as u64).into(),
            significant(mega_adds(group)).into(),
        ]
    };
    let columns = [
        "student and loss",
        "mode",
        "precision",
        "seeds",
        "recall_at_1",
        "share of the teacher's",
        "mean_average_precision_at_r",
        "bundle",
        "multiply-adds, millions",
    ];
    let n = teacher.map_or(String::new(), |teacher| {
        format!(
            "{} in {} images; recall_at_1 of the teacher {}, its mean_average_precision_at_r {}",
            counted(teacher.n_queries, "query", "queries"),
            thousands(teacher.n_gallery as u64),
            share(teacher.teacher_recall_at_1),
            share(teacher.teacher_mean_average_precision_at_r)
        )
    });
    Table {
        title: "Means over the seeds".to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: groups.iter().map(row).collect(),
        convention:
            "mean ± sample standard deviation over seeds. Asymmetric: the teacher embedded \
                     the gallery; symmetric: the student did"
                .to_owned(),
        n,
        origin: format!("cell.json files of {}", sweep.folder.display()),
    }
}

fn how(sweep: &StoredSweep) -> Section {
    let n_failed = sweep
        .records
        .iter()
        .filter(|record| !record.is_done())
        .count();
    let mut facts = vec![
        ("folder".to_owned(), sweep.folder.display().to_string()),
        (
            "cells".to_owned(),
            format!("{} with a record, {n_failed} failed", sweep.records.len()),
        ),
    ];
    for score in &sweep.teacher {
        let name = format!("teacher in {}", score.gallery);
        facts.push((
            name,
            format!("recall_at_1 {}", share(score.teacher_recall_at_1)),
        ));
    }
    let recipes = "each cell's folder has its whole recipe in `recipe.toml`".to_owned();
    facts.push(("recipes".to_owned(), recipes));
    Section::new("How this was made", vec![Block::Facts(facts)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;

    fn sweep() -> StoredSweep {
        let record = |student: &str, loss: &str, seed: u64, recall: f64, bytes: usize| {
            let score = |mode: &str, recall: f64| {
                serde_json::json!({
                    "gallery": "g", "mode": mode, "precision": "f16", "bundle_bytes": bytes,
                    "means": { "recall_at_1": recall, "recall_at_5": 1.0, "recall_at_10": 1.0,
                               "mean_average_precision_at_r": recall / 2.0 },
                })
            };
            let json = serde_json::json!({
                "schema": "eyas.cell/1", "fingerprint": "", "student": student, "loss": loss,
                "seed": seed, "n_parameters": 7, "multiply_adds": 9_000_000 + bytes, "failures": [],
                "scores": [score("asymmetric", recall), score("symmetric", recall + 0.1)],
            });
            serde_json::from_value(json).unwrap()
        };
        StoredSweep {
            folder: "sweeps/x".into(),
            records: vec![
                record("s", "reg", 1, 0.4, 1000),
                record("s", "reg", 2, 0.6, 1000),
                record("m", "rc", 1, 0.7, 2000),
            ],
            teacher: vec![TeacherScore {
                gallery: "g".to_owned(),
                n_queries: 10,
                n_gallery: 20,
                teacher_recall_at_1: 0.8,
                teacher_mean_average_precision_at_r: 0.7,
            }],
        }
    }

    #[test]
    fn seeds_are_grouped_and_the_best_comes_first() {
        let sweep = sweep();
        let groups = groups(&sweep);
        let names: Vec<(String, Mode, usize)> = { groups.iter() }
            .map(|group| (group.name(), group.mode, group.recalls.len()))
            .collect();
        let (a, s) = (Mode::Asymmetric, Mode::Symmetric);
        let expected = [
            ("m rc", a, 1),
            ("s reg", a, 2),
            ("m rc", s, 1),
            ("s reg", s, 2),
        ];
        assert_eq!(
            names,
            expected.map(|(name, mode, n)| (name.to_owned(), mode, n))
        );
        let said = answer(&sweep).unwrap();
        assert!(
            said.contains("m rc f16") && said.contains("0.700") && said.contains("0.800"),
            "{said}"
        );
    }

    #[test]
    fn the_page_has_spread_and_fronts() {
        let report = Report {
            chapters: vec![tell(&sweep())],
            ..Report::default()
        };
        let page = report.to_html();
        assert!(page.contains("0.5000 ± 0.1414"), "{page}");
        assert!(page.contains("Recall against bundle size") && page.contains("teacher 0.800"));
        assert!(!page.contains("NaN") && !page.contains(">inf"));
    }

    #[test]
    fn a_sweep_without_scores_says_what_failed() {
        let mut sweep = sweep();
        for record in &mut sweep.records {
            record.scores.clear();
            record.failures.push("no memory".to_owned());
        }
        assert_eq!(answer(&sweep), None);
        assert_eq!(warnings(&sweep).len(), 3);
        assert_eq!(tell(&sweep).sections.len(), 1);
    }
}
