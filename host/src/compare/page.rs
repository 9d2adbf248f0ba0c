//! A comparison as a report: the answer first, then pair by pair what differs and which
//! queries changed sides, with pictures.

use super::queries::{Answered, Flip, Flips};
use super::{Compared, Comparison, Pair, SessionFacts};
use crate::report::{
    Block, Cell, Chapter, FlipPicture, MatchPicture, Report, Section, Table, Thumbnail,
};

/// Flips of a side that are shown with pictures; of the rest there is a list.
const N_PICTURES: usize = 12;

/// Matches that are shown of each side.
const N_MATCHES: usize = 3;

/// Measures that a line about a pair names.
const TOLD: [&str; 4] = ["recall_at_1", "p95_ms", "rss_mb", "bundle_mb"];

/// Finds the picture of an image; none if it was not kept.
pub type Picture<'p> = &'p dyn Fn(&str) -> Option<Thumbnail>;

/// `picture` finds those of both sessions.
pub(super) fn report(comparison: &Comparison, picture: Picture<'_>) -> Report {
    let pairs = &comparison.pairs;
    let mut summary = verdict(comparison);
    if let [pair] = &pairs[..] {
        summary.push(told(pair));
    }
    let mut opening = Vec::new();
    if pairs.len() > 1 {
        opening.push(overview(pairs));
    }
    if !comparison.conditions.is_empty() {
        opening.push(conditions(comparison));
    }
    let mut chapters = vec![Chapter {
        sections: opening,
        ..Chapter::default()
    }];
    chapters.extend(pairs.iter().map(|pair| chapter(pair, pairs.len(), picture)));
    chapters.push(Chapter {
        sections: vec![origin(comparison)],
        ..Chapter::default()
    });
    Report {
        title: title(comparison),
        summary,
        warnings: comparison.cautions.clone(),
        chapters,
    }
}

fn title(comparison: &Comparison) -> String {
    let (a, b) = (&comparison.a, &comparison.b);
    match &comparison.pairs[..] {
        [pair] if a.session == b.session => format!("{}: {}", a.name, pair.title()),
        _ if a.name == b.name => format!("{}: {} and {}", a.name, a.began, b.began),
        _ => format!("{} and {}", a.name, b.name),
    }
}

/// What the conditions came to; nothing without any.
fn verdict(comparison: &Comparison) -> Vec<String> {
    let conditions = &comparison.conditions;
    let count = |holds: Option<bool>| conditions.iter().filter(|one| one.holds == holds).count();
    let (n_held, n_open) = (count(Some(true)), count(None));
    match (conditions.len(), n_held, n_open) {
        (0, ..) => Vec::new(),
        (n, 0, 0) => vec![format!("None of {n} conditions holds.")],
        (n, n_held, 0) => vec![format!("{n_held} of {n} conditions hold.")],
        (n, n_held, n_open) => vec![format!(
            "{n_held} of {n} conditions hold, and {n_open} can not be decided."
        )],
    }
}

/// The measures that most look for first, as a sentence.
fn told(pair: &Pair) -> String {
    let measures = pair.measures.iter();
    let told = measures.filter(|found| TOLD.contains(&found.name));
    let parts: Vec<String> = told
        .filter_map(|found| {
            let (a, b) = (found.a?, found.b?);
            let unit = unit(found);
            let interval = found.interval.map_or(String::new(), |interval| {
                let [low, high] = [interval.low, interval.high].map(|end| found.signed(end));
                format!(", {low} to {high}")
            });
            Some(format!(
                "{} {} → {}{unit} ({}{interval})",
                found.name,
                found.shown(a),
                found.shown(b),
                found.signed(found.difference?)
            ))
        })
        .collect();
    let mut sentence = parts.join("; ");
    if let Some(queries) = &pair.queries {
        let Flips { lost, won, .. } = &queries.flips;
        sentence += &format!(
            ". {} of {} queries were right before and are wrong now, {} were wrong before and \
             are right now.",
            lost.len(),
            queries.n,
            won.len()
        );
    }
    sentence
}

fn unit(found: &Compared) -> String {
    if found.unit.is_empty() {
        String::new()
    } else {
        format!(" {}", found.unit)
    }
}

/// A line for each pair.
fn overview(pairs: &[Pair]) -> Section {
    let row = |pair: &Pair| {
        let mut row = vec![Cell::from(pair.title())];
        row.extend(TOLD.map(|name| {
            let found = pair.measures.iter().find(|found| found.name == name);
            let shown = |found: &Compared| Some(found.signed(found.difference?));
            Cell::from(found.and_then(shown))
        }));
        let flips = pair.queries.as_ref().map(|queries| &queries.flips);
        row.push(flips.map(|flips| flips.lost.len().to_string()).into());
        row.push(flips.map(|flips| flips.won.len().to_string()).into());
        row
    };
    let mut columns = vec!["cell".to_owned()];
    columns.extend(TOLD.map(str::to_owned));
    columns.extend(["lost", "won"].map(str::to_owned));
    let table = Table {
        columns,
        rows: pairs.iter().map(row).collect(),
        convention: "second less first; lost: queries right before and wrong now, won: the \
                     other way"
            .to_owned(),
        n: format!("{} pairs of cells", pairs.len()),
        ..Table::default()
    };
    Section::new("All pairs", vec![Block::Table(table)])
}

