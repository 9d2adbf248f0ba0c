//! Everything that is wrong with a data set, named at once.
//!
//! Every file is decoded the way training and the device decode it. Nothing is repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use eyas_shared::fingerprint::ImageId;
use eyas_shared::preprocess::{Limits, decode};
use serde::Serialize;

use super::label_errors::Suspect;
use super::listing::{self, Listing};
use super::manifest::{Image, Manifest};
use super::{DataError, parallel};

/// Images with a side shorter than this show too little, in pixels.
pub const MIN_SIDE: u32 = 16;

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// Folder that paths are relative to.
    pub root: PathBuf,
    /// Number of images, sound or not.
    pub n_images: usize,
    /// Number of different labels.
    pub n_labels: usize,
    /// Files that are no images by their name.
    pub n_other_files: usize,
    /// In the order in which they first appear.
    pub splits: Vec<SplitSummary>,
    /// In the order of the data set; what concerns whole labels comes last.
    pub findings: Vec<Finding>,
}

/// Images of one split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SplitSummary {
    /// Such as `train`.
    pub split: String,
    /// Number of images.
    pub n_images: usize,
    /// Number of different labels.
    pub n_labels: usize,
    /// Images that ask.
    pub n_queries: usize,
    /// Images that are searched.
    pub n_gallery: usize,
}

/// One thing that is wrong, or may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Of which kind.
    pub kind: FindingKind,
    /// Which image, label, split or list.
    pub subject: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Kinds of findings, to count them by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// A wrong line of a list, or a name that can not stand in one.
    Listing,
    /// A file that can not be read.
    Unreadable,
    /// A file that is cut short or no image.
    Undecodable,
    /// An image of too few pixels.
    TooSmall,
    /// One content under two labels.
    ConflictingLabels,
    /// One content twice in one split.
    Duplicate,
    /// One content in two splits.
    DuplicateAcrossSplits,
    /// A data set of one label.
    OnlyLabel,
    /// A label with a single training image.
    SingleImage,
    /// Queries without a gallery, for all labels or for one.
    NotInGallery,
    /// A folder or split without images.
    Empty,
    /// A label that the nearest neighbors contradict.
    ProbableLabelError,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Training or evaluation would fail or mean nothing.
    Fault,
    /// It works, but may not be meant.
    Warning,
}

impl CheckReport {
    /// Number of findings of a severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        let wanted = |finding: &&Finding| finding.severity == severity;
        self.findings.iter().filter(wanted).count()
    }

    /// Number of findings of each kind that occurs.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<FindingKind, usize> {
        let mut counts = BTreeMap::new();
        for finding in &self.findings {
            *counts.entry(finding.kind).or_default() += 1;
        }
        counts
    }

    /// Adds labels that nearest neighbors contradict, as warnings.
    pub fn add_suspects(&mut self, suspects: &[Suspect]) {
        for suspect in suspects {
            let problem = format!(
                "is labelled `{}`, but {} of its {} nearest neighbors are labelled `{}`, the nearest is `{}`",
                suspect.label,
                suspect.n_agreeing,
                suspect.n_neighbors,
                suspect.neighbors_label,
                suspect.nearest
            );
            self.warn(FindingKind::ProbableLabelError, &suspect.path, problem);
        }
    }

    fn fault(&mut self, kind: FindingKind, subject: &str, problem: impl Into<String>) {
        self.add(Severity::Fault, kind, subject, problem.into());
    }

    fn warn(&mut self, kind: FindingKind, subject: &str, problem: impl Into<String>) {
        self.add(Severity::Warning, kind, subject, problem.into());
    }

    fn add(&mut self, severity: Severity, kind: FindingKind, subject: &str, problem: String) {
        self.findings.push(Finding {
            severity,
            kind,
            subject: subject.to_owned(),
            problem,
        });
    }
}

/// Checks a data set that [`open`](super::open) would read, without stopping at a fault.
/// `progress` is called after each image with the number of all images.
///
/// # Errors
/// If the images can not even be listed: nothing there, or an ambiguous layout.
pub fn check(path: &Path, progress: &dyn Fn(usize)) -> Result<CheckReport, DataError> {
    check_and_list(path, progress).map(|(report, _)| report)
}

