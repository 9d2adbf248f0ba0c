//! What published evaluation code was recorded to give, computed by ours: one function for
//! each kind of entry in an `index.json` of golden values.
//!
//! An entry is recognized by its repository and class, never by its name, so that other
//! folders of the same form work. Reading the files and comparing is the caller's business,
//! with [`differs`].

use std::collections::BTreeMap;

use serde_json::Value;
use thiserror::Error;

use super::clustering;
use super::metrics::{self, Ranking};
use super::revisited::{self, GroundTruth, Level};
use crate::linear_algebra::{Matrix, dot};
use crate::teacher::npy::Array;
use crate::teacher::whitening::{self, Whitening};

#[cfg(test)]
mod tests;

/// Largest difference of an output, relative to the larger of 1 and its largest magnitude:
/// both sides add a few thousand f64 numbers near 1.
pub const TOLERANCE: f64 = 1e-9;

/// One entry of the index, with its input arrays by name.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'e> {
    /// `repo` of the index.
    pub repo: &'e str,
    /// `cls` of the index.
    pub cls: &'e str,
    /// `args` of the index.
    pub args: &'e Value,
    /// The arrays that `inputs` of the index names.
    pub inputs: &'e BTreeMap<String, Array>,
}

/// An entry that is known but not whole.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryFault {
    /// An input or argument is missing or has another form.
    #[error("`{name}` is missing or has another form: {needed}")]
    Input {
        /// Which.
        name: String,
        /// What is needed.
        needed: &'static str,
    },
}

/// A number of one query's ranking.
type Metric = fn(&Ranking) -> Option<f64>;

/// A number of two groupings of the same items.
type Agreement = fn(&[u32], &[u32]) -> f64;

/// Outputs by name.
pub type Outputs = BTreeMap<String, Vec<f64>>;

/// The outputs that `wanted` names, by our code; `None` if no function here stands for the
/// entry's class.
///
/// Of `wanted` only names are read, and signs where the published ones are arbitrary: a
/// whitening's components are turned to agree with them.
///
/// # Errors
/// If an input is missing or has another form.
pub fn check_entry(
    entry: &Entry<'_>,
    wanted: &BTreeMap<String, Array>,
) -> Result<Option<Outputs>, EntryFault> {
    let is = |repo: &str, class: &str| entry.repo.contains(repo) && entry.cls.starts_with(class);
    let outputs = if is("revisitop", "compute_map") {
        revisited_maps(entry)?
    } else if is("revisitop", "compute_ap") {
        trapezoid(entry)?
    } else if is("cnnimageretrieval", "whitenlearn") {
        pair_whitening(entry, wanted)?
    } else if is("cnnimageretrieval", "pcawhitenlearn") {
        component_whitening(entry, wanted)?
    } else if entry.cls.contains("calc_recall_at_k") {
        recalls(entry)?
    } else if is("pytorch-metric-learning", "AccuracyCalculator") {
        accuracy(entry)?
    } else if is("scikit-learn", "normalized_mutual_info_score") {
        agreement(entry)?
    } else if wanted.contains_key("map_at_r") && entry.inputs.contains_key("teacher") {
        asymmetric(entry)?
    } else {
        return Ok(None);
    };
    let is_wanted = |(name, _): &(String, Vec<f64>)| wanted.contains_key(name);
    Ok(Some(outputs.into_iter().filter(is_wanted).collect()))
}

/// Text of an `index.json` as strict JSON: Python writes NaN and infinities as bare words,
/// which become null. The arrays have the real values.
#[must_use]
pub fn strict_json(text: &str) -> String {
    let mut strict = String::with_capacity(text.len());
    // Odd pieces lie within quotes, unless a quote was escaped.
    let mut is_quoted = false;
    for piece in text.split_inclusive('"') {
        if is_quoted {
            strict.push_str(piece);
            let inner = piece.strip_suffix('"').unwrap_or(piece);
            let n_escapes = inner
                .bytes()
                .rev()
                .take_while(|byte| *byte == b'\\')
                .count();
            is_quoted = !n_escapes.is_multiple_of(2);
        } else {
            let plain = piece.replace("-Infinity", "null");
            strict.push_str(&plain.replace("Infinity", "null").replace("NaN", "null"));
            is_quoted = true;
        }
    }
    strict
}