fn conditions(comparison: &Comparison) -> Section {
    let rows = comparison.conditions.iter().map(|judged| {
        [
            judged.condition.clone(),
            judged.verdict().to_owned(),
            judged.cells(),
            judged.why.clone(),
        ]
        .map(Cell::Words)
        .to_vec()
    });
    let table = Table {
        columns: ["condition", "verdict", "cell", "numbers"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.collect(),
        ..Table::default()
    };
    Section::new("Conditions", vec![Block::Table(table)])
}

fn chapter(pair: &Pair, n_pairs: usize, picture: Picture<'_>) -> Chapter {
    let mut sections = vec![measures(pair)];
    sections.extend(queries(pair, picture));
    Chapter {
        title: if n_pairs == 1 {
            String::new()
        } else {
            pair.title()
        },
        summary: Vec::new(),
        sections,
    }
}

fn measures(pair: &Pair) -> Section {
    let mut blocks: Vec<Block> = pair.cautions.iter().cloned().map(Block::Warning).collect();
    let dash = || Cell::Nothing;
    let row = |found: &Compared| {
        let shown = |value: Option<f64>| Cell::from(value.map(|value| found.shown(value)));
        let (interval, sample) = match found.interval {
            Some(interval) => {
                let [low, high] = [interval.low, interval.high].map(|end| found.signed(end));
                (format!("{low} to {high}").into(), interval.sample().into())
            }
            None => (dash(), dash()),
        };
        let verdict = match found.is_better() {
            Some(true) => Cell::from("better"),
            Some(false) => Cell::from("worse"),
            None => dash(),
        };
        vec![
            format!("{}{}", found.name, unit_of_column(found)).into(),
            shown(found.a),
            shown(found.b),
            Cell::from(found.difference.map(|difference| found.signed(difference))),
            interval,
            sample,
            verdict,
        ]
    };
    let columns = [
        "measure",
        "first",
        "second",
        "difference",
        "95 % interval",
        "over",
        "surely",
    ];
    blocks.push(Block::Table(Table {
        columns: columns.map(str::to_owned).to_vec(),
        rows: pair.measures.iter().map(row).collect(),
        convention: "second less first; intervals by bootstrap of 10,000 resamples: of queries \
                     as pairs for accuracies, of windows or cold starts of each side for times; \
                     better or worse where the interval leaves out 0"
            .to_owned(),
        origin: "results.json of both sessions".to_owned(),
        ..Table::default()
    }));
    Section::new("What differs", blocks)
}

fn unit_of_column(found: &Compared) -> String {
    let ending = format!("_{}", found.unit.to_lowercase());
    if found.unit.is_empty() || found.name.ends_with(&ending) {
        String::new()
    } else {
        format!(" ({})", found.unit)
    }
}

fn queries(pair: &Pair, picture: Picture<'_>) -> Option<Section> {
    let queries = pair.queries.as_ref()?;
    let flips = &queries.flips;
    let mut blocks = vec![
        Block::Text(format!("{}.", queries.said())),
        Block::Text(format!("{}.", flips.said())),
    ];
    for (title, flips) in [
        ("right before, wrong now", &flips.lost),
        ("wrong before, right now", &flips.won),
    ] {
        let pictures: Vec<FlipPicture> = { flips.iter().take(N_PICTURES) }
            .map(|flip| flip_picture(flip, title, picture))
            .collect();
        if !pictures.is_empty() {
            blocks.push(Block::Flips(pictures));
        }
        let rest: Vec<(String, String)> = { flips.iter().skip(N_PICTURES) }
            .map(|flip| (format!("{} ({})", flip.name, flip.label), flip.firsts()))
            .collect();
        if !rest.is_empty() {
            let title = format!("{} more: {title}", rest.len());
            blocks.push(Block::Folded(title, vec![Block::Facts(rest)]));
        }
    }
    Some(Section::new("Queries that changed sides", blocks))
}

fn flip_picture(flip: &Flip, outcome: &str, picture: Picture<'_>) -> FlipPicture {
    let matches = |answered: &Answered| {
        let matches = answered.matches.iter().take(N_MATCHES);
        matches
            .map(|found| MatchPicture {
                label: found.label.clone(),
                score: found.score,
                is_right: found.label == flip.label,
                picture: picture(&found.id),
            })
            .collect()
    };
    FlipPicture {
        label: flip.label.clone(),
        name: flip.name.clone(),
        outcome: outcome.to_owned(),
        picture: picture(&flip.id),
        before: matches(&flip.a),
        now: matches(&flip.b),
    }
}

/// Where both sides come from.
fn origin(comparison: &Comparison) -> Section {
    type Fact = (&'static str, fn(&SessionFacts) -> &str);
    let facts: [Fact; 6] = [
        ("session", |facts| &facts.session),
        ("plan", |facts| &facts.name),
        ("began", |facts| &facts.began),
        ("board", |facts| &facts.board),
        ("program of the board", |facts| &facts.program),
        ("program of the host", |facts| &facts.host),
    ];
    let rows = facts.map(|(name, of)| {
        let both = [of(&comparison.a), of(&comparison.b)];
        let both = both.map(|value| Cell::Words(value.to_owned()));
        let mut row = vec![Cell::from(name)];
        row.extend(both);
        row
    });
    let table = Table {
        columns: ["", "first", "second"].map(str::to_owned).to_vec(),
        rows: rows.to_vec(),
        ..Table::default()
    };
    let mut blocks = vec![Block::Table(table)];
    for (side, keys) in [
        ("first", &comparison.only_a),
        ("second", &comparison.only_b),
    ] {
        if !keys.is_empty() {
            let keys = keys.join(", ");
            blocks.push(Block::Text(format!("In the {side} session alone: {keys}.")));
        }
    }
    Section::new("How this was measured", blocks)
}
