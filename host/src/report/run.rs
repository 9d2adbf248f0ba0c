//! Training runs as a chapter: their curves over each other, and what was trained on what.

use super::input::Training;
use super::plot::{Axis, Figure, Line, Lines, Size};
use super::text::{share, significant};
use super::{Block, Cell, Chapter, Section, Table};

/// Points of a curve: more are not told apart by eye.
const MAX_POINTS: usize = 400;

/// Makes a chapter of some runs.
#[must_use]
pub fn tell(runs: &[Training]) -> Chapter {
    let sections = vec![
        Section::new("What came of training", outcome(runs)),
        Section::new("Curves of training", vec![Block::Figures(curves(runs))]),
        Section::new("How it was trained", how(runs)),
    ];
    let has_blocks = |section: &Section| match &section.blocks[..] {
        [Block::Figures(figures)] => !figures.is_empty(),
        blocks => !blocks.is_empty(),
    };
    Chapter {
        title: String::new(),
        summary: Vec::new(),
        sections: sections.into_iter().filter(has_blocks).collect(),
    }
}

/// One sentence on the best of the runs; none if no run held images out.
#[must_use]
pub fn answer(runs: &[Training]) -> Option<String> {
    let best = |training: &Training| {
        let epoch = training.run.best_epoch()?;
        Some((epoch, epoch.validation_recall_at_1?))
    };
    let mut found = None;
    for training in runs {
        if let Some((epoch, recall)) = best(training)
            && found.is_none_or(|(_, _, highest)| recall > highest)
        {
            found = Some((training, epoch, recall));
        }
    }
    let (training, epoch, recall) = found?;
    Some(format!(
        "Run {} reached a recall_at_1 of {} on its held-out part after epoch {}.",
        name_of(training),
        share(recall),
        epoch.epoch
    ))
}

/// A run's name: its recipe's, told apart by folder where several have it.
fn name_of(training: &Training) -> String {
    let folder = training.run.folder.file_name();
    let folder = folder.map_or(String::new(), |name| name.to_string_lossy().into_owned());
    match training.run.name() {
        "" => folder,
        name if folder.is_empty() || folder == name => name.to_owned(),
        name => format!("{name} ({folder})"),
    }
}

fn origin_of(runs: &[Training]) -> String {
    let folders: Vec<String> = runs
        .iter()
        .map(|training| training.run.folder.display().to_string())
        .collect();
    format!("metrics.jsonl of {}", folders.join(", "))
}

fn outcome(runs: &[Training]) -> Vec<Block> {
    let row = |training: &Training| {
        let run = &training.run;
        let last = run.epochs.last();
        let best = run.best_epoch();
        let of = run.n_epochs().map_or("?".to_owned(), |n| n.to_string());
        let seconds: f64 = run.epochs.iter().map(|epoch| epoch.seconds).sum();
        vec![
            Cell::from(name_of(training)),
            Cell::Words(run.loss()),
            run.state.to_string().into(),
            format!("{} of {of}", last.map_or(0, |last| last.epoch)).into(),
            Cell::from(last.map(|last| significant(last.loss))),
            Cell::from(run.last_recall().map(share)),
            Cell::from(best.and_then(|best| {
                Some(format!(
                    "{} (epoch {})",
                    share(best.validation_recall_at_1?),
                    best.epoch
                ))
            })),
            Cell::from(run.seed().map(|seed| seed.to_string())),
            significant(seconds).into(),
        ]
    };
    let columns = [
        "run",
        "loss",
        "state",
        "epochs",
        "last loss",
        "last recall_at_1",
        "best recall_at_1",
        "seed",
        "seconds",
    ];
    vec![Block::Table(Table {
        columns: columns.map(str::to_owned).to_vec(),
        rows: runs.iter().map(row).collect(),
        convention: "loss: mean over the batches of an epoch; recall_at_1: on the part of the \
                     training images that was held out, none if nothing was; seconds: of all \
                     epochs, wall clock"
            .to_owned(),
        n: "one training each".to_owned(),
        origin: origin_of(runs),
        ..Table::default()
    })]
}

