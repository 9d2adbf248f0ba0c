//! `eyas compare`: two cells of bench sessions beside each other.

use std::path::{Path, PathBuf};

use anyhow::bail;
use eyas_shared::files;

use super::runs::aligned;
use super::{Answer, note, say};
use crate::bench::results::{RESULTS_FILE, Results};
use crate::compare::choose::{Choice, Pairs, pairs};
use crate::compare::condition::Condition;
use crate::compare::{Compared, Comparison, Flip, Pair, compare};
use crate::report::input::Session;
use crate::runs::RECIPE_FILE;

/// Flips of a side that are shown by name.
const N_SHOWN: usize = 10;

/// Compare two measurements: what differs, how surely, and which queries changed sides.
///
/// A and B are sessions of `eyas bench`, each with a cell if the session has several:
/// `SESSION#int8/1/` means the cell whose key holds `int8/1/`. Without one, cells of equal
/// keys are compared.
///
/// Intervals are 95 % of a bootstrap: over the queries that both answered for accuracies,
/// over windows for times. With --fail-if, the answer is no (exit code 1) if a condition
/// holds, and exit code 2 says that one could not be decided.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas compare sessions/20261121_202824#f16 sessions/20261121_202824#int8
  eyas compare before after --fail-if 'recall_at_1 drops 0.01' --fail-if 'p95_ms rises 5% surely'")]
pub(super) struct Args {
    /// Session, or SESSION#PART with a part of the cell's key.
    a: String,
    /// Another one.
    b: String,
    /// `METRIC drops X` or `METRIC rises X`: by X at least, in the metric's unit, or by X% of
    /// the first cell's number; `surely` behind it asks for the whole interval. Repeatable.
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Condition>,
    /// Write a page with pictures; as Markdown without them if it ends in `.md`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let (a_choice, b_choice) = (Choice::of(&args.a), Choice::of(&args.b));
    let (a, b) = (read(&a_choice.session)?, read(&b_choice.session)?);
    let Pairs {
        pairs,
        only_a,
        only_b,
    } = pairs((&a_choice, &a.results), (&b_choice, &b.results))?;
    let mut comparison = compare(&a, &b, &pairs);
    comparison.only_a = only_a;
    comparison.only_b = only_b;
    let comparison = comparison.judged(&args.fail_if);

    if args.json {
        say(&serde_json::to_string(&comparison)?);
    } else {
        describe(&comparison);
    }
    if let Some(path) = &args.out {
        let picture = |id: &str| a.picture(id).or_else(|| b.picture(id));
        let page = comparison.to_report(&picture);
        let is_markdown = path.extension().is_some_and(|ending| ending == "md");
        let text = if is_markdown {
            page.to_markdown()
        } else {
            page.to_html()
        };
        files::replace(path, text.as_bytes())?;
        note(&format!("page  {}", path.display()));
    }
    answer(&comparison)
}

fn read(folder: &Path) -> anyhow::Result<Session> {
    if !folder.join(RESULTS_FILE).exists() && folder.join(RECIPE_FILE).exists() {
        bail!(
            "`{}` is a run directory, which `eyas runs compare` compares",
            folder.display()
        );
    }
    Ok(Session {
        results: Box::new(Results::read(folder)?),
        folder: folder.to_owned(),
    })
}

/// One condition that holds decides, whatever is open beside it.
fn answer(comparison: &Comparison) -> anyhow::Result<Answer> {
    let mut conditions = comparison.conditions.iter();
    if conditions.clone().any(|judged| judged.holds == Some(true)) {
        return Ok(Answer::No);
    }
    if let Some(open) = conditions.find(|judged| judged.holds.is_none()) {
        bail!(
            "`{}` can not be decided for {}: {}",
            open.condition,
            open.cells(),
            open.why
        );
    }
    Ok(Answer::Yes)
}

fn describe(comparison: &Comparison) {
    let (a, b) = (&comparison.a, &comparison.b);
    let both = |name: &str, a: &str, b: &str| [name, a, b].map(str::to_owned);
    let lines = [
        both("", "a", "b"),
        both("session", &a.session, &b.session),
        both("began", &a.began, &b.began),
        both("board", &a.board, &b.board),
    ];
    for line in aligned(&lines) {
        say(&line);
    }
    say_each("caution", &comparison.cautions);
    for pair in &comparison.pairs {
        describe_pair(pair);
    }
    say_each("only in a", &comparison.only_a);
    say_each("only in b", &comparison.only_b);
    for judged in &comparison.conditions {
        say(&format!(
            "`{}` {} for {}: {}",
            judged.condition,
            judged.verdict(),
            judged.cells(),
            judged.why
        ));
    }
}

fn say_each(what: &str, lines: &[String]) {
    for line in lines {
        say(&format!("{what}: {line}"));
    }
}

fn describe_pair(pair: &Pair) {
    say("");
    if pair.a == pair.b {
        say(&pair.a);
    } else {
        say(&format!("a: {}", pair.a));
        say(&format!("b: {}", pair.b));
    }
    say_each("caution", &pair.cautions);
    let header = ["", "a", "b", "b - a", "95 % interval", "over", ""];
    let mut lines = vec![header.map(str::to_owned)];
    lines.extend(pair.measures.iter().map(line));
    for line in aligned(&lines) {
        say(&line);
    }
    let Some(queries) = &pair.queries else {
        return;
    };
    say(&queries.said());
    say(&queries.flips.said());
    for (way, flips) in [("lost", &queries.flips.lost), ("won", &queries.flips.won)] {
        for flip in flips.iter().take(N_SHOWN) {
            say(&format!("{way:5} {}", Flip::said(flip)));
        }
        if flips.len() > N_SHOWN {
            say(&format!("{way:5} and {} more", flips.len() - N_SHOWN));
        }
    }
}

fn line(compared: &Compared) -> [String; 7] {
    let dash = || "-".to_owned();
    let shown = |value: Option<f64>| value.map_or_else(dash, |value| compared.shown(value));
    let interval = compared.interval.map(|found| {
        let [low, high] = [found.low, found.high].map(|end| compared.signed(end));
        (format!("{low} to {high}"), found.sample())
    });
    let (interval, sample) = interval.unwrap_or_else(|| (dash(), dash()));
    let verdict = match compared.is_better() {
        Some(true) => "better",
        Some(false) => "worse",
        None => "",
    };
    [
        compared.name.to_owned(),
        shown(compared.a),
        shown(compared.b),
        compared
            .difference
            .map_or_else(dash, |value| compared.signed(value)),
        interval,
        sample,
        verdict.to_owned(),
    ]
}
