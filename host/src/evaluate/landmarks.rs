//! A revisited Oxford or Paris run: queries cut out of their images, ranks counted in a
//! gallery, scores at all levels.

use eyas_device::matcher::Matcher;
use eyas_shared::embedding::{Embeddings, l2_normalize};
use eyas_shared::fingerprint::ImageId;
use eyas_shared::preprocess::RgbImage;
use thiserror::Error;

use super::protocols::RetrievalError;
use super::ranks::{Asked, ranks};
use super::revisited::{Level, RevisitedScores, scores, without_junk};
use crate::data::landmarks::{Revisited, RevisitedQuery};
use crate::data::manifest::{Image, Manifest};
use crate::data::parallel;
use crate::embeddings::images::read_image;

/// Queries that share one reading of the gallery.
const BATCH: usize = 16;

/// Why a set can not be scored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LandmarkError {
    /// The data lists another set.
    #[error("the ground truth names `{path}`, which the data does not list")]
    NotListed {
        /// Which image.
        path: String,
    },
    /// The gallery holds another set.
    #[error(
        "the ground truth names `{path}`, which the gallery does not hold; build it from all images with the gallery role"
    )]
    NotInGallery {
        /// Which image.
        path: String,
    },
    /// A query can not be read or embedded.
    #[error("query `{path}`: {why}")]
    Query {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// Queries and gallery do not fit together.
    #[error(transparent)]
    Retrieval(#[from] RetrievalError),
}

/// The part of an image within left, top, right, bottom: rounded to whole pixels, at least
/// one, and cut at the image's borders.
#[must_use]
pub fn cut_out(image: &RgbImage, bounds: [f64; 4]) -> RgbImage {
    let within = |low: f64, high: f64, side: u32| {
        // A saturating conversion: what lies left of the image is 0.
        let first = (low.round() as u32).min(side.saturating_sub(1));
        let end = (high.round() as u32).clamp(first + 1, side.max(first + 1));
        (first as usize, end as usize)
    };
    let [left, top, right, bottom] = bounds;
    let (left, right) = within(left, right, image.width);
    let (top, bottom) = within(top, bottom, image.height);
    let rows = image.rows().skip(top).take(bottom - top);
    RgbImage {
        width: (right - left) as u32,
        height: (bottom - top) as u32,
        samples: rows
            .flat_map(|row| &row[3 * left..3 * right])
            .copied()
            .collect(),
    }
}

/// Embeds every query from its box. `done` is called after each.
///
/// # Errors
/// If a query is not listed, or can not be read or embedded.
pub fn embed_queries(
    truth: &Revisited,
    manifest: &Manifest,
    dim: usize,
    embed: impl Fn(&RgbImage) -> Result<Vec<f32>, String> + Sync,
    done: impl Fn(),
) -> Result<Embeddings, LandmarkError> {
    let embed_one = |query: &RevisitedQuery| {
        let image = listed(manifest, &query.path)?;
        let pixels = read_image(manifest, image);
        let embedding = pixels.and_then(|pixels| embed(&cut_out(&pixels, query.bounds)));
        embedding.map_err(|why| LandmarkError::Query {
            path: query.path.clone(),
            why,
        })
    };
    let n_queries = truth.queries.len();
    let embedded = parallel::map(n_queries, |i| embed_one(&truth.queries[i]), done);
    let mut rows = Embeddings::new(dim);
    for embedding in embedded {
        let mut embedding = embedding?;
        l2_normalize(&mut embedding);
        rows.push(&embedding);
    }
    Ok(rows)
}

fn listed<'m>(manifest: &'m Manifest, path: &str) -> Result<&'m Image, LandmarkError> {
    let found = manifest.images.iter().find(|image| image.path == path);
    found.ok_or_else(|| LandmarkError::NotListed {
        path: path.to_owned(),
    })
}