/// At most so many points, spread evenly, with the last.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let every = points.len().div_ceil(MAX_POINTS).max(1);
    let last = points.len().saturating_sub(1);
    let kept = points.into_iter().enumerate();
    kept.filter(|(idx, _)| idx % every == 0 || *idx == last)
        .map(|(_, point)| point)
        .collect()
}

fn curves(runs: &[Training]) -> Vec<Figure> {
    let by_epoch = |of: fn(&crate::runs::EpochMetrics) -> Option<f64>| -> Vec<Vec<(f64, f64)>> {
        let of_run = |training: &Training| {
            let epochs = training.run.epochs.iter();
            let points = epochs.filter_map(|epoch| Some((epoch.epoch as f64, of(epoch)?)));
            thinned(points.filter(|point| point.1.is_finite()).collect())
        };
        runs.iter().map(of_run).collect()
    };
    let by_step = |tag: &str| -> Vec<Vec<(f64, f64)>> {
        let of_run = |training: &Training| {
            let scalars = training.scalars.iter().filter(|scalar| scalar.tag == tag);
            let points = scalars.map(|scalar| (scalar.step as f64, f64::from(scalar.value)));
            thinned(points.filter(|point| point.1.is_finite()).collect())
        };
        runs.iter().map(of_run).collect()
    };
    let figures = [
        curve(
            runs,
            ("Loss", "epoch", "loss"),
            by_epoch(|epoch| Some(epoch.loss)),
            Kind::Loss,
        ),
        curve(
            runs,
            ("Recall on the held-out part", "epoch", "recall_at_1"),
            by_epoch(|epoch| epoch.validation_recall_at_1),
            Kind::Share,
        ),
        curve(
            runs,
            ("Learning rate", "step", "learning rate"),
            by_step("training/rate"),
            Kind::Rate,
        ),
    ];
    figures.into_iter().flatten().collect()
}

/// How the y axis of a curve runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By ratios, as far as all values allow it.
    Loss,
    /// From 0 to 1.
    Share,
    /// From 0 on.
    Rate,
}

fn curve(
    runs: &[Training],
    (title, x, y): (&str, &str, &str),
    points: Vec<Vec<(f64, f64)>>,
    kind: Kind,
) -> Option<Figure> {
    let n_points: usize = points.iter().map(Vec::len).sum();
    if n_points == 0 {
        return None;
    }
    let is_log = kind == Kind::Loss && points.iter().flatten().all(|point| point.1 > 0.0);
    let lines = runs
        .iter()
        .zip(points)
        .enumerate()
        .map(|(idx, (training, points))| Line {
            name: if runs.len() > 1 {
                name_of(training)
            } else {
                String::new()
            },
            color: idx,
            has_dots: points.len() <= 30,
            points,
            is_dashed: false,
        });
    let lines = Lines {
        x: Axis::linear(x),
        y: if is_log {
            Axis::log(&format!("{y}, log scale"))
        } else {
            Axis::linear(y)
        },
        lines: lines.filter(|line| !line.points.is_empty()).collect(),
        bands: Vec::new(),
        is_share: kind == Kind::Share,
        from_zero: kind == Kind::Rate,
    };
    let mut figure = Figure {
        title: title.to_owned(),
        description: format!("{y} by {x}, a line for each run."),
        ..Figure::default()
    };
    if kind == Kind::Loss {
        figure.table = Some(epochs_table(runs));
        figure.note = "Mean over the batches of each epoch.".to_owned();
    }
    figure.narrow = lines.draw(Size::NARROW, &figure);
    Some(figure)
}

