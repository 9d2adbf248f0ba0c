//! Landmarks: the training tuples of SfM-120k, and the ground truth of the revisited Oxford
//! and Paris sets. Both come as pickle files, which are read without running anything.

use std::fs;
use std::path::{Path, PathBuf};

use eyas_shared::files;

use super::DataError;
use super::listing::{Entry, Listing};
use super::manifest::Manifest;
use super::pickle::{Budget, Item, Pickle, PickleFault};

/// Largest pickle file that is read.
const MAX_BYTES: u64 = 1 << 30;

/// Longer side of a query's box, in pixels at most.
const MAX_SIDE: f64 = 1e6;

/// Images of one part of a structure-from-motion set, and which of them show the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// Path of each image relative to the folder of the set.
    pub paths: Vec<String>,
    /// Number of the 3-D model that each image belongs to; none in files for whitening.
    pub clusters: Option<Vec<usize>>,
    /// Positions in `paths`: query, match.
    pub pairs: Vec<(usize, usize)>,
}

/// What one query of a revisited set may find, as positions in [`Revisited::gallery`].
#[derive(Clone, Debug, PartialEq)]
pub struct RevisitedQuery {
    /// Path relative to the folder of the set.
    pub path: String,
    /// Left, top, right, bottom of what is asked for, in pixels of the whole image.
    pub bounds: [f64; 4],
    /// Positions of easy, hard and junk images.
    pub truth: crate::evaluate::revisited::GroundTruth,
}

/// Ground truth of a revisited set.
#[derive(Clone, Debug, PartialEq)]
pub struct Revisited {
    /// In the order of the file.
    pub queries: Vec<RevisitedQuery>,
    /// Path of each gallery image relative to the folder of the set.
    pub gallery: Vec<String>,
}

/// The pickle file of a set in a folder: the first by name with this beginning.
fn find(root: &Path, beginning: &str, without: &str) -> Option<PathBuf> {
    let files = fs::read_dir(root).ok()?.filter_map(Result::ok);
    let is_wanted = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| {
            name.starts_with(beginning) && name.ends_with(".pkl") && !name.contains(without)
        })
    };
    files.map(|file| file.path()).filter(is_wanted).min()
}

/// `retrieval-SfM-120k.pkl`, or that of the smaller set.
pub(super) fn find_sfm(root: &Path) -> Option<PathBuf> {
    find(root, "retrieval-SfM-", "-whiten")
}

/// `gnd_roxford5k.pkl` or `gnd_rparis6k.pkl`.
pub(super) fn find_revisited(root: &Path) -> Option<PathBuf> {
    find(root, "gnd_", "/")
}