/// How the outputs differ from what was recorded, if they do: a name, and both values where
/// they are farthest apart. Two NaNs are equal.
#[must_use]
pub fn differs(found: &Outputs, wanted: &BTreeMap<String, Array>) -> Option<String> {
    wanted.iter().find_map(|(name, wanted)| {
        let Some(found) = found.get(name) else {
            return Some(format!("`{name}` is not computed"));
        };
        if found.len() != wanted.values.len() {
            let (found, wanted) = (found.len(), wanted.values.len());
            return Some(format!("`{name}` has {found} numbers instead of {wanted}"));
        }
        let finite = wanted.values.iter().filter(|x| x.is_finite());
        let scale = finite.fold(1.0_f64, |most, x| most.max(x.abs()));
        let off = |(x, y): (&f64, &f64)| match (x.is_nan(), y.is_nan()) {
            (true, true) => 0.0,
            (false, false) => (x - y).abs(),
            _ => f64::INFINITY,
        };
        let pairs = || found.iter().zip(&wanted.values);
        let (x, y) = pairs().max_by(|a, b| off(*a).total_cmp(&off(*b)))?;
        (off((x, y)) > TOLERANCE * scale).then(|| format!("`{name}` is {x} instead of {y}"))
    })
}

impl<'e> Entry<'e> {
    fn input(&self, name: &str) -> Result<&'e Array, EntryFault> {
        let needed = "an input array";
        self.inputs.get(name).ok_or_else(|| fault(name, needed))
    }

    fn whole_numbers(&self, name: &str) -> Result<Vec<usize>, EntryFault> {
        let values = &self.input(name)?.values;
        let is_whole = |x: &f64| *x >= 0.0 && x.fract() == 0.0 && *x < 2_f64.powi(53);
        if !values.iter().all(is_whole) {
            return Err(fault(name, "whole numbers that are not negative"));
        }
        Ok(values.iter().map(|x| *x as usize).collect())
    }

    fn labels(&self, name: &str) -> Result<Vec<u32>, EntryFault> {
        let to_u32 = |label: usize| u32::try_from(label).ok();
        let labels: Option<Vec<u32>> = { self.whole_numbers(name)? }
            .into_iter()
            .map(to_u32)
            .collect();
        labels.ok_or_else(|| fault(name, "labels below 2^32"))
    }

    fn matrix(&self, name: &str) -> Result<Matrix, EntryFault> {
        let array = self.input(name)?;
        match array.shape[..] {
            [n_rows, n_cols] if n_rows > 0 && n_cols > 0 => {
                let mut out = Matrix::zeros(n_rows, n_cols);
                for (row_idx, row) in array.values.chunks_exact(n_cols).enumerate() {
                    out.row_mut(row_idx).copy_from_slice(row);
                }
                Ok(out)
            }
            _ => Err(fault(name, "a matrix")),
        }
    }

    fn ks(&self, name: &str) -> Result<Vec<usize>, EntryFault> {
        let needed = "a list of whole numbers from 1";
        let listed = self.args.get(name).and_then(Value::as_array);
        let ks: Option<Vec<usize>> = listed
            .into_iter()
            .flatten()
            .map(|k| k.as_u64().filter(|k| *k > 0).map(|k| k as usize))
            .collect();
        ks.filter(|ks| !ks.is_empty())
            .ok_or_else(|| fault(name, needed))
    }
}

fn fault(name: &str, needed: &'static str) -> EntryFault {
    EntryFault::Input {
        name: name.to_owned(),
        needed,
    }
}