fn epochs_table(runs: &[Training]) -> Table {
    let mut rows = Vec::new();
    for training in runs {
        for epoch in &training.run.epochs {
            rows.push(vec![
                Cell::from(name_of(training)),
                epoch.epoch.to_string().into(),
                significant(epoch.loss).into(),
                Cell::from(epoch.validation_recall_at_1.map(share)),
                significant(epoch.seconds).into(),
            ]);
        }
    }
    Table {
        columns: ["run", "epoch", "loss", "recall_at_1", "seconds"]
            .map(str::to_owned)
            .to_vec(),
        rows,
        origin: origin_of(runs),
        ..Table::default()
    }
}

fn how(runs: &[Training]) -> Vec<Block> {
    let mut blocks = Vec::new();
    for training in runs {
        let run = &training.run;
        let mut facts = vec![("folder".to_owned(), run.folder.display().to_string())];
        facts.extend(run.facts.iter().cloned());
        if runs.len() > 1 {
            blocks.push(Block::Text(format!("{}:", name_of(training))));
        }
        blocks.push(Block::Facts(facts));
        let recipe = recipe_of(run);
        blocks.push(Block::Folded(
            "The whole recipe".to_owned(),
            vec![Block::Facts(recipe)],
        ));
    }
    blocks
}

/// The recipe's keys by their dotted path.
fn recipe_of(run: &crate::runs::Run) -> Vec<(String, String)> {
    let changes = crate::runs::run::differences(&run.recipe, &toml::Table::new());
    let keys = changes.into_iter();
    keys.map(|(key, value, _)| (key, value.unwrap_or_default()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use crate::runs::{EpochMetrics, State};

    fn training(folder: &str, recalls: &[Option<f64>]) -> Training {
        let epoch = |(idx, recall): (usize, &Option<f64>)| EpochMetrics {
            epoch: idx + 1,
            loss: 1.0 / (idx + 1) as f64,
            validation_recall_at_1: *recall,
            seconds: 1.5,
        };
        let recipe = "name = \"r\"\nseed = 3\nepochs = 4\n[[loss]]\nkind = \"regression\"\n";
        Training {
            run: crate::runs::Run {
                folder: folder.into(),
                recipe: toml::from_str(recipe).unwrap(),
                facts: vec![("teacher".to_owned(), "big <one>".to_owned())],
                epochs: recalls.iter().enumerate().map(epoch).collect(),
                state: State::Finished,
            },
            scalars: Vec::new(),
        }
    }

    #[test]
    fn the_best_run_and_epoch_are_named() {
        let runs = [
            training("runs/a", &[Some(0.2), Some(0.4)]),
            training("runs/b", &[Some(0.7), Some(0.5)]),
        ];
        let said = answer(&runs).unwrap();
        assert!(
            said.contains("r (b)") && said.contains("0.700") && said.contains("epoch 1"),
            "{said}"
        );
        assert_eq!(answer(&[training("a", &[None, None])]), None);
    }

    #[test]
    fn a_chapter_has_the_curves_that_were_recorded() {
        let n_figures = |recalls: &[Option<f64>]| curves(&[training("a", recalls)]).len();
        assert_eq!(n_figures(&[]), 0);
        assert_eq!(n_figures(&[None, None]), 1);
        assert_eq!(n_figures(&[Some(0.1), Some(0.2)]), 2);
        let report = Report {
            chapters: vec![tell(&[training("a", &[])])],
            ..Report::default()
        };
        let page = report.to_html();
        assert!(
            page.contains("big &lt;one&gt;") && !page.contains("<svg"),
            "{page}"
        );
    }

    #[test]
    fn long_curves_keep_their_last_point() {
        let points: Vec<(f64, f64)> = (0..1000).map(|x| (f64::from(x), 0.0)).collect();
        let kept = thinned(points);
        assert!(kept.len() <= MAX_POINTS + 1);
        assert_eq!(kept.last(), Some(&(999.0, 0.0)));
    }
}
