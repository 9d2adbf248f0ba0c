//! Benchmarks that come with lists of plain text: CUB-200-2011, Stanford Online Products,
//! In-Shop; and Omniglot, which comes as two trees of folders.
//!
//! Test images of class-level benchmarks ask and are searched, each leaving itself out;
//! training images do neither.

use std::collections::BTreeMap;
use std::path::Path;

use eyas_shared::files;

use super::DataError;
use super::folder;
use super::listing::{Empty, Entry, Listing, OnFault};

/// Largest list that is read.
const MAX_BYTES: u64 = 256 << 20;

/// Lines of a list after its first `n_skipped`, with their numbers from 1; empty ones are
/// left out.
struct Lines {
    text: String,
    n_skipped: usize,
}

impl Lines {
    fn read(path: &Path, n_skipped: usize) -> Result<Self, DataError> {
        let bytes = files::read(path, MAX_BYTES)?;
        let text = String::from_utf8(bytes).map_err(|err| {
            let before = &err.as_bytes()[..err.utf8_error().valid_up_to()];
            DataError::Line {
                path: path.to_owned(),
                line: before.iter().filter(|byte| **byte == b'\n').count() as u64 + 1,
                problem: "the text is not UTF-8; save the list as UTF-8".to_owned(),
            }
        })?;
        Ok(Self { text, n_skipped })
    }

    fn each(&self) -> impl Iterator<Item = (u64, &str)> {
        let lines = (1..).zip(self.text.lines().map(str::trim));
        lines
            .skip(self.n_skipped)
            .filter(|(_, line)| !line.is_empty())
    }
}

fn fault(path: &Path, line: u64, problem: String) -> DataError {
    DataError::Line {
        path: path.to_owned(),
        line,
        problem,
    }
}

/// The fields of a line, the last one with its spaces.
fn fields<const N: usize>(line: &str) -> Option<[&str; N]> {
    let mut rest = line;
    let mut fields = [""; N];
    for field in &mut fields[..N - 1] {
        let (first, other) = rest.split_once(char::is_whitespace)?;
        (*field, rest) = (first, other.trim_start());
    }
    fields[N - 1] = rest;
    Some(fields)
}

/// A training or test image of a class-level benchmark.
fn class_level(path: String, label: String, is_train: bool) -> Entry {
    Entry {
        path,
        label,
        split: if is_train { "train" } else { "test" }.to_owned(),
        is_query: !is_train,
        is_gallery: !is_train,
    }
}

fn listing(root: &Path, entries: Vec<Entry>) -> Listing {
    Listing {
        root: root.to_owned(),
        entries,
        n_other: 0,
        empty: Vec::new(),
    }
}

/// Whether a folder is laid out like CUB-200-2011.
pub(super) fn is_cub(root: &Path) -> bool {
    root.join("images.txt").is_file() && root.join("image_class_labels.txt").is_file()
}

/// CUB-200-2011 (Wah et al., 2011): the first half of the class numbers trains, the second
/// tests. The file `train_test_split.txt`, which parts the images of each class, is not
/// meant for retrieval and not read.
pub(super) fn cub(root: &Path, on_fault: OnFault<'_>) -> Result<Listing, DataError> {
    let list = root.join("image_class_labels.txt");
    let mut class_of_image: BTreeMap<String, usize> = BTreeMap::new();
    for (line, text) in Lines::read(&list, 0)?.each() {
        let parsed =
            fields::<2>(text).and_then(|[image, class]| Some((image, class.parse().ok()?)));
        match parsed {
            Some((image, class)) => {
                class_of_image.insert(image.to_owned(), class);
            }
            None => {
                let problem = format!("`{text}` is not `image number, class number`");
                on_fault(fault(&list, line, problem))?;
            }
        }
    }
    let half = class_of_image.values().copied().max().unwrap_or(0) / 2;
    let list = root.join("images.txt");
    let mut entries = Vec::new();
    for (line, text) in Lines::read(&list, 0)?.each() {
        let Some([image, path]) = fields::<2>(text) else {
            on_fault(fault(
                &list,
                line,
                format!("`{text}` is not `image number, path`"),
            ))?;
            continue;
        };
        let (label, name) = path.rsplit_once('/').unwrap_or(("", path));
        // Left behind by archives of another system.
        if name.starts_with("._") {
            continue;
        }
        match class_of_image.get(image) {
            Some(class) if !label.is_empty() => {
                let path = format!("images/{path}");
                entries.push(class_level(path, label.to_owned(), *class <= half));
            }
            Some(_) => on_fault(fault(
                &list,
                line,
                format!("`{path}` names no class folder"),
            ))?,
            None => {
                let problem = format!("image {image} is not in image_class_labels.txt");
                on_fault(fault(&list, line, problem))?;
            }
        }
    }
    Ok(listing(root, entries))
}

