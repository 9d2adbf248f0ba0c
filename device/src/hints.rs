//! What both command lines say alike: what to do about an error, chosen by its type, and
//! numbers of bytes.
//!
//! An error says what is wrong and where; a hint says what helps, as far as the type tells.

use std::error::Error;
use std::io;

use eyas_shared::bundle::BundleError;
use eyas_shared::container::ContainerError;
use eyas_shared::gallery::GalleryError;
use eyas_shared::gallery::delta::DeltaError;

use crate::encoder::EncodeError;
use crate::slots::SlotsError;
use crate::slots::trial::TrialFault;
use crate::store::StoreError;
use crate::update::UpdateError;

const COPY_AGAIN: &str = "copy the file again from the host, or build it anew there";

/// What to do about one error of a chain of causes, if its type tells. A chain is asked
/// from its outermost error inwards: the first hint is the most specific.
#[must_use]
pub fn of_cause(cause: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(store) = cause.downcast_ref::<StoreError>() {
        return store_hint(store);
    }
    if let Some(slots) = cause.downcast_ref::<SlotsError>() {
        return slots_hint(slots);
    }
    if let Some(container) = cause.downcast_ref::<ContainerError>() {
        return Some(container_hint(container));
    }
    if let Some(bundle) = cause.downcast_ref::<BundleError>() {
        return Some(bundle_hint(bundle));
    }
    if let Some(gallery) = cause.downcast_ref::<GalleryError>() {
        return Some(gallery_hint(gallery));
    }
    if let Some(delta) = cause.downcast_ref::<DeltaError>() {
        return delta_hint(delta);
    }
    // The types between hand their source through, so the system's answer is found here
    // whichever of them carries it.
    cause.downcast_ref::<io::Error>().and_then(system_hint)
}

/// An error and its causes, each once: some messages already end with their cause.
#[must_use]
pub fn chain_of(err: &(dyn Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        let message = err.to_string();
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        cause = err.source();
    }
    text
}

fn store_hint(err: &StoreError) -> Option<&'static str> {
    match err {
        StoreError::OtherSpace { .. } | StoreError::OtherDim { .. } => Some(
            "build the gallery with the teacher that this student was trained from, or take \
             the bundle of a student of the gallery's teacher; `eyas-device info` shows both",
        ),
        StoreError::NotAFile { .. } => Some("name the file itself"),
        StoreError::Empty { .. } => Some("copy the file again: the transfer was cut off"),
        StoreError::Student {
            source: EncodeError::Operator { .. },
            ..
        } => Some("export the student again with `eyas export`"),
        StoreError::Bundle { source, .. } => Some(bundle_hint(source)),
        StoreError::Gallery { source, .. } => Some(gallery_hint(source)),
        // Its causes tell more.
        _ => None,
    }
}

fn slots_hint(err: &SlotsError) -> Option<&'static str> {
    match err {
        SlotsError::NotSetUp { .. } => Some("`eyas-device init` sets up a store"),
        SlotsError::Busy { .. } => Some("wait for it to end, and try again"),
        SlotsError::Absent { .. } | SlotsError::NotWhole { .. } => Some("send the file first"),
        SlotsError::NoPartner { .. } => Some("install a bundle and a gallery together"),
        SlotsError::OtherContent { .. } => Some("send the file again"),
        SlotsError::NoSpace { .. } => Some(
            "`eyas-device clean --staged` drops what was sent and not installed; nothing was \
             overwritten",
        ),
        SlotsError::Unsigned { .. } => {
            Some("sign it with `eyas sign`, and send FILE.minisig along with it")
        }
        SlotsError::Signature { .. } => {
            Some("sign it with a key whose public half this store was set up with")
        }
        SlotsError::Downgrade { .. } => Some(
            "sign it with a higher counter, or, before the board itself, install it with \
             --allow-downgrade",
        ),
        SlotsError::Trial(TrialFault::OutOfMemory { .. }) => Some(
            "take a smaller student, or set the store up with a higher --max-memory if the \
             board has it",
        ),
        SlotsError::Trial(TrialFault::Refused { .. }) => {
            Some("`eyas-device selftest` and `query` show more, beside the files themselves")
        }
        SlotsError::Empty { .. } => Some("`eyas-device install` puts a bundle and a gallery there"),
        SlotsError::Open(err) => store_hint(err),
        SlotsError::Update(UpdateError::Store(err)) => store_hint(err),
        // Its causes tell more, or nothing helps.
        _ => None,
    }
}

fn bundle_hint(err: &BundleError) -> &'static str {
    match err {
        BundleError::Container(inner) => container_hint(inner),
        _ => COPY_AGAIN,
    }
}