/// [`check`], and the images that are sound, for whoever wants to look further.
///
/// # Errors
/// As [`check`].
pub fn check_and_list(
    path: &Path,
    progress: &dyn Fn(usize),
) -> Result<(CheckReport, Manifest), DataError> {
    let mut faults = Vec::new();
    let listing = listing::list(path, &mut |fault| {
        faults.push(fault);
        Ok(())
    })?;
    let mut report = CheckReport {
        root: listing.root.clone(),
        n_images: listing.entries.len(),
        n_labels: count_labels(&listing),
        n_other_files: listing.n_other,
        splits: summarize_parts(listing.entries.iter().map(Part::from)),
        findings: Vec::new(),
    };
    for fault in faults {
        let subject = path.display().to_string();
        report.fault(FindingKind::Listing, &subject, fault.to_string());
    }
    let images = check_images(&listing, progress, &mut report);
    check_labels(&listing, &mut report);
    for empty in &listing.empty {
        if empty.is_split {
            report.fault(FindingKind::Empty, &empty.path, "the split has no image");
        } else {
            report.warn(FindingKind::Empty, &empty.path, "the folder holds no image");
        }
    }
    let sound = Manifest {
        root: listing.root,
        images,
    };
    Ok((report, sound))
}

fn count_labels(listing: &Listing) -> usize {
    let labels: BTreeSet<&str> = { listing.entries.iter() }
        .map(|entry| entry.label.as_str())
        .collect();
    labels.len()
}

/// Images of each split, in the order in which the splits first appear.
#[must_use]
pub fn summarize(manifest: &Manifest) -> Vec<SplitSummary> {
    summarize_parts(manifest.images.iter().map(|image| Part {
        split: &image.split,
        label: &image.label,
        is_query: image.is_query,
        is_gallery: image.is_gallery,
    }))
}

/// What is counted of an image.
struct Part<'e> {
    split: &'e str,
    label: &'e str,
    is_query: bool,
    is_gallery: bool,
}

impl<'e> From<&'e listing::Entry> for Part<'e> {
    fn from(entry: &'e listing::Entry) -> Self {
        Self {
            split: &entry.split,
            label: &entry.label,
            is_query: entry.is_query,
            is_gallery: entry.is_gallery,
        }
    }
}

fn summarize_parts<'e>(parts: impl Iterator<Item = Part<'e>>) -> Vec<SplitSummary> {
    let mut splits: Vec<(SplitSummary, BTreeSet<&str>)> = Vec::new();
    for part in parts {
        let known = splits
            .iter()
            .position(|(split, _)| split.split == part.split);
        let split_idx = known.unwrap_or_else(|| {
            let split = SplitSummary {
                split: part.split.to_owned(),
                n_images: 0,
                n_labels: 0,
                n_queries: 0,
                n_gallery: 0,
            };
            splits.push((split, BTreeSet::new()));
            splits.len() - 1
        });
        let (split, labels) = &mut splits[split_idx];
        split.n_images += 1;
        split.n_queries += usize::from(part.is_query);
        split.n_gallery += usize::from(part.is_gallery);
        labels.insert(part.label);
    }
    let counted = |(split, labels): (SplitSummary, BTreeSet<&str>)| SplitSummary {
        n_labels: labels.len(),
        ..split
    };
    splits.into_iter().map(counted).collect()
}

/// What a look into one file gave: its identity if it could be read, and what is wrong.
struct Look {
    id: Option<ImageId>,
    problem: Option<(FindingKind, String)>,
}

fn look(listing: &Listing, entry_idx: usize) -> Look {
    let bytes = match listing.read(entry_idx) {
        Ok(bytes) => bytes,
        Err(err) => {
            let problem = format!("can not be read: {}", err.source);
            return Look {
                id: None,
                problem: Some((FindingKind::Unreadable, problem)),
            };
        }
    };
    let problem = match decode(&bytes, &Limits::DEFAULT) {
        Err(err) => {
            let problem = format!("can not be decoded: {err}");
            Some((FindingKind::Undecodable, problem))
        }
        Ok(image) if image.width.min(image.height) < MIN_SIDE => {
            let problem = format!(
                "has {} x {} pixels; a side needs at least {MIN_SIDE}",
                image.width, image.height
            );
            Some((FindingKind::TooSmall, problem))
        }
        Ok(_) => None,
    };
    Look {
        id: Some(ImageId::of_file(&bytes)),
        problem,
    }
}

