//! From rows to labels: a label is as near as the nearest of its rows.
//!
//! That rule needs no setting and does not favor labels with many rows more than a search
//! for rows does; it is the one that calibration measures.

use std::collections::HashSet;

use eyas_shared::fingerprint::ImageId;

use crate::matcher::{Match, Matcher};

/// A label with the best of its rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelMatch {
    /// Number of the label in the gallery.
    pub label_idx: u32,
    /// Its best row.
    pub best: Match,
}

/// Rows that are asked for at first; more if they have too few labels.
const FIRST_ROWS: usize = 32;

/// The `n` best labels, or all if there are fewer, best first.
///
/// `search` gives the best rows, as many as it is asked for or all. It is asked again for
/// four times as many until enough labels were seen.
pub(super) fn best_labels(
    matcher: &Matcher<'_>,
    n: usize,
    search: impl Fn(usize) -> Vec<Match>,
) -> Vec<LabelMatch> {
    let n_rows = matcher.gallery().n_rows() as usize;
    let mut k = n.saturating_mul(4).max(FIRST_ROWS);
    loop {
        let rows = search(k);
        let mut labels = first_of_each(matcher, &rows);
        if labels.len() >= n || rows.len() < k || k >= n_rows {
            labels.truncate(n);
            return labels;
        }
        k = k.saturating_mul(4);
    }
}

/// The first row of every label among ranked rows, in their order.
fn first_of_each(matcher: &Matcher<'_>, rows: &[Match]) -> Vec<LabelMatch> {
    let mut seen = HashSet::new();
    rows.iter()
        .map(|&best| LabelMatch {
            label_idx: matcher.gallery().label_idx(best.row),
            best,
        })
        .filter(|found| seen.insert(found.label_idx))
        .collect()
}

/// The `n` labels that are nearest to a query.
///
/// # Panics
/// If the query is not as long as the gallery's rows.
#[must_use]
pub fn nearest(
    matcher: &Matcher<'_>,
    query: &[f32],
    n: usize,
    exclude: Option<ImageId>,
) -> Vec<LabelMatch> {
    best_labels(matcher, n, |k| matcher.search(query, k, exclude))
}
