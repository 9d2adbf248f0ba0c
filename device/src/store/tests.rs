use std::fs;

use eyas_shared::gallery::Codes;
use tempfile::TempDir;

use super::*;
use crate::test_data::{
    bundle, bundle_around, embeddings, gallery_in, gallery_of, onnx_with, pixels, space,
};

const DIM: u32 = 6;

struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(files.bundle(), bundle(DIM)).unwrap();
        fs::write(files.gallery(), small_gallery()).unwrap();
        files
    }

    fn bundle(&self) -> PathBuf {
        self.folder.path().join("student.bundle")
    }

    fn gallery(&self) -> PathBuf {
        self.folder.path().join("shop.gallery")
    }

    fn open(&self, check: GalleryCheck) -> Result<Store, StoreError> {
        Store::open(&self.bundle(), &self.gallery(), check)
    }

    /// The error chain, as the command line prints it.
    #[track_caller]
    fn refusal(&self) -> String {
        let err = { self.open(GalleryCheck::Checksums) }
            .err()
            .expect("it must be refused");
        format!("{:#}", anyhow::Error::from(err))
    }
}

fn small_gallery() -> Vec<u8> {
    gallery_of(
        &embeddings(5, DIM as usize, 2),
        &[0, 1, 2, 3, 4],
        Codes::F16,
    )
}

#[test]
fn a_student_and_its_gallery_answer_a_query() {
    let files = Files::new();
    let store = files.open(GalleryCheck::Whole).unwrap();
    let embedding = store.encoder().encode(&pixels(1)).unwrap();
    let matcher = store.matcher().unwrap();
    let matches = matcher.search(&embedding, 3, None);
    assert_eq!(matches.len(), 3);
    assert!(matcher.gallery().entry(matches[0].row).is_some());
    assert_eq!(store.header().dim, DIM);
}

#[test]
fn a_replaced_file_does_not_disturb_an_open_store() {
    let files = Files::new();
    let store = files.open(GalleryCheck::Whole).unwrap();
    eyas_shared::files::replace(&files.gallery(), b"something else").unwrap();
    assert_eq!(store.matcher().unwrap().gallery().n_rows(), 5);
}

#[test]
fn a_gallery_of_another_teacher_is_refused_with_both_sides() {
    let files = Files::new();
    let rows = embeddings(2, DIM as usize, 2);
    fs::write(
        files.gallery(),
        gallery_in(space(9), &rows, &[0, 1], Codes::F32),
    )
    .unwrap();
    let refusal = files.refusal();
    let expected = "student and gallery come from different teachers: \
                    student `0707070707070707`, gallery `0909090909090909`";
    assert!(refusal.starts_with(expected), "{refusal}");
    assert!(refusal.contains("shop.gallery"), "{refusal}");
}

#[test]
fn a_gallery_of_another_dimension_is_refused_with_both_sides() {
    let files = Files::new();
    fs::write(
        files.gallery(),
        gallery_of(&embeddings(2, 8, 2), &[0, 1], Codes::F32),
    )
    .unwrap();
    let refusal = files.refusal();
    assert!(
        refusal.contains("dimension: student 6, gallery 8"),
        "{refusal}"
    );
}

#[test]
fn every_flipped_byte_of_a_gallery_is_refused() {
    let files = Files::new();
    let whole = small_gallery();
    for at in 0..whole.len() {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            // Anew each time: files under a map are never edited.
            fs::remove_file(files.gallery()).unwrap();
            fs::write(files.gallery(), &damaged).unwrap();
            let opened = MappedFile::open(&files.gallery()).unwrap();
            assert!(
                opened.verified_gallery().is_err(),
                "byte {at} changed by {flip:#x}"
            );
        }
        let refusal = files.refusal();
        assert!(refusal.contains("shop.gallery"), "byte {at}: {refusal}");
    }
}

/// Rows are damaged: what was checked at install is trusted, what nobody checked is not.
#[test]
fn a_gallery_is_checked_as_far_as_nobody_did_so_before() {
    let files = Files::new();
    let mut damaged = small_gallery();
    let rows = MappedFile::open(&files.gallery()).unwrap();
    let at = { rows.gallery().unwrap().f16_row(2).unwrap().as_ptr().addr() }
        - rows.bytes().as_ptr().addr();
    damaged[at] ^= 1;
    fs::remove_file(files.gallery()).unwrap();
    fs::write(files.gallery(), &damaged).unwrap();
    for (check, is_refused) in [
        (GalleryCheck::Whole, true),
        (GalleryCheck::Checksums, true),
        (GalleryCheck::AtInstall, false),
    ] {
        assert_eq!(files.open(check).is_err(), is_refused, "{check:?}");
    }
}

#[test]
fn truncated_files_are_refused_by_name() {
    let files = Files::new();
    let whole = bundle(DIM);
    for len in (1..whole.len()).step_by(7) {
        fs::remove_file(files.bundle()).unwrap();
        fs::write(files.bundle(), &whole[..len]).unwrap();
        let refusal = files.refusal();
        assert!(refusal.contains("student.bundle"), "{len} bytes: {refusal}");
    }
    fs::write(files.bundle(), whole).unwrap();
    let whole = small_gallery();
    fs::write(files.gallery(), &whole[..whole.len() - 1]).unwrap();
    assert!(files.refusal().contains("cut short"), "{}", files.refusal());
}

#[test]
fn a_bundle_whose_network_is_garbage_under_a_right_hash_is_refused() {
    let files = Files::new();
    let probes = || embeddings(1, DIM as usize, 1);
    fs::write(files.bundle(), bundle_around(b"garbage", DIM, probes())).unwrap();
    let refusal = files.refusal();
    assert!(
        refusal.contains("student.bundle") && refusal.contains("can not be read"),
        "{refusal}"
    );

    let looping = onnx_with(i64::from(DIM), |graph| {
        graph.node[1].op_type = "Loop".to_owned()
    });
    fs::write(files.bundle(), bundle_around(&looping, DIM, probes())).unwrap();
    assert!(
        files.refusal().contains("operator `Loop`"),
        "{}",
        files.refusal()
    );
}

#[test]
fn what_is_no_file_is_refused_by_name() {
    let files = Files::new();
    fs::write(files.gallery(), b"").unwrap();
    assert!(
        files.refusal().ends_with("shop.gallery` is empty"),
        "{}",
        files.refusal()
    );
    fs::remove_file(files.gallery()).unwrap();
    assert!(
        files.refusal().contains("could not read `"),
        "{}",
        files.refusal()
    );
    fs::create_dir(files.gallery()).unwrap();
    assert!(
        files.refusal().contains("is a folder"),
        "{}",
        files.refusal()
    );
}

#[test]
fn a_bundle_in_place_of_a_gallery_is_told_apart() {
    let files = Files::new();
    fs::copy(files.bundle(), files.gallery()).unwrap();
    let refusal = files.refusal();
    assert!(
        refusal.contains("this is a bundle, but a gallery is needed"),
        "{refusal}"
    );
}
