//! Which labels are found, and which are taken for which others.

use std::collections::BTreeMap;

use super::View;
use crate::bench::results::{Accuracy, QueryAnswer};
use crate::report::plot::{Figure, Matrix};
use crate::report::text::{counted, thousands};
use crate::report::{Block, Cell, Section, Table};

/// Labels that are shown at once.
const N_SHOWN: usize = 10;

/// Labels beyond which a matrix shows only those with most mistakes.
const MAX_MATRIX: usize = 40;

/// Answers with the label that was asked for and the one that was found first.
struct Answered<'a> {
    label: &'a str,
    found: Option<&'a str>,
    is_right: bool,
}

pub(super) fn section(view: &View<'_>) -> Option<Section> {
    let cell = view.looked_at()?;
    let answered = answered(view, cell.accuracy.as_ref()?);
    if answered.is_empty() {
        return None;
    }
    let name = view.naming.name(cell);
    let mut blocks = vec![Block::Text(format!("Of {name}, {}.", view.why_this()))];
    let (worst, rest) = by_label(view, &answered);
    blocks.push(Block::Table(worst));
    blocks.extend(
        rest.map(|rest| Block::Folded("The other labels".to_owned(), vec![Block::Table(rest)])),
    );
    blocks.extend(confusions(view, &answered).map(Block::Table));
    blocks.extend(matrix(&answered).map(|figure| Block::Figures(vec![figure])));
    Some(Section::new("Labels and what they are taken for", blocks))
}

/// Answers to queries that have something to find: a query whose label is nowhere in the
/// gallery can not be answered right, and is left out.
fn answered<'a>(view: &View<'a>, accuracy: &'a Accuracy) -> Vec<Answered<'a>> {
    let of = |answer: &'a QueryAnswer| {
        Some(Answered {
            label: &view.results.queries.get(answer.query)?.label,
            found: answer.matches.first().map(|found| &*found.label),
            is_right: answer.first_right == Some(0),
        })
    };
    let answers = accuracy
        .answers
        .iter()
        .filter(|answer| answer.n_relevant > 0);
    answers.filter_map(of).collect()
}

/// The worst labels, and the others if there are many.
fn by_label(view: &View<'_>, answered: &[Answered<'_>]) -> (Table, Option<Table>) {
    let mut labels: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for answer in answered {
        let entry = labels.entry(answer.label).or_default();
        *entry = (entry.0 + 1, entry.1 + usize::from(answer.is_right));
    }
    let mut sorted: Vec<(&str, usize, f64)> = { labels.iter() }
        .map(|(label, (n, n_right))| (*label, *n, *n_right as f64 / *n as f64))
        .collect();
    sorted.sort_by(|a, b| a.2.total_cmp(&b.2).then(b.1.cmp(&a.1)).then(a.0.cmp(b.0)));
    let row = |(label, n, recall): &(&str, usize, f64)| {
        vec![
            Cell::from(*label),
            n.to_string().into(),
            Cell::Share(*recall),
        ]
    };
    let table = |title: &str, part: &[(&str, usize, f64)]| Table {
        title: title.to_owned(),
        columns: ["label", "queries", "recall_at_1"]
            .map(str::to_owned)
            .to_vec(),
        rows: part.iter().map(row).collect(),
        convention: "share of a label's queries whose best match has it".to_owned(),
        n: format!(
            "{}, {}",
            counted(answered.len(), "query", "queries"),
            counted(sorted.len(), "label", "labels")
        ),
        origin: view.origin.clone(),
    };
    let (worst, rest) = sorted.split_at(N_SHOWN.min(sorted.len()));
    let rest_table = (!rest.is_empty()).then(|| table("", rest));
    (
        table("recall_at_1 by label, the worst first", worst),
        rest_table,
    )
}