/// Oxford and Paris at all levels; `ranks` is gallery x queries, best first.
fn revisited_maps(entry: &Entry<'_>) -> Result<Outputs, EntryFault> {
    let ks = entry.ks("kappas")?;
    let ranks = entry.whole_numbers("ranks")?;
    let [n_gallery, n_queries] = entry.input("ranks")?.shape[..] else {
        return Err(fault("ranks", "a matrix of gallery images by queries"));
    };
    let column = |query: usize| -> Vec<usize> {
        let best_first = 0..n_gallery;
        best_first
            .map(|rank| ranks[rank * n_queries + query])
            .collect()
    };
    let order: Vec<Vec<usize>> = (0..n_queries).map(column).collect();
    let [easy, hard, junk] = [
        ragged(entry, "easy")?,
        ragged(entry, "hard")?,
        ragged(entry, "junk")?,
    ];
    if [&easy, &hard, &junk].iter().any(|l| l.len() != n_queries) {
        return Err(fault("easy_offsets", "one list for each query"));
    }
    let truths: Vec<GroundTruth> = { easy.into_iter().zip(hard).zip(junk) }
        .map(|((easy, hard), junk)| GroundTruth { easy, hard, junk })
        .collect();
    let mut outputs = Outputs::new();
    for (level, letter) in Level::ALL.into_iter().zip(["E", "M", "H"]) {
        let scores = revisited::scores_of_order(&order, &truths, level, &ks);
        let or_nan = |x: &Option<f64>| x.unwrap_or(f64::NAN);
        let aps = scores.average_precision.iter().map(or_nan).collect();
        let of_query = |at: &Option<Vec<f64>>| match at {
            Some(values) => values.clone(),
            None => vec![f64::NAN; ks.len()],
        };
        let prs = scores.precision_at_k.iter().flat_map(of_query).collect();
        let map = or_nan(&scores.mean_average_precision);
        outputs.insert(format!("map_{letter}"), vec![map]);
        outputs.insert(format!("aps_{letter}"), aps);
        outputs.insert(format!("mpr_{letter}"), scores.mean_precision_at_k);
        outputs.insert(format!("prs_{letter}"), prs);
    }
    Ok(outputs)
}

/// Lists of different lengths: `offsets[i]..offsets[i + 1]` is list i.
fn ragged(entry: &Entry<'_>, name: &str) -> Result<Vec<Vec<usize>>, EntryFault> {
    let values = entry.whole_numbers(name)?;
    let offsets = entry.whole_numbers(&format!("{name}_offsets"))?;
    let list = |ends: &[usize]| values.get(ends[0]..ends[1]).map(<[usize]>::to_vec);
    let lists: Option<Vec<Vec<usize>>> = offsets.windows(2).map(list).collect();
    lists.ok_or_else(|| fault(name, "lists within the array"))
}

fn trapezoid(entry: &Entry<'_>) -> Result<Outputs, EntryFault> {
    let n_relevant = entry.whole_numbers("nres")?.first().copied();
    let ranking = Ranking {
        ranks: entry.whole_numbers("ranks")?,
        n_relevant: n_relevant.ok_or_else(|| fault("nres", "a number"))?,
    };
    let value = metrics::average_precision_trapezoid(&ranking);
    Ok([("ap".to_owned(), vec![value.unwrap_or(f64::NAN)])].into())
}

/// Descriptors are columns in the files, rows here.
fn pair_whitening(
    entry: &Entry<'_>,
    wanted: &BTreeMap<String, Array>,
) -> Result<Outputs, EntryFault> {
    let descriptors = entry.matrix("X")?.transposed();
    let (queries, matches) = (entry.whole_numbers("qidxs")?, entry.whole_numbers("pidxs")?);
    let pairs: Vec<(usize, usize)> = queries.into_iter().zip(matches).collect();
    let map = whitening::learn_from_pairs(&descriptors, &pairs);
    let map = map.map_err(|_| fault("X", "descriptors that can be whitened"))?;
    let map = turned(map, wanted);
    let mut outputs = map_outputs(&map);
    let dims = entry.args.get("dimensions").and_then(Value::as_u64);
    outputs.insert("Y".to_owned(), whitened(&map, &descriptors, usize::MAX));
    if let Some(dim) = dims {
        let values = whitened(&map, &descriptors, dim as usize);
        outputs.insert(format!("Y_dim{dim}"), values);
    }
    Ok(outputs)
}

