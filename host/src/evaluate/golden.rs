//! Values of published implementations for fixed inputs, where the files are present.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use eyas_device::matcher::Matcher;
use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::gallery::{self, Entry, Gallery, GallerySource, RowEncoding};
use npyz::NpyFile;

use super::metrics::{self, Ranking};
use super::protocols::{Queries, Retrieval, retrieval};
use crate::linear_algebra::dot;

/// The reference works in f64 on f64 inputs, the matcher in f32: the same ranking gives the
/// same sums of fractions.
const TOLERANCE: f64 = 1e-9;

/// Arrays of an uncompressed .npz file by name.
fn read_npz(bytes: &[u8]) -> BTreeMap<String, Vec<f64>> {
    let mut arrays = BTreeMap::new();
    let mut rest = bytes;
    // Local file headers, one after the other, up to the central directory.
    while let Some(header) = rest.strip_prefix(b"PK\x03\x04") {
        let number = |at: usize, n: usize| -> usize {
            header[at..at + n]
                .iter()
                .rev()
                .fold(0, |number, byte| number << 8 | usize::from(*byte))
        };
        assert_eq!(number(4, 2), 0, "stored, not compressed");
        let (name_len, extra_len) = (number(22, 2), number(24, 2));
        let name = std::str::from_utf8(&header[26..26 + name_len]).unwrap();
        // NumPy writes sizes into the zip64 field: uncompressed, then compressed.
        let extra = 26 + name_len;
        let size = match number(14, 4) {
            0xffff_ffff => number(extra + 4, 8),
            size => size,
        };
        let data = &header[extra + extra_len..][..size];
        arrays.insert(name.trim_end_matches(".npy").to_owned(), numbers(data));
        rest = &header[extra + extra_len + size..];
    }
    arrays
}

fn numbers(npy: &[u8]) -> Vec<f64> {
    let open = || NpyFile::new(npy).unwrap();
    match open().into_vec::<f64>() {
        Ok(values) => values,
        Err(_) => match open().into_vec::<f32>() {
            Ok(values) => values.into_iter().map(f64::from).collect(),
            Err(_) => open()
                .into_vec::<i64>()
                .unwrap()
                .into_iter()
                .map(|x| x as f64)
                .collect(),
        },
    }
}

struct Golden {
    arrays: BTreeMap<String, Vec<f64>>,
}

/// `None`, with a message, where the files are not.
fn golden() -> Option<Golden> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden");
    let Ok(arrays) = std::fs::read(folder.join("eval.npz")) else {
        eprintln!("skipped: there is no {}", folder.display());
        return None;
    };
    Some(Golden {
        arrays: read_npz(&arrays),
    })
}

impl Golden {
    fn array(&self, id: &str, name: &str) -> &[f64] {
        &self.arrays[&format!("{id}/{name}")]
    }

    /// Cases by the start of their name.
    fn cases(&self, prefix: &str) -> BTreeSet<String> {
        let cases = self.arrays.keys().filter_map(|name| name.split('/').next());
        cases
            .filter(|case| case.starts_with(prefix))
            .map(str::to_owned)
            .collect()
    }
}

/// Image `i` of a case has the id `i`, also in the gallery: query and item are one image.
fn search(queries: &[f64], searched: &[f64], labels: &[f64]) -> Retrieval {
    let dim = queries.len() / labels.len();
    let unit = |values: &[f64]| -> Embeddings {
        let mut rows = Embeddings::new(dim);
        for row in values.chunks(dim) {
            let norm = dot(row, row).sqrt();
            let row: Vec<f32> = row.iter().map(|x| (x / norm) as f32).collect();
            rows.push(&row);
        }
        rows
    };
    let ids: Vec<ImageId> = (0..labels.len()).map(|i| ImageId([i as u8; 16])).collect();
    let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
    let entries: Vec<Entry<'_>> = ids
        .iter()
        .zip(&labels)
        .map(|(&id, label)| Entry {
            id,
            label,
            name: "",
        })
        .collect();
    let source = GallerySource {
        space: SpaceId(Fingerprint([0; 32])),
        teacher: String::new(),
        manifest: Fingerprint([0; 32]),
        encoding: RowEncoding::F32,
    };
    let bytes = gallery::write(&source, &unit(searched), &entries).unwrap();
    let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
    let queries = Queries {
        embeddings: unit(queries),
        ids: ids.clone(),
        labels: labels.clone(),
    };
    retrieval(&queries, &matcher).unwrap()
}

