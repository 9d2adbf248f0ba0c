use super::*;
use crate::embedding::Embeddings;
use crate::fingerprint::{Fingerprint, ImageId, SpaceId};

fn example(codes: Codes) -> Vec<u8> {
    let embeddings =
        Embeddings::from_values(3, vec![3.0, 4.0, 0.0, 0.0, 0.0, 2.0, -1.0, 0.0, 0.0]).unwrap();
    let names = ["a.jpg", "b.jpg", "c.jpg"];
    let entries: Vec<Entry<'_>> = names
        .iter()
        .zip(["pear", "apple", "pear"])
        .map(|(name, label)| Entry {
            id: ImageId::of_file(name.as_bytes()),
            label,
            name,
        })
        .collect();
    let source = GallerySource {
        space: SpaceId(Fingerprint([7; 32])),
        teacher: "teacher".to_owned(),
        manifest: Fingerprint([1; 32]),
        codes,
    };
    write(&source, &embeddings, &entries).unwrap()
}

#[test]
fn rows_labels_and_names_come_back() {
    let all = [
        (Codes::F32, 1e-7),
        (Codes::F16, 1e-3),
        (Codes::INT8, 5e-3),
        (Codes::INT8_F16, 1e-3),
        (Codes::INT2_F16, 1e-3),
        (Codes::INT2_INT8, 5e-3),
    ];
    for (codes, tolerance) in all {
        let bytes = example(codes);
        let gallery = Gallery::open(&bytes).unwrap();
        gallery.verify().unwrap();
        let mut row = [0.0; 3];
        gallery.row_into(0, &mut row);
        assert!((row[0] - 0.6).abs() < tolerance && (row[1] - 0.8).abs() < tolerance);
        assert_eq!(gallery.header.n_labels, 2);
        let entry = gallery.entry(1).unwrap();
        assert_eq!((entry.label, entry.name), ("apple", "b.jpg"));
        assert_eq!(entry.id, ImageId::of_file(b"b.jpg"));
        assert_eq!(gallery.entry(3), None);
    }
}

#[test]
fn every_flipped_byte_and_every_truncation_is_noticed() {
    let bytes = example(Codes::F16);
    let accepted = |bytes: &[u8]| {
        Gallery::open(bytes)
            .and_then(|gallery| gallery.verify())
            .is_ok()
    };
    assert!(accepted(&bytes));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        assert!(!accepted(&damaged), "byte {at}");
        assert!(!accepted(&bytes[..at]), "first {at} bytes");
    }
}

#[test]
fn embeddings_without_direction_are_refused() {
    let embeddings = Embeddings::from_values(2, vec![1.0, 0.0, 0.0, 0.0]).unwrap();
    let entry = Entry {
        id: ImageId([0; 16]),
        label: "a",
        name: "a",
    };
    let source = GallerySource {
        space: SpaceId(Fingerprint([7; 32])),
        teacher: String::new(),
        manifest: Fingerprint([1; 32]),
        codes: Codes::F32,
    };
    let message = write(&source, &embeddings, &[entry, entry])
        .unwrap_err()
        .to_string();
    assert!(message.starts_with("gallery row 1:"), "{message}");
}

#[test]
fn the_schema_key_names_the_fields() {
    assert_eq!(Fingerprint::of_bytes(SCHEMA.as_bytes()).0[..8], SCHEMA_KEY);
}

#[test]
fn an_image_that_occurs_twice_is_refused() {
    let embeddings = Embeddings::from_values(1, vec![1.0, -1.0]).unwrap();
    let entry = Entry {
        id: ImageId([9; 16]),
        label: "a",
        name: "a",
    };
    let source = GallerySource {
        space: SpaceId(Fingerprint([7; 32])),
        teacher: String::new(),
        manifest: Fingerprint([1; 32]),
        codes: Codes::F32,
    };
    let message = write(&source, &embeddings, &[entry, entry])
        .unwrap_err()
        .to_string();
    assert!(message.ends_with("twice, in rows 0 and 1"), "{message}");
}

#[test]
fn records_of_a_gallery_keep_their_bytes_and_their_name_in_any_order() {
    for codes in [
        Codes::INT8,
        Codes::INT8_F16,
        Codes::INT2_F16,
        Codes::INT2_INT8,
    ] {
        let bytes = example(codes);
        let gallery = Gallery::open(&bytes).unwrap();
        let source = GallerySource {
            space: gallery.header.space,
            teacher: gallery.header.teacher.clone(),
            manifest: gallery.header.manifest,
            codes,
        };
        let all = Picked::all(&gallery);
        assert_eq!(Plan::new(&source, &all).unwrap().to_bytes(), bytes);
        let last = Picked::of(vec![&gallery], |_, row| row == 2);
        let turned = last.chain(Picked::of(vec![&gallery], |_, row| row < 2));
        let turned = Plan::new(&source, &turned).unwrap().to_bytes();
        assert_ne!(turned, bytes);
        let turned = Gallery::open(&turned).unwrap();
        turned.verify().unwrap();
        assert_eq!(turned.header.content, gallery.header.content);
    }
}

#[test]
fn removed_rows_are_marked_and_not_part_of_the_content() {
    let bytes = example(Codes::INT8_F16);
    let gallery = Gallery::open(&bytes).unwrap();
    let source = GallerySource {
        space: gallery.header.space,
        teacher: gallery.header.teacher.clone(),
        manifest: gallery.header.manifest,
        codes: gallery.codes(),
    };
    let all = Picked::all(&gallery);
    let removed = Plan::with_removed(&source, &all, |idx| idx == 1)
        .unwrap()
        .to_bytes();
    let removed = Gallery::open(&removed).unwrap();
    removed.verify().unwrap();
    assert_eq!((removed.n_rows(), removed.n_images()), (3, 2));
    assert!(removed.is_removed(1) && !removed.is_removed(2));
    let compact = Picked::of(vec![&removed], |_, _| true);
    let compact = Plan::new(&source, &compact).unwrap();
    assert_eq!(compact.header().content, removed.header.content);
    assert_eq!(compact.header().n_rows, 2);
    assert_eq!(compact.header().n_labels, 1);
}