fn component_whitening(
    entry: &Entry<'_>,
    wanted: &BTreeMap<String, Array>,
) -> Result<Outputs, EntryFault> {
    let map = whitening::learn_from_components(&entry.matrix("X")?.transposed());
    let map = map.map_err(|_| fault("X", "descriptors that can be whitened"))?;
    Ok(map_outputs(&turned(map, wanted)))
}

/// Components turned to the side on which the recorded ones lie.
fn turned(mut map: Whitening, wanted: &BTreeMap<String, Array>) -> Whitening {
    let Some(recorded) = wanted.get("P") else {
        return map;
    };
    let dim = map.matrix.n_cols();
    for (row_idx, recorded) in recorded.values.chunks_exact(dim).enumerate() {
        if row_idx < map.matrix.n_rows() && dot(map.matrix.row(row_idx), recorded) < 0.0 {
            map.matrix
                .row_mut(row_idx)
                .iter_mut()
                .for_each(|x| *x = -*x);
        }
    }
    map
}

fn map_outputs(map: &Whitening) -> Outputs {
    let matrix: Vec<f64> = map.matrix.rows().flatten().copied().collect();
    [("m".to_owned(), map.mean.clone()), ("P".to_owned(), matrix)].into()
}

/// Whitened descriptors as columns.
fn whitened(map: &Whitening, descriptors: &Matrix, dim: usize) -> Vec<f64> {
    let rows: Vec<Vec<f64>> = descriptors.rows().map(|row| map.apply(row, dim)).collect();
    let n_components = rows.first().map_or(0, Vec::len);
    let component = |i: usize| rows.iter().map(move |row| row[i]);
    (0..n_components).flat_map(component).collect()
}