/// The images without a fault of their own.
fn check_images(
    listing: &Listing,
    progress: &dyn Fn(usize),
    report: &mut CheckReport,
) -> Vec<Image> {
    let n = listing.entries.len();
    let looks = parallel::map(n, |i| look(listing, i), || progress(n));
    let mut first_of_id: BTreeMap<ImageId, usize> = BTreeMap::new();
    let mut sound = Vec::new();
    for (i, look) in looks.into_iter().enumerate() {
        let entry = &listing.entries[i];
        let is_sound = look.problem.is_none();
        if let Some((kind, problem)) = look.problem {
            report.fault(kind, &entry.path, problem);
        }
        let Some(id) = look.id else { continue };
        if is_sound {
            sound.push(entry.to_image(id));
        }
        let first = &listing.entries[*first_of_id.entry(id).or_insert(i)];
        check_copy(first, entry, report);
    }
    sound
}

/// Compares an entry with the first one of the same content, which may be itself.
fn check_copy(first: &listing::Entry, entry: &listing::Entry, report: &mut CheckReport) {
    if first.label != entry.label {
        let problem = format!(
            "is labelled `{}` and has the very content of `{}`, labelled `{}`",
            entry.label, first.path, first.label
        );
        report.fault(FindingKind::ConflictingLabels, &entry.path, problem);
    } else if first.split != entry.split {
        let problem = format!(
            "is in split `{}` and has the very content of `{}` in split `{}`",
            entry.split, first.path, first.split
        );
        report.warn(FindingKind::DuplicateAcrossSplits, &entry.path, problem);
    } else if first.path != entry.path {
        let problem = format!("has the very content of `{}`", first.path);
        report.warn(FindingKind::Duplicate, &entry.path, problem);
    }
}