/// Scores at [`Level::ALL`] of queries in the order of `truth`.
///
/// # Errors
/// If the gallery lacks an image that the ground truth names, or has another dimension.
pub fn score_levels(
    truth: &Revisited,
    manifest: &Manifest,
    queries: &Embeddings,
    matcher: &Matcher<'_>,
    ks: &[usize],
) -> Result<[RevisitedScores; 3], LandmarkError> {
    let gallery = matcher.gallery();
    if queries.dim() != gallery.dim() {
        return Err(RetrievalError::OtherDim {
            queries: queries.dim(),
            gallery: gallery.dim(),
        }
        .into());
    }
    if let Some(query_idx) = queries.first_unusable_row() {
        return Err(RetrievalError::NoDirection { query_idx }.into());
    }
    let rows = rows_of_positions(truth, manifest, matcher)?;
    let asked: Vec<Asked<'_>> = { truth.queries.iter().zip(queries.rows()) }
        .map(|(query, embedding)| {
            let truth = &query.truth;
            let positions = truth.easy.iter().chain(&truth.hard).chain(&truth.junk);
            let mut wanted: Vec<u32> = positions.map(|position| rows[*position]).collect();
            wanted.sort_unstable();
            wanted.dedup();
            Asked {
                embedding,
                exclude: None,
                rows: wanted,
            }
        })
        .collect();
    let blocks: Vec<&[Asked<'_>]> = asked.chunks(BATCH).collect();
    let found = parallel::map(blocks.len(), |i| ranks(gallery, blocks[i], 0), || {});
    let found: Vec<Vec<usize>> = { found.into_iter().flatten() }
        .map(|found| found.ranks)
        .collect();
    Ok(Level::ALL.map(|level| {
        let ranking = |query_idx: usize| {
            let rank_of = |position: &usize| {
                let place = asked[query_idx].rows.binary_search(&rows[*position]);
                found[query_idx][place.expect("every position was asked for")]
            };
            let (relevant, junk) = truth.queries[query_idx].truth.at(level);
            let ranks =
                |positions: &[usize]| -> Vec<usize> { positions.iter().map(rank_of).collect() };
            without_junk(&ranks(&relevant), &ranks(&junk), relevant.len())
        };
        let rankings: Vec<_> = (0..asked.len()).map(ranking).collect();
        scores(&rankings, ks)
    }))
}

/// The gallery's row of each position of the ground truth.
fn rows_of_positions(
    truth: &Revisited,
    manifest: &Manifest,
    matcher: &Matcher<'_>,
) -> Result<Vec<u32>, LandmarkError> {
    let gallery = matcher.gallery();
    let row_of: std::collections::HashMap<ImageId, u32> = (0..gallery.n_rows())
        .map(|row| (gallery.id(row), row))
        .collect();
    let id_of: std::collections::HashMap<&str, ImageId> = { manifest.images.iter() }
        .map(|image| (image.path.as_str(), image.id))
        .collect();
    let row = |path: &String| {
        let id = id_of.get(path.as_str());
        let id = id.ok_or_else(|| LandmarkError::NotListed { path: path.clone() })?;
        let row = row_of.get(id).copied();
        row.ok_or_else(|| LandmarkError::NotInGallery { path: path.clone() })
    };
    truth.gallery.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use eyas_shared::fingerprint::{Fingerprint, SpaceId};
    use eyas_shared::gallery::{self, Codes, Entry, Gallery, GallerySource};

    use super::*;
    use crate::evaluate::revisited::GroundTruth;

    #[test]
    fn a_box_is_rounded_and_cut_at_the_borders() {
        let samples: Vec<u8> = (0..4 * 3).flat_map(|i| [i, i, i]).collect();
        let image = RgbImage {
            width: 4,
            height: 3,
            samples,
        };
        let part = |bounds| {
            let part = cut_out(&image, bounds);
            let firsts: Vec<u8> = part.samples.chunks(3).map(|pixel| pixel[0]).collect();
            (part.width, part.height, firsts)
        };
        assert_eq!(part([0.6, 0.9, 2.6, 2.2]), (2, 1, vec![5, 6]));
        assert_eq!(part([-9.0, -9.0, 99.0, 99.0]).0, 4);
        assert_eq!(part([50.0, 50.0, 60.0, 60.0]), (1, 1, vec![11]));
        assert_eq!(part([1.1, 1.1, 1.2, 1.2]), (1, 1, vec![5]));
    }

    #[test]
    fn a_set_is_scored_at_all_levels() {
        let directions = [10.0_f32, 20.0, 30.0, 40.0, 50.0];
        let unit = |degrees: &f32| [degrees.to_radians().cos(), degrees.to_radians().sin()];
        let mut rows = Embeddings::new(2);
        let id = |i: usize| ImageId([i as u8; 16]);
        let image = |i: usize| Image {
            path: format!("jpg/{i}.jpg"),
            label: "a".into(),
            split: "gallery".into(),
            is_query: false,
            is_gallery: true,
            id: id(i),
        };
        let manifest = Manifest {
            root: "data".into(),
            images: (0..5).map(image).collect(),
        };
        directions
            .iter()
            .for_each(|degrees| rows.push(&unit(degrees)));
        let entries: Vec<Entry<'_>> = { manifest.images.iter() }
            .map(|image| Entry {
                id: image.id,
                label: "a",
                name: &image.path,
            })
            .collect();
        let source = GallerySource {
            space: SpaceId(Fingerprint([0; 32])),
            teacher: String::new(),
            manifest: Fingerprint([0; 32]),
            codes: Codes::F32,
        };
        let bytes = gallery::write(&source, &rows, &entries).unwrap();
        let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
        // Nearest first: 0, 1, 2, 3, 4.
        let mut queries = Embeddings::new(2);
        queries.push(&unit(&0.0));
        let truth = Revisited {
            queries: vec![RevisitedQuery {
                path: "jpg/q.jpg".into(),
                bounds: [0.0, 0.0, 1.0, 1.0],
                truth: GroundTruth {
                    easy: vec![1],
                    hard: vec![3],
                    junk: vec![0],
                },
            }],
            gallery: (0..5).map(|i| format!("jpg/{i}.jpg")).collect(),
        };
        let score = |truth: &Revisited| score_levels(truth, &manifest, &queries, &matcher, &[1, 2]);
        let [easy, medium, hard] = score(&truth).unwrap();
        assert_eq!(easy.mean_average_precision, Some(1.0));
        // Without junk the order is 1, 2, 3, 4.
        let expected = (1.0 + f64::midpoint(1.0 / 2.0, 2.0 / 3.0)) / 2.0;
        assert_eq!(medium.mean_average_precision, Some(expected));
        assert_eq!(medium.mean_precision_at_k, [1.0, 0.5]);
        // Without junk and easy ones it is 2, 3, 4.
        assert_eq!(hard.mean_average_precision, Some(0.25));
        let mut other = truth.clone();
        other.gallery[4] = "jpg/9.jpg".into();
        let said = score(&other).unwrap_err().to_string();
        assert!(
            said.contains("`jpg/9.jpg`, which the data does not list"),
            "{said}"
        );
    }
}