/// Rankings of gallery rows for each query by a score; `None` for no own row to leave out.
fn rankings(
    queries: &Matrix,
    gallery: &Matrix,
    labels: &[u32],
    leave_out_self: bool,
    score: fn(&[f64], &[f64]) -> f64,
) -> Vec<Ranking> {
    let ranking = |(query_idx, query): (usize, &[f64])| {
        let others = (0..gallery.n_rows()).filter(|i| !leave_out_self || *i != query_idx);
        let mut scored: Vec<(f64, usize)> =
            others.map(|i| (score(query, gallery.row(i)), i)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ranking::of_whole(scored.iter().map(|(_, i)| labels[*i] == labels[query_idx]))
    };
    queries.rows().enumerate().map(ranking).collect()
}

fn nearness(a: &[f64], b: &[f64]) -> f64 {
    -a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Over the queries that have something to find.
fn mean(rankings: &[Ranking], metric: impl Fn(&Ranking) -> Option<f64>) -> f64 {
    let values: Vec<f64> = rankings.iter().filter_map(metric).collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// Queries and gallery rows that go together, checked.
fn sides(entry: &Entry<'_>, names: [&str; 2]) -> Result<(Matrix, Matrix, Vec<u32>), EntryFault> {
    let (queries, gallery) = (entry.matrix(names[0])?, entry.matrix(names[1])?);
    let labels = entry.labels("labels")?;
    let fits = queries.n_rows() == labels.len()
        && gallery.n_rows() == labels.len()
        && queries.n_cols() == gallery.n_cols();
    if !fits {
        return Err(fault(names[1], "one row for each label on both sides"));
    }
    Ok((queries, gallery, labels))
}

/// Euclidean on raw embeddings, the query left out by its position. One of the two published
/// functions answers in f32.
fn recalls(entry: &Entry<'_>) -> Result<Outputs, EntryFault> {
    let (queries, gallery, labels) = sides(entry, ["emb", "emb"])?;
    let rankings = rankings(&queries, &gallery, &labels, true, nearness);
    let at_k = |k: &usize| mean(&rankings, |ranking| metrics::recall_at_k(ranking, *k));
    let recalls: Vec<f64> = entry.ks("k")?.iter().map(at_k).collect();
    let rounded = recalls.iter().map(|x| f64::from(*x as f32)).collect();
    Ok([
        ("recall_lr".to_owned(), recalls),
        ("recall_rkd".to_owned(), rounded),
    ]
    .into())
}

/// Euclidean on raw embeddings; one set leaves each query out, two sets keep its other
/// embedding in the gallery.
fn accuracy(entry: &Entry<'_>) -> Result<Outputs, EntryFault> {
    let is_one_set = entry.inputs.contains_key("emb");
    let names = if is_one_set {
        ["emb", "emb"]
    } else {
        ["student", "teacher"]
    };
    let (queries, gallery, labels) = sides(entry, names)?;
    let rankings = rankings(&queries, &gallery, &labels, is_one_set, nearness);
    let k = match entry.args.get("k") {
        Some(Value::Number(k)) => k.as_u64().map_or(usize::MAX, |k| k as usize),
        Some(Value::String(word)) if word == "max_bin_count" => {
            let size = |label: &u32| labels.iter().filter(|other| *other == label).count();
            labels.iter().map(size).max().unwrap_or(0)
        }
        _ => usize::MAX,
    };
    let mean = |metric: &dyn Fn(&Ranking) -> Option<f64>| vec![mean(&rankings, metric)];
    let of_found = |ranking: &Ranking| metrics::average_precision_of_found(ranking, k);
    let outputs = [
        ("precision_at_1", mean(&metrics::precision_at_1)),
        ("r_precision", mean(&metrics::r_precision)),
        ("mean_average_precision", mean(&of_found)),
        (
            "mean_average_precision_at_r",
            mean(&metrics::mean_average_precision_at_r),
        ),
    ];
    Ok(outputs
        .into_iter()
        .map(|(name, values)| (name.to_owned(), values))
        .collect())
}

/// Cosine, the query's own row left out of the gallery: the protocol of `eyas evaluate`.
fn asymmetric(entry: &Entry<'_>) -> Result<Outputs, EntryFault> {
    let (queries, gallery, labels) = sides(entry, ["student", "teacher"])?;
    let rankings = rankings(&queries, &gallery, &labels, true, cosine);
    let mut outputs = Outputs::new();
    for k in entry.ks("k")? {
        let recall = mean(&rankings, |ranking| metrics::recall_at_k(ranking, k));
        outputs.insert(format!("recall_at_{k}"), vec![recall]);
    }
    let others: [(&str, Metric); 3] = [
        ("map_at_r", metrics::mean_average_precision_at_r),
        ("r_precision", metrics::r_precision),
        ("map", metrics::average_precision_step),
    ];
    for (name, metric) in others {
        outputs.insert(name.to_owned(), vec![mean(&rankings, metric)]);
    }
    Ok(outputs)
}

fn agreement(entry: &Entry<'_>) -> Result<Outputs, EntryFault> {
    let (labels, clusters) = (entry.labels("labels")?, entry.labels("clusters")?);
    if labels.len() != clusters.len() {
        return Err(fault("clusters", "one for each label"));
    }
    let measures: [(&str, Agreement); 3] = [
        ("nmi_arith", clustering::nmi_arithmetic),
        ("nmi_geom", clustering::nmi_geometric),
        ("ami", clustering::adjusted_mutual_information),
    ];
    Ok(measures
        .into_iter()
        .map(|(name, measure)| (name.to_owned(), vec![measure(&labels, &clusters)]))
        .collect())
}