fn check_labels(listing: &Listing, report: &mut CheckReport) {
    let entries = &listing.entries;
    if let (1, Some(entry)) = (report.n_labels, entries.first()) {
        let problem = "is the only label; retrieval needs at least two";
        report.fault(FindingKind::OnlyLabel, &entry.label, problem);
    }
    let mut n_in_train: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.split == "train") {
        *n_in_train.entry(&entry.label).or_default() += 1;
    }
    for (label, n) in n_in_train {
        if n == 1 {
            let problem = "has a single training image, so it gives no pair of equals";
            report.warn(FindingKind::SingleImage, label, problem);
        }
    }
    let labels_with = |role: fn(&listing::Entry) -> bool| -> BTreeSet<&str> {
        let with_role = entries.iter().filter(|entry| role(entry));
        with_role.map(|entry| entry.label.as_str()).collect()
    };
    let asked = labels_with(|entry| entry.is_query);
    let searched = labels_with(|entry| entry.is_gallery);
    if searched.is_empty() && !asked.is_empty() {
        let problem = "no image is searched: put some into a split `gallery` or set is_gallery";
        report.fault(FindingKind::NotInGallery, "gallery", problem);
        return;
    }
    for label in asked.difference(&searched) {
        let problem = "is asked for, but no gallery image has this label";
        report.fault(FindingKind::NotInGallery, label, problem);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{images, jpeg};
    use super::*;

    /// `severity subject: problem` of every finding.
    fn findings(path: &Path) -> Vec<String> {
        let line = |finding: &Finding| {
            let mark = match finding.severity {
                Severity::Fault => "!",
                Severity::Warning => "?",
            };
            format!("{mark} {}: {}", finding.subject, finding.problem)
        };
        check(path, &|_| {})
            .unwrap()
            .findings
            .iter()
            .map(line)
            .collect()
    }

    #[test]
    fn a_sound_data_set_has_no_findings() {
        let folder = images(&["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"]);
        fs::write(folder.path().join("readme.md"), "x").unwrap();
        let report = check(folder.path(), &|_| {}).unwrap();
        assert_eq!(report.findings, []);
        assert_eq!(
            (report.n_images, report.n_labels, report.n_other_files),
            (4, 2, 1)
        );
        let train = SplitSummary {
            split: "train".into(),
            n_images: 4,
            n_labels: 2,
            n_queries: 4,
            n_gallery: 4,
        };
        assert_eq!(report.splits, [train]);
    }

    #[test]
    fn every_fault_of_a_folder_is_named() {
        let folder = images(&[
            "gallery/a/1.jpg",
            "query/a/1.jpg",
            "query/c/1.jpg",
            "train/b/1.jpg",
        ]);
        let write = |path: &str, bytes: &[u8]| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let whole = jpeg(77);
        write("train/a/cut.jpg", &whole[..whole.len() / 2]);
        write("train/a/none.png", b"");
        write("train/a/twin.jpg", &jpeg(4));
        write("train/b/twin.jpg", &jpeg(4));
        let mut small = Vec::new();
        jpeg_encoder::Encoder::new(&mut small, 90)
            .encode(&[9; 8 * 20 * 3], 8, 20, jpeg_encoder::ColorType::Rgb)
            .unwrap();
        write("gallery/a/small.jpg", &small);
        fs::create_dir_all(folder.path().join("val/a")).unwrap();
        fs::create_dir_all(folder.path().join("gallery/empty")).unwrap();
        let found = findings(folder.path());
        let expected = [
            "! train/a/cut.jpg: can not be decoded: the JPEG file",
            "! train/a/none.png: can not be decoded: ",
            "! train/b/1.jpg: is labelled `b` and has the very content of `train/a/twin.jpg`, labelled `a`",
            "! train/b/twin.jpg: is labelled `b` and has the very content of `train/a/twin.jpg`",
            "! gallery/a/small.jpg: has 8 x 20 pixels; a side needs at least 16",
            "! c: is asked for, but no gallery image has this label",
            "? gallery/empty: the folder holds no image",
            "! val: the split has no image",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}\n{expected}");
        }
    }

    #[test]
    fn a_lonely_class_and_repeated_images_are_named() {
        let folder = images(&["a/1.jpg"]);
        fs::write(folder.path().join("a/2.jpg"), jpeg(1)).unwrap();
        assert_eq!(
            findings(folder.path()),
            [
                "? a/2.jpg: has the very content of `a/1.jpg`",
                "! a: is the only label; retrieval needs at least two"
            ]
        );
        let folder = images(&["a/1.jpg", "b/1.jpg", "b/2.jpg"]);
        assert_eq!(
            findings(folder.path()),
            ["? a: has a single training image, so it gives no pair of equals"]
        );
    }

    #[test]
    fn a_copy_in_another_split_is_named_and_kinds_are_counted() {
        let folder = images(&[
            "train/a/1.jpg",
            "train/a/2.jpg",
            "train/b/1.jpg",
            "train/b/2.jpg",
        ]);
        fs::create_dir_all(folder.path().join("val/a")).unwrap();
        fs::write(folder.path().join("val/a/9.jpg"), jpeg(2)).unwrap();
        fs::write(folder.path().join("val/a/cut.jpg"), &jpeg(8)[..90]).unwrap();
        let (mut report, sound) = check_and_list(folder.path(), &|_| {}).unwrap();
        assert_eq!(sound.images.len(), 5);
        let suspect = Suspect {
            path: "train/b/1.jpg".into(),
            label: "b".into(),
            neighbors_label: "a".into(),
            n_agreeing: 4,
            n_own: 1,
            n_neighbors: 5,
            nearest: "train/a/2.jpg".into(),
        };
        report.add_suspects(&[suspect]);
        let counts: Vec<_> = report.counts().into_iter().collect();
        assert_eq!(
            counts,
            [
                (FindingKind::Undecodable, 1),
                (FindingKind::DuplicateAcrossSplits, 1),
                (FindingKind::ProbableLabelError, 1),
            ]
        );
        assert_eq!(
            report.findings[0].problem,
            "is in split `val` and has the very content of `train/a/2.jpg` in split `train`"
        );
        assert_eq!(
            report.findings[2].problem,
            "is labelled `b`, but 4 of its 5 nearest neighbors are labelled `a`, the nearest is `train/a/2.jpg`"
        );
    }

    #[test]
    fn every_wrong_line_of_a_list_is_named() {
        let folder = images(&["1.jpg", "2.jpg"]);
        let path = folder.path().join("list.csv");
        let list = "label,path,split,is_query\na,1.jpg,test,1\nb,2.jpg,test,maybe\nc\nd,gone.jpg,train,0\n";
        fs::write(&path, list).unwrap();
        let found = findings(&path);
        let expected = [
            "line 3: column `is_query` holds `maybe`",
            "line 4: 1 fields, the header has 4",
            "! gone.jpg: can not be read: ",
            "? d: has a single training image",
            "! a: is asked for, but no gallery image",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found}\n{expected}");
        }
    }

    #[test]
    fn what_can_not_be_listed_is_an_error_and_what_is_empty_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check(&folder.path().join("gone"), &|_| {}).is_err());
        let found = findings(folder.path());
        assert!(
            found.len() == 1 && found[0].contains("lists no image"),
            "{found:?}"
        );
    }
}