fn close(what: &str, found: f64, expected: f64) {
    assert!(
        (found - expected).abs() < TOLERANCE,
        "{what}: {found} {expected}"
    );
}

#[test]
fn asymmetric_scores_agree_with_the_reference() {
    let Some(golden) = golden() else { return };
    let ids = golden.cases("asym_selfexcluded_");
    assert_eq!(ids.len(), 3);
    for id in ids {
        let array = |name| golden.array(&id, name);
        let found = search(array("in_student"), array("in_teacher"), array("in_labels"));
        close(&id, found.means.recall_at_1, array("recall_at_1")[0]);
        // Every image is in the gallery too, and leaves itself out.
        let n_images = found.queries.len();
        assert!(
            found
                .queries
                .iter()
                .all(|query| query.n_searched == n_images - 1)
        );
        let expected = array("map_at_r")[0];
        close(&id, found.means.mean_average_precision_at_r, expected);
    }
}

/// Rankings of all others for each image, by a score of two rows.
fn rankings(
    queries: &[f64],
    searched: &[f64],
    labels: &[f64],
    score: fn(&[f64], &[f64]) -> f64,
) -> Vec<Ranking> {
    let dim = queries.len() / labels.len();
    let ranking = |(i, query): (usize, &[f64])| {
        let mut others: Vec<usize> = (0..labels.len()).filter(|j| *j != i).collect();
        let score = |j: usize| score(query, &searched[j * dim..][..dim]);
        others.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
        let is_relevant: Vec<bool> = others.iter().map(|j| labels[*j] == labels[i]).collect();
        Ranking {
            n_relevant: is_relevant.iter().filter(|hit| **hit).count(),
            is_relevant,
        }
    };
    queries.chunks(dim).enumerate().map(ranking).collect()
}

fn mean(rankings: &[Ranking], metric: impl Fn(&Ranking) -> Option<f64>) -> f64 {
    let values: Vec<f64> = rankings.iter().filter_map(metric).collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn metrics_of_euclidean_rankings_agree_with_the_reference() {
    let Some(golden) = golden() else { return };
    // The reference ranks raw embeddings by distance, which the matcher does not.
    let nearness = |a: &[f64], b: &[f64]| -> f64 {
        -a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>()
    };
    let cases = golden.cases("pml_acc_sym_");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let array = |name| golden.array(&case, name);
        let emb = array("in_emb");
        let rankings = rankings(emb, emb, array("in_labels"), nearness);
        let recall = mean(&rankings, |ranking| metrics::recall_at_k(ranking, 1));
        close(&case, recall, array("precision_at_1")[0]);
        let found = mean(&rankings, metrics::mean_average_precision_at_r);
        close(&case, found, array("mean_average_precision_at_r")[0]);
        close(
            &case,
            mean(&rankings, metrics::r_precision),
            array("r_precision")[0],
        );
    }
    for case in golden.cases("recall_sym_") {
        let array = |name| golden.array(&case, name);
        let emb = array("in_emb");
        let rankings = rankings(emb, emb, array("in_labels"), nearness);
        for (k, expected) in [1, 2, 4, 8].into_iter().zip(array("recall_lr")) {
            let recall = mean(&rankings, |ranking| metrics::recall_at_k(ranking, k));
            close(&case, recall, *expected);
        }
    }
}

#[test]
fn whole_rankings_agree_with_the_reference() {
    let Some(golden) = golden() else { return };
    let cosine = |a: &[f64], b: &[f64]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    for case in golden.cases("asym_selfexcluded_") {
        let array = |name| golden.array(&case, name);
        let (student, teacher) = (array("in_student"), array("in_teacher"));
        let rankings = rankings(student, teacher, array("in_labels"), cosine);
        close(
            &case,
            mean(&rankings, metrics::average_precision_step),
            array("map")[0],
        );
        close(
            &case,
            mean(&rankings, metrics::r_precision),
            array("r_precision")[0],
        );
    }
}