fn gallery_hint(err: &GalleryError) -> &'static str {
    match err {
        GalleryError::Container(inner) => container_hint(inner),
        _ => COPY_AGAIN,
    }
}

fn delta_hint(err: &DeltaError) -> Option<&'static str> {
    match err {
        DeltaError::Container(inner) => Some(container_hint(inner)),
        DeltaError::Malformed { .. } | DeltaError::Added(_) => Some(COPY_AGAIN),
        DeltaError::Gallery(inner) => Some(gallery_hint(inner)),
        DeltaError::OtherBase { .. } | DeltaError::NotThere { .. } => Some(
            "apply the deltas in between first, or copy the whole gallery; `eyas gallery \
             inspect` shows the content of a gallery and both contents of a delta",
        ),
        DeltaError::OtherSpace { .. } | DeltaError::OtherDim { .. } => {
            Some("a gallery of another teacher is another gallery: copy it whole")
        }
        DeltaError::OtherCodes { .. } => Some(
            "make the delta between galleries of the board's codes; `eyas gallery cut \
             --codes` makes them",
        ),
        DeltaError::OtherResult { .. } => Some(
            "`eyas-device gallery verify` tells whether the gallery is damaged: copy the \
             damaged file again",
        ),
        // Nothing is wrong.
        _ => None,
    }
}

fn container_hint(err: &ContainerError) -> &'static str {
    match err {
        ContainerError::OtherKind { .. } => "`eyas-device info FILE` tells what a file is",
        ContainerError::TooNew { .. } | ContainerError::UnknownKind { .. } => {
            "install a newer version of this program"
        }
        ContainerError::NotEyas { .. } => {
            "bundles come from `eyas export`, galleries from `eyas gallery build`, teachers from \
             `eyas teacher`"
        }
        _ => COPY_AGAIN,
    }
}

fn system_hint(err: &io::Error) -> Option<&'static str> {
    match err.kind() {
        io::ErrorKind::NotFound => {
            Some("check the path; a relative one starts at the current folder")
        }
        io::ErrorKind::PermissionDenied => Some("check who may read and write there"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Some("free some space or choose another folder; nothing was overwritten")
        }
        _ => None,
    }
}

/// A number of bytes as people read it.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..1_048_576 => (1024.0, "KiB"),
        1_048_576..1_073_741_824 => (1_048_576.0, "MiB"),
        _ => (1_073_741_824.0, "GiB"),
    };
    format!("{:.1} {name}", bytes as f64 / unit)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use eyas_shared::files::FileError;

    use super::*;

    #[test]
    fn bytes_are_written_for_people() {
        let cases = [
            (7, "7 B"),
            (1024, "1.0 KiB"),
            (1_600_000, "1.5 MiB"),
            (3 << 30, "3.0 GiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(human_bytes(bytes), expected);
        }
    }

    /// The hint of a whole chain, as a command line shows it.
    fn hint(err: &(dyn Error + 'static)) -> Option<&'static str> {
        of_cause(err).or_else(|| hint(err.source()?))
    }

    #[test]
    fn a_cause_that_a_message_ends_with_is_not_said_twice() {
        let missing = eyas_shared::files::read(std::path::Path::new("no such file"), 1);
        let err = anyhow::Error::from(missing.unwrap_err()).context("reading a recipe");
        let text = chain_of(err.as_ref());
        assert!(
            text.starts_with("reading a recipe: could not read `no such file`: "),
            "{text}"
        );
        assert_eq!(text.matches("os error").count(), 1, "{text}");
    }

    #[test]
    fn the_systems_answer_is_found_through_every_type_that_carries_it() {
        let file = |kind: io::ErrorKind| FileError::because("read", Path::new("x"))(kind.into());
        let missing = StoreError::File(file(io::ErrorKind::NotFound));
        assert!(hint(&missing).unwrap().contains("check the path"));
        let full = file(io::ErrorKind::StorageFull);
        assert!(hint(&full).unwrap().contains("free some space"));
        assert_eq!(hint(&file(io::ErrorKind::Other)), None);
    }

    #[test]
    fn a_damaged_file_has_the_same_hint_with_and_without_its_path() {
        let damaged = || BundleError::Contradiction {
            what: "dim".to_owned(),
        };
        let with_path = StoreError::Bundle {
            path: "x".into(),
            source: damaged(),
        };
        assert_eq!(hint(&with_path), Some(COPY_AGAIN));
        assert_eq!(hint(&damaged()), Some(COPY_AGAIN));
    }
}
