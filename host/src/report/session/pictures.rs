//! Queries with what was found for them, the worst first.

use super::View;
use crate::bench::results::QueryAnswer;
use crate::report::text::thousands;
use crate::report::{Block, MatchPicture, Pictures, QueryPicture, Section, Thumbnail};

/// Queries that are shown: wrong ones as far as there are, but for a quarter.
const N_SHOWN: usize = 16;

/// Matches that are shown of each.
const N_MATCHES: usize = 5;

pub(super) fn section(
    view: &View<'_>,
    picture: &dyn Fn(&str) -> Option<Thumbnail>,
) -> Option<Section> {
    let cell = view.looked_at()?;
    let accuracy = cell.accuracy.as_ref()?;
    let chosen = chosen(&accuracy.answers);
    if chosen.is_empty() {
        return None;
    }
    let queries: Vec<QueryPicture> = { chosen.iter() }
        .filter_map(|answer| query_picture(view, answer, picture))
        .collect();
    let n_wrong = accuracy
        .answers
        .iter()
        .filter(|answer| answer.first_right != Some(0))
        .count();
    let origin = format!(
        "{} of {} queries to {}, {}; {} of all found a wrong image first.",
        queries.len(),
        thousands(accuracy.answers.len() as u64),
        view.naming.name(cell),
        view.why_this(),
        thousands(n_wrong as u64),
    );
    let pictures = Pictures { queries, origin };
    Some(Section::new(
        "Queries and their matches",
        vec![Block::Pictures(pictures)],
    ))
}

/// The worst of the wrong ones, then the least sure of the right ones.
fn chosen(answers: &[QueryAnswer]) -> Vec<&QueryAnswer> {
    let score = |answer: &QueryAnswer| answer.matches.first().map_or(0.0, |found| found.score);
    let (mut right, mut wrong): (Vec<&QueryAnswer>, Vec<&QueryAnswer>) = answers
        .iter()
        .partition(|answer| answer.first_right == Some(0));
    let depth = |answer: &QueryAnswer| answer.first_right.unwrap_or(usize::MAX);
    wrong.sort_by(|a, b| {
        (depth(b).cmp(&depth(a)))
            .then(score(b).total_cmp(&score(a)))
            .then(a.query.cmp(&b.query))
    });
    right.sort_by(|a, b| score(a).total_cmp(&score(b)).then(a.query.cmp(&b.query)));
    let n_right = right.len().min(N_SHOWN / 4);
    wrong.truncate(N_SHOWN - n_right);
    right.truncate(N_SHOWN - wrong.len());
    wrong.into_iter().chain(right).collect()
}

fn query_picture(
    view: &View<'_>,
    answer: &QueryAnswer,
    picture: &dyn Fn(&str) -> Option<Thumbnail>,
) -> Option<QueryPicture> {
    let query = view.results.queries.get(answer.query)?;
    let matches = answer
        .matches
        .iter()
        .take(N_MATCHES)
        .map(|found| MatchPicture {
            label: found.label.clone(),
            score: found.score,
            is_right: found.label == query.label,
            picture: picture(&found.id),
        });
    Some(QueryPicture {
        label: query.label.clone(),
        name: query.name.clone(),
        picture: picture(&query.id),
        first_right: answer.first_right,
        matches: matches.collect(),
    })
}
