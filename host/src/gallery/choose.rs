//! Which images of a gallery are meant: by label, name or identity.

use std::collections::HashMap;

use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::Gallery;
use thiserror::Error;

/// Reads an identity as it is printed.
///
/// # Errors
/// A sentence that names what is no identity.
pub fn parse_id(text: &str) -> Result<ImageId, String> {
    let fault = || format!("`{text}` is no id: 32 hexadecimal digits are needed");
    let (digits, rest) = text.as_bytes().as_chunks::<2>();
    let mut id = [0; 16];
    if digits.len() != id.len() || !rest.is_empty() {
        return Err(fault());
    }
    for (byte, digits) in id.iter_mut().zip(digits) {
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or_else(fault);
        *byte = (16 * value(digits[0])? + value(digits[1])?) as u8;
    }
    Ok(ImageId(id))
}

/// What the images must have: any of these. With nothing named, all are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Labels.
    pub labels: Vec<String>,
    /// Names, such as paths relative to the data's folder.
    pub names: Vec<String>,
    /// Identities.
    pub ids: Vec<ImageId>,
}

/// A choice that nothing fits: a slip of the pen.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("no image of the gallery has the {what} `{value}`{hint}")]
pub struct NothingChosen {
    /// `label`, `name` or `id`.
    pub what: &'static str,
    /// What was asked for.
    pub value: String,
    /// The nearest that there is, with what leads to it; or nothing.
    pub hint: String,
}

/// Names closer than this may have been meant (Jaro-Winkler).
const TYPO_SIMILARITY: f64 = 0.8;

impl Choice {
    /// Whether nothing is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.names.is_empty() && self.ids.is_empty()
    }

    /// For each row of the gallery whether it is meant; removed rows never are.
    ///
    /// # Errors
    /// If one of the labels, names or identities fits no image.
    pub fn rows(&self, gallery: &Gallery<'_>) -> Result<Vec<bool>, NothingChosen> {
        let live = |row: u32| !gallery.is_removed(row);
        if self.is_empty() {
            return Ok((0..gallery.n_rows()).map(live).collect());
        }
        let mut labels = Wanted::of(&self.labels);
        let mut names = Wanted::of(&self.names);
        let ids: Vec<String> = self.ids.iter().map(ToString::to_string).collect();
        let mut ids = Wanted::of(&ids);
        let mut chosen = vec![false; gallery.n_rows() as usize];
        for row in (0..gallery.n_rows()).filter(|row| live(*row)) {
            let Some(entry) = gallery.entry(row) else {
                continue;
            };
            // Every one is asked: a name is found even where the label decides.
            let found = [
                labels.holds(entry.label),
                names.holds(entry.name),
                !self.ids.is_empty() && ids.holds(&entry.id.to_string()),
            ];
            chosen[row as usize] = found.contains(&true);
        }
        let all = (0..gallery.header.n_labels).filter_map(|idx| gallery.label(idx));
        labels.all_found("label", all)?;
        let all = (0..gallery.n_rows()).filter_map(|row| Some(gallery.entry(row)?.name));
        names.all_found("name", all)?;
        ids.all_found("id", std::iter::empty())?;
        Ok(chosen)
    }
}

/// Words with whether each was found.
struct Wanted<'w>(HashMap<&'w str, bool>);

impl<'w> Wanted<'w> {
    fn of(words: &'w [String]) -> Self {
        Self(words.iter().map(|word| (word.as_str(), false)).collect())
    }

    fn holds(&mut self, word: &str) -> bool {
        let Some(is_found) = self.0.get_mut(word) else {
            return false;
        };
        *is_found = true;
        true
    }

    fn all_found<'a>(
        self,
        what: &'static str,
        all: impl Iterator<Item = &'a str>,
    ) -> Result<(), NothingChosen> {
        let missing = self.0.into_iter().filter(|(_, is_found)| !is_found);
        let Some(value) = missing.map(|(word, _)| word).min() else {
            return Ok(());
        };
        let similarity = |word: &str| strsim::jaro_winkler(word, value);
        let nearest = all
            .filter(|word| similarity(word) >= TYPO_SIMILARITY)
            .max_by(|a, b| similarity(a).total_cmp(&similarity(b)).then(b.cmp(a)));
        Err(NothingChosen {
            what,
            value: value.to_owned(),
            hint: nearest.map_or_else(String::new, |near| format!("; is it `{near}`?")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gallery::tests::small_gallery;

    #[test]
    fn any_of_what_is_named_is_chosen_and_nothing_named_is_all() {
        let bytes = small_gallery(&[("a.jpg", "tea"), ("b.jpg", "milk"), ("c.jpg", "tea")]);
        let gallery = Gallery::open(&bytes).unwrap();
        let choose = |labels: &[&str], names: &[&str], ids: &[ImageId]| {
            let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
            let choice = Choice {
                labels: owned(labels),
                names: owned(names),
                ids: ids.to_vec(),
            };
            choice.rows(&gallery)
        };
        assert_eq!(choose(&[], &[], &[]).unwrap(), [true, true, true]);
        assert_eq!(choose(&["tea"], &[], &[]).unwrap(), [true, false, true]);
        let id = gallery.id(1);
        assert_eq!(choose(&[], &["a.jpg"], &[id]).unwrap(), [true, true, false]);
        assert_eq!(parse_id(&id.to_string()), Ok(id));
        assert!(parse_id("12").is_err() && parse_id(&"x".repeat(32)).is_err());
        let message = choose(&["tee"], &[], &[]).unwrap_err().to_string();
        assert!(message.contains("label `tee`; is it `tea`?"), "{message}");
        let message = choose(&[], &[], &[ImageId([0; 16])])
            .unwrap_err()
            .to_string();
        assert!(message.contains("id `0000"), "{message}");
    }
}
