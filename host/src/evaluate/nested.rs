//! Nested dimensions: what the first components of embeddings find by themselves
//! (Kusupati et al., NeurIPS 2022).

use eyas_device::matcher::Matcher;
use eyas_shared::embedding::{Embeddings, l2_normalize};
use eyas_shared::gallery::{self, Entry, Gallery, GallerySource};

use super::{EvaluateError, Queries, Retrieval, retrieval};

/// Scores the first `dim` components of the queries, scaled to length 1, among the first
/// components of the gallery's rows, which are stored anew in the gallery's codes.
///
/// # Errors
/// If the embeddings have fewer components, or a row has no direction any more.
pub fn of_prefix(
    queries: &Queries,
    matcher: &Matcher<'_>,
    dim: usize,
) -> Result<Retrieval, EvaluateError> {
    let whole = matcher.gallery();
    if !(1..=whole.dim()).contains(&dim) {
        let whole = whole.dim();
        return Err(EvaluateError::Prefix { dim, whole });
    }
    let live: Vec<u32> = (0..whole.n_rows())
        .filter(|&row_idx| !whole.is_removed(row_idx))
        .collect();
    let mut rows = Embeddings::new(dim);
    let mut row = vec![0.0; whole.dim()];
    for &row_idx in &live {
        whole.row_into(row_idx, &mut row);
        rows.push(&row[..dim]);
    }
    let entries: Vec<Entry<'_>> = live.iter().filter_map(|&row| whole.entry(row)).collect();
    let bytes = gallery::write(&GallerySource::of(whole), &rows, &entries)?;

    let mut cut = Embeddings::new(dim);
    for query_idx in 0..queries.embeddings.n_rows() {
        let mut query = queries.embeddings.row(query_idx)[..dim].to_vec();
        l2_normalize(&mut query);
        cut.push(&query);
    }
    let queries = Queries {
        embeddings: cut,
        ids: queries.ids.clone(),
        labels: queries.labels.clone(),
    };
    let matcher = Matcher::new(Gallery::open(&bytes)?);
    Ok(retrieval(&queries, &matcher)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
    use eyas_shared::gallery::Codes;

    fn id(name: &str) -> ImageId {
        ImageId::of_file(name.as_bytes())
    }

    #[test]
    fn a_prefix_asks_with_its_own_components_only() {
        // The first component separates nothing, the first two do.
        let mut rows = Embeddings::new(3);
        rows.push(&[0.5, 0.8, 0.1]);
        rows.push(&[0.5, -0.8, 0.1]);
        let ids = [id("a"), id("b")];
        let entries = ["cup", "jar"].map(|label| label.to_owned());
        let entries: Vec<Entry<'_>> = { ids.iter().zip(&entries) }
            .map(|(&id, label)| Entry {
                id,
                label,
                name: label,
            })
            .collect();
        let source = GallerySource {
            space: SpaceId(Fingerprint::of_bytes(b"space")),
            teacher: "t".to_owned(),
            manifest: Fingerprint::of_bytes(b"list"),
            codes: Codes::F32,
        };
        let bytes = gallery::write(&source, &rows, &entries).unwrap();
        let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
        let mut embeddings = Embeddings::new(3);
        embeddings.push(&[0.4, -0.3, 0.85]);
        let queries = Queries {
            embeddings,
            ids: vec![id("q")],
            labels: vec!["jar".to_owned()],
        };
        let at_1 = |dim| of_prefix(&queries, &matcher, dim).map(|found| found.means.recall_at_1);
        assert_eq!(at_1(2).unwrap(), 1.0);
        assert_eq!(at_1(1).unwrap(), 0.0, "a tie goes to the first row");
        let message = at_1(4).unwrap_err().to_string();
        assert_eq!(message, "4 components are asked for, embeddings have 3");
    }
}