/// Whether a folder is laid out like Stanford Online Products.
pub(super) fn is_online_products(root: &Path) -> bool {
    root.join("Ebay_train.txt").is_file() && root.join("Ebay_test.txt").is_file()
}

/// Stanford Online Products (Song et al., CVPR 2016): labels are class numbers.
pub(super) fn online_products(root: &Path, on_fault: OnFault<'_>) -> Result<Listing, DataError> {
    let mut entries = Vec::new();
    for (name, is_train) in [("Ebay_train.txt", true), ("Ebay_test.txt", false)] {
        let list = root.join(name);
        for (line, text) in Lines::read(&list, 1)?.each() {
            match fields::<4>(text) {
                Some([_, class, _, path]) => {
                    entries.push(class_level(path.to_owned(), class.to_owned(), is_train));
                }
                None => {
                    let problem =
                        format!("`{text}` is not `image_id class_id super_class_id path`");
                    on_fault(fault(&list, line, problem))?;
                }
            }
        }
    }
    Ok(listing(root, entries))
}

/// The list of In-Shop below a folder, if it is laid out so.
pub(super) fn in_shop_list(root: &Path) -> Option<&'static str> {
    ["Eval/list_eval_partition.txt", "list_eval_partition.txt"]
        .into_iter()
        .find(|list| root.join(list).is_file())
}

/// In-Shop Clothes Retrieval (Liu et al., CVPR 2016): labels are item numbers; the splits
/// `train`, `query` and `gallery` are those of the list. Images lie in `img` or `Img/img`.
pub(super) fn in_shop(
    root: &Path,
    list: &str,
    on_fault: OnFault<'_>,
) -> Result<Listing, DataError> {
    let list = root.join(list);
    let folder = if root.join("Img/img").is_dir() {
        "Img/"
    } else {
        ""
    };
    let lines = Lines::read(&list, 2)?;
    let mut entries = Vec::new();
    for (line, text) in lines.each() {
        let mut words = text.split_whitespace();
        let (Some(path), Some(item), Some(split), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            let problem = format!("`{text}` is not `image_name item_id evaluation_status`");
            on_fault(fault(&list, line, problem))?;
            continue;
        };
        if !["train", "query", "gallery"].contains(&split) {
            let problem = format!("status `{split}` is none of train, query, gallery");
            on_fault(fault(&list, line, problem))?;
            continue;
        }
        entries.push(Entry {
            path: format!("{folder}{path}"),
            label: item.to_owned(),
            split: split.to_owned(),
            is_query: split == "query",
            is_gallery: split == "gallery",
        });
    }
    let declared = { lines.text.lines().next() }.and_then(|line| line.trim().parse().ok());
    if declared.is_some_and(|n: usize| n != entries.len()) {
        let problem = format!(
            "the list declares {} images and names {}; it may be cut short",
            declared.unwrap_or(0),
            entries.len()
        );
        on_fault(fault(&list, 1, problem))?;
    }
    Ok(listing(root, entries))
}

/// The two trees of Omniglot and what they are for.
const ALPHABETS: [(&str, bool); 2] = [("images_background", true), ("images_evaluation", false)];

/// Whether a folder is laid out like Omniglot.
pub(super) fn is_omniglot(root: &Path) -> bool {
    ALPHABETS.iter().all(|(tree, _)| root.join(tree).is_dir())
}

/// Omniglot (Lake et al., Science 2015): labels are `alphabet/character`; background
/// alphabets train, evaluation alphabets test.
pub(super) fn omniglot(root: &Path, on_fault: OnFault<'_>) -> Result<Listing, DataError> {
    let mut all = listing(root, Vec::new());
    for (tree, is_train) in ALPHABETS {
        let part = folder::list(&root.join(tree), on_fault)?;
        all.n_other += part.n_other;
        all.empty.extend(part.empty.into_iter().map(|empty| Empty {
            path: format!("{tree}/{}", empty.path),
            ..empty
        }));
        all.entries.extend(part.entries.into_iter().map(|entry| {
            let path = format!("{tree}/{}", entry.path);
            class_level(path, entry.label, is_train)
        }));
    }
    Ok(all)
}