fn confusions(view: &View<'_>, answered: &[Answered<'_>]) -> Option<Table> {
    let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut n_of: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in answered {
        *n_of.entry(answer.label).or_default() += 1;
        if let Some(found) = answer.found.filter(|_| !answer.is_right) {
            *pairs.entry((answer.label, found)).or_default() += 1;
        }
    }
    let mut sorted: Vec<((&str, &str), usize)> = pairs.into_iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let n_wrong: usize = sorted.iter().map(|(_, n)| n).sum();
    let row = |((label, found), n): &((&str, &str), usize)| {
        let of = n_of.get(label).copied().unwrap_or(0);
        vec![
            Cell::from(*label),
            Cell::Words((*found).to_owned()),
            format!("{n} of {of}").into(),
        ]
    };
    (!sorted.is_empty()).then(|| Table {
        title: "Most frequent confusions".to_owned(),
        columns: ["label", "taken for", "queries"]
            .map(str::to_owned)
            .to_vec(),
        rows: sorted.iter().take(N_SHOWN).map(row).collect(),
        convention: "label of a query, label of its wrong best match, and how many of the label's \
                     queries that happened to"
            .to_owned(),
        n: format!(
            "{} with a wrong best match",
            counted(n_wrong, "query", "queries")
        ),
        origin: view.origin.clone(),
    })
}

fn matrix(answered: &[Answered<'_>]) -> Option<Figure> {
    let mut mistakes: BTreeMap<&str, usize> = BTreeMap::new();
    for answer in answered {
        let wrong = usize::from(!answer.is_right);
        *mistakes.entry(answer.label).or_default() += wrong;
        if let Some(found) = answer.found {
            *mistakes.entry(found).or_default() += wrong;
        }
    }
    let n_labels = mistakes.len();
    let mut chosen: Vec<(&str, usize)> = mistakes.into_iter().collect();
    if n_labels > MAX_MATRIX {
        chosen.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        chosen.truncate(MAX_MATRIX);
    }
    let mut names: Vec<&str> = chosen.iter().map(|(label, _)| *label).collect();
    names.sort_unstable();
    if names.len() < 2 {
        return None;
    }
    let mut counts = vec![0; names.len() * names.len()];
    for answer in answered {
        let at = |label: &str| names.binary_search(&label).ok();
        if let Some((row, column)) = at(answer.label).zip(answer.found.and_then(at)) {
            counts[row * names.len() + column] += 1;
        }
    }
    let matrix = Matrix {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        counts,
        rows: "rows: label of the query".to_owned(),
        columns: "columns: label of its best match".to_owned(),
    };
    let mut figure = Figure {
        title: "Confusion".to_owned(),
        description: "A row for each label of queries, a column for each label of best matches; \
                      the darker, the more of the row's queries."
            .to_owned(),
        note: if n_labels > MAX_MATRIX {
            format!(
                "The {MAX_MATRIX} of {} labels with most mistakes.",
                thousands(n_labels as u64)
            )
        } else {
            "Shade: share of the row's queries, in five steps. Diagonal: right.".to_owned()
        },
        ..Figure::default()
    };
    figure.narrow = matrix.draw(&figure);
    Some(figure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn queries_without_anything_to_find_are_in_no_label() {
        let mut session = fixture::session();
        session.queries[0].label = "nowhere".to_owned();
        for cell in &mut session.cells {
            let accuracy = cell.accuracy.as_mut().unwrap();
            accuracy.n_without_relevant = 1;
            accuracy.answers[0].n_relevant = 0;
            accuracy.answers[0].first_right = None;
        }
        let view = View::of(&session, &[]);
        let cell = view.looked_at().unwrap();
        let answered = answered(&view, cell.accuracy.as_ref().unwrap());
        assert_eq!(answered.len(), session.queries.len() - 1);
        assert!(answered.iter().all(|answer| answer.label != "nowhere"));
    }

    #[test]
    fn the_worst_label_comes_first() {
        let session = fixture::session();
        let view = View::of(&session, &[]);
        let answer = |label, is_right| Answered {
            label,
            found: Some("tea"),
            is_right,
        };
        let answered = [
            answer("milk", false),
            answer("tea", true),
            answer("milk", true),
            answer("rice", false),
        ];
        let (worst, rest) = by_label(&view, &answered);
        let names: Vec<&Cell> = worst.rows.iter().map(|row| &row[0]).collect();
        assert_eq!(
            names,
            [&Cell::from("rice"), &Cell::from("milk"), &Cell::from("tea")]
        );
        assert!(rest.is_none());
        assert_eq!(confusions(&view, &answered).unwrap().rows.len(), 2);
    }
}
