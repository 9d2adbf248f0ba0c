//! The definition of the answer: score every row, sort, cut.

use eyas_shared::embedding::dot;
use eyas_shared::gallery::Gallery;

use super::{Match, Query, best_first};

/// The `k` best rows, or all if there are fewer, best first.
///
/// # Panics
/// If the query is not as long as the gallery's rows.
#[must_use]
pub fn search(gallery: &Gallery<'_>, query: &Query<'_>, k: usize) -> Vec<Match> {
    let mut values = vec![0.0; gallery.dim()];
    let mut matches = Vec::new();
    for row in 0..gallery.n_rows() {
        if !query.accepts(gallery, row) {
            continue;
        }
        gallery.row_into(row, &mut values);
        matches.push(Match {
            row,
            id: gallery.id(row),
            score: dot(query.embedding, &values),
        });
    }
    matches.sort_by(best_first);
    matches.truncate(k);
    matches
}