fn read_pickle<T>(
    path: &Path,
    content: impl FnOnce(&Item<'_>) -> Result<T, PickleFault>,
) -> Result<T, DataError> {
    let bytes = files::read(path, MAX_BYTES)?;
    let read = Pickle::read(&bytes).and_then(|pickle| content(&pickle.top()));
    read.map_err(|source| DataError::Pickle {
        path: path.to_owned(),
        source,
    })
}

/// Reads `train` and `val` of a file such as `retrieval-SfM-120k.pkl`.
///
/// # Errors
/// If the file can not be read or holds anything else.
pub fn read_tuples(path: &Path) -> Result<[Pairs; 2], DataError> {
    read_pickle(path, |top| {
        let mut budget = Budget::new();
        Ok([
            pairs(&top.get("train")?, &mut budget)?,
            pairs(&top.get("val")?, &mut budget)?,
        ])
    })
}

/// Reads a file such as `retrieval-SfM-120k-whiten.pkl`: pairs to learn whitening from.
///
/// # Errors
/// If the file can not be read or holds anything else.
pub fn read_whitening_pairs(path: &Path) -> Result<Pairs, DataError> {
    read_pickle(path, |top| pairs(top, &mut Budget::new()))
}

/// Pairs of images that a set lists as showing the same, query and match, by their paths in
/// the manifest of `root`; none where `root` is no structure-from-motion set or has no such
/// split.
///
/// # Errors
/// If its pickle file can not be read or holds anything else.
pub fn listed_pairs(root: &Path, split: &str) -> Result<Option<Vec<[String; 2]>>, DataError> {
    let Some(list) = find_sfm(root) else {
        return Ok(None);
    };
    let [train, val] = read_tuples(&list)?;
    let part = match split {
        "train" => train,
        "val" => val,
        _ => return Ok(None),
    };
    let path = |at: usize| part.paths[at].clone();
    let pairs = part
        .pairs
        .iter()
        .filter(|(query, matched)| query != matched);
    Ok(Some(
        pairs
            .map(|(query, matched)| [path(*query), path(*matched)])
            .collect(),
    ))
}

/// The images of a file such as `retrieval-SfM-120k-whiten.pkl`, which lie below its folder
/// as published, and its pairs as positions among them. Their labels are empty.
///
/// # Errors
/// If the file or an image can not be read.
pub fn open_whitening(path: &Path) -> Result<(Manifest, Vec<(usize, usize)>), DataError> {
    let Pairs { paths, pairs, .. } = read_whitening_pairs(path)?;
    let entry = |path: String| Entry {
        path,
        label: String::new(),
        split: "whiten".to_owned(),
        is_query: false,
        is_gallery: false,
    };
    let listing = Listing {
        root: files::folder_of(path).to_owned(),
        entries: paths.into_iter().map(entry).collect(),
        n_other: 0,
        empty: Vec::new(),
    };
    Ok((super::read_all(listing)?, pairs))
}

fn pairs(part: &Item<'_>, budget: &mut Budget) -> Result<Pairs, PickleFault> {
    let cids = part.get("cids")?.texts()?;
    let paths: Option<Vec<String>> = cids.iter().map(|cid| path_of(cid)).collect();
    let paths = paths.ok_or_else(|| PickleFault::Content {
        what: "image names of at least six plain characters in `cids`".to_owned(),
    })?;
    let clusters = match part.find("cluster") {
        Some(clusters) => Some(clusters.indices(usize::MAX, budget)?),
        None => None,
    };
    let queries = part.get("qidxs")?.indices(paths.len(), budget)?;
    let matches = part.get("pidxs")?.indices(paths.len(), budget)?;
    let is_whole = queries.len() == matches.len()
        && clusters
            .as_ref()
            .is_none_or(|known| known.len() == paths.len());
    if !is_whole {
        return Err(PickleFault::Content {
            what: "`cids` and `cluster`, `qidxs` and `pidxs` of equal lengths".to_owned(),
        });
    }
    Ok(Pairs {
        paths,
        clusters,
        pairs: queries.into_iter().zip(matches).collect(),
    })
}

/// `ims/56/34/12/...123456` of the image named `...123456`.
fn path_of(cid: &str) -> Option<String> {
    let end = |from: usize, to: usize| cid.get(cid.len().checked_sub(from)?..cid.len() - to);
    let is_plain = !cid.contains(['/', '\\']) && !cid.starts_with('.');
    let (last, before, first) = (end(2, 0)?, end(4, 2)?, end(6, 4)?);
    is_plain.then(|| format!("ims/{last}/{before}/{first}/{cid}"))
}

/// SfM-120k (Radenović et al., TPAMI 2019): labels are 3-D models. Query images of the
/// validation tuples ask, all of its images are searched.
pub(super) fn list_sfm(root: &Path, list: &Path) -> Result<Listing, DataError> {
    let mut entries: Vec<Entry> = Vec::new();
    for (part, split) in read_tuples(list)?.into_iter().zip(["train", "val"]) {
        let is_val = split == "val";
        let mut asks = vec![false; part.paths.len()];
        for (query, _) in &part.pairs {
            asks[*query] = is_val;
        }
        let clusters = part.clusters.ok_or_else(|| DataError::Pickle {
            path: list.to_owned(),
            source: PickleFault::Content {
                what: format!("`cluster` in `{split}`"),
            },
        })?;
        for ((path, cluster), is_query) in part.paths.into_iter().zip(clusters).zip(asks) {
            entries.push(Entry {
                path,
                label: cluster.to_string(),
                split: split.to_owned(),
                is_query,
                is_gallery: is_val,
            });
        }
    }
    Ok(Listing {
        root: root.to_owned(),
        entries,
        n_other: 0,
        empty: Vec::new(),
    })
}

/// Reads a file such as `gnd_roxford5k.pkl`.
///
/// # Errors
/// If the file can not be read or holds anything else.
pub fn read_revisited(path: &Path) -> Result<Revisited, DataError> {
    read_pickle(path, |top| {
        let names = |key: &str| -> Result<Vec<String>, PickleFault> {
            let names = top.get(key)?.texts()?;
            if names.iter().any(|name| name.contains("..")) {
                let what = format!("plain image names in `{key}`");
                return Err(PickleFault::Content { what });
            }
            Ok(names.iter().map(|name| format!("jpg/{name}.jpg")).collect())
        };
        let (gallery, asked) = (names("imlist")?, names("qimlist")?);
        let truths = top.get("gnd")?.items()?;
        if truths.len() != asked.len() {
            return Err(PickleFault::Content {
                what: format!("ground truth for each of {} queries", asked.len()),
            });
        }
        let mut budget = Budget::new();
        let queries: Result<Vec<RevisitedQuery>, PickleFault> = { asked.into_iter().zip(truths) }
            .map(|(path, truth)| revisited_query(path, &truth, gallery.len(), &mut budget))
            .collect();
        Ok(Revisited {
            queries: queries?,
            gallery,
        })
    })
}

fn revisited_query(
    path: String,
    truth: &Item<'_>,
    n_gallery: usize,
    budget: &mut Budget,
) -> Result<RevisitedQuery, PickleFault> {
    let bounds = truth.get("bbx")?.numbers(budget)?;
    let bounds = <[f64; 4]>::try_from(bounds).ok().filter(|bounds| {
        let [left, top, right, bottom] = *bounds;
        let is_sane = bounds.iter().all(|x| (-MAX_SIDE..MAX_SIDE).contains(x));
        is_sane && left < right && top < bottom
    });
    let bounds = bounds.ok_or_else(|| PickleFault::Content {
        what: format!("box of left, top, right, bottom as `bbx` of `{path}`"),
    })?;
    let mut positions = |key: &str| truth.get(key)?.indices(n_gallery, budget);
    Ok(RevisitedQuery {
        bounds,
        truth: crate::evaluate::revisited::GroundTruth {
            easy: positions("easy")?,
            hard: positions("hard")?,
            junk: positions("junk")?,
        },
        path,
    })
}

/// Revisited Oxford or Paris: splits `query` and `gallery`. Labels are the landmarks in the
/// file names, which are not the ground truth: `eyas evaluate --ground-truth` reads that.
pub(super) fn list_revisited(root: &Path, list: &Path) -> Result<Listing, DataError> {
    let found = read_revisited(list)?;
    let entry = |path: String, is_query: bool| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let name = name.trim_end_matches(".jpg");
        let landmark = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let landmark = landmark.trim_end_matches('_');
        Entry {
            label: if landmark.is_empty() { name } else { landmark }.to_owned(),
            split: if is_query { "query" } else { "gallery" }.to_owned(),
            is_query,
            is_gallery: !is_query,
            path,
        }
    };
    let queries = found
        .queries
        .into_iter()
        .map(|query| entry(query.path, true));
    let gallery = found.gallery.into_iter().map(|path| entry(path, false));
    Ok(Listing {
        root: root.to_owned(),
        entries: queries.chain(gallery).collect(),
        n_other: 0,
        empty: Vec::new(),
    })
}
