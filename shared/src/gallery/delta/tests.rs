use super::*;
use crate::embedding::Embeddings;
use crate::gallery::{Entry, write};

/// A gallery of these images; a letter is an image, a capital one has another label.
fn gallery(images: &str, codes: Codes) -> Vec<u8> {
    let mut rows = Embeddings::new(5);
    let names: Vec<String> = images.chars().map(|c| c.to_lowercase().collect()).collect();
    let labels: Vec<String> = images.chars().map(|c| format!("label {c}")).collect();
    for name in &names {
        let seed = f32::from(name.as_bytes()[0]);
        rows.push(&[1.0, seed.sin(), seed.cos(), (2.0 * seed).sin(), 0.1]);
    }
    let entries: Vec<Entry<'_>> = names
        .iter()
        .zip(&labels)
        .map(|(name, label)| Entry {
            id: ImageId::of_file(name.as_bytes()),
            label,
            name,
        })
        .collect();
    let source = GallerySource {
        space: SpaceId(Fingerprint([7; 32])),
        teacher: "teacher".to_owned(),
        manifest: Fingerprint::of_bytes(images.as_bytes()),
        codes,
    };
    write(&source, &rows, &entries).unwrap()
}

fn diff(base: &[u8], new: &[u8]) -> Vec<u8> {
    between(&Gallery::open(base).unwrap(), &Gallery::open(new).unwrap()).unwrap()
}

fn apply(base: &[u8], delta: &[u8], compact: bool) -> Result<Vec<u8>, DeltaError> {
    let base = Gallery::open(base).unwrap();
    let delta = Delta::read(delta)?;
    Ok(delta.apply(&base, compact)?.plan()?.to_bytes())
}

#[test]
fn the_schema_key_names_the_fields() {
    assert_eq!(Fingerprint::of_bytes(SCHEMA.as_bytes()).0[..8], SCHEMA_KEY);
}

#[test]
fn a_delta_leads_from_one_content_to_the_other() {
    for codes in [Codes::F32, Codes::INT8, Codes::INT2_F16, Codes::INT2_INT8] {
        let (old, new) = (gallery("abcd", codes), gallery("caEBf", codes));
        let delta = diff(&old, &new);
        let read = Delta::read(&delta).unwrap();
        // b changed its label, d went, e and f came.
        assert_eq!((read.header.n_removed, read.header.n_added), (2, 3));
        let applied = apply(&old, &delta, false).unwrap();
        let gallery = Gallery::open(&applied).unwrap();
        gallery.verify().unwrap();
        assert_eq!((gallery.n_rows(), gallery.n_images()), (7, 5));
        assert_eq!(gallery.header.manifest, Fingerprint::of_bytes(b"caEBf"));
        let compacted = apply(&old, &delta, true).unwrap();
        let compacted = Gallery::open(&compacted).unwrap();
        compacted.verify().unwrap();
        assert_eq!((compacted.n_rows(), compacted.header.n_removed), (5, 0));
        assert_eq!(compacted.content(), gallery.content());
    }
}

#[test]
fn an_image_can_go_and_come_back() {
    let (a, b) = (gallery("abc", Codes::INT8), gallery("ab", Codes::INT8));
    let without = apply(&a, &diff(&a, &b), false).unwrap();
    let again = apply(&without, &diff(&b, &a), false).unwrap();
    let again = Gallery::open(&again).unwrap();
    again.verify().unwrap();
    assert_eq!((again.n_rows(), again.n_images()), (4, 3));
    assert_eq!(again.content(), Gallery::open(&a).unwrap().content());
}

#[test]
fn wrong_bases_are_refused_with_both_sides() {
    let codes = Codes::INT8_F16;
    let [one, two, three] = ["ab", "abc", "bcd"].map(|images| gallery(images, codes));
    let (first, second) = (diff(&one, &two), diff(&two, &three));
    let content = |bytes: &[u8]| Gallery::open(bytes).unwrap().content().unwrap().short();
    let applied = apply(&one, &first, false).unwrap();
    let twice = apply(&applied, &first, false).unwrap_err().to_string();
    assert!(
        twice.starts_with("already applied") && twice.contains(&content(&two)),
        "{twice}"
    );
    let out_of_order = apply(&one, &second, false).unwrap_err().to_string();
    for side in [&content(&one), &content(&two)] {
        assert!(out_of_order.contains(side), "{out_of_order}");
    }
    let other_codes = apply(&gallery("ab", Codes::INT8), &first, false);
    let message = other_codes.unwrap_err().to_string();
    assert!(
        message.contains("`int8,f16`") && message.contains("`int8`"),
        "{message}"
    );
    let same = between(&Gallery::open(&one).unwrap(), &Gallery::open(&one).unwrap());
    assert!(matches!(same, Err(DeltaError::NoDifference { .. })));
}

#[test]
fn every_flipped_byte_and_every_truncation_is_noticed() {
    let delta = diff(&gallery("abc", Codes::INT8), &gallery("bcd", Codes::INT8));
    Delta::read(&delta).unwrap();
    for at in 0..delta.len() {
        let mut damaged = delta.clone();
        damaged[at] ^= 0xff;
        assert!(Delta::read(&damaged).is_err(), "byte {at}");
        assert!(Delta::read(&delta[..at]).is_err(), "first {at} bytes");
    }
}

#[test]
fn a_header_that_promises_other_records_is_refused() {
    let (one, two) = (gallery("ab", Codes::INT8), gallery("bc", Codes::INT8));
    let delta = diff(&one, &two);
    let delta = Delta::read(&delta).unwrap();
    let (removed, added) = (delta.removed.concat(), gallery("c", Codes::INT8));
    let promises = |change: &dyn Fn(&mut DeltaHeader)| {
        let mut header = delta.header.clone();
        change(&mut header);
        apply(&one, &lay_out(&header, &removed, Some(&added)), false)
    };
    promises(&|_| ()).unwrap();
    let result = promises(&|header| header.result = Fingerprint([1; 32])).unwrap_err();
    assert!(matches!(result, DeltaError::OtherResult { .. }), "{result}");
    let number = promises(&|header| header.n_added = 2).unwrap_err();
    assert!(matches!(number, DeltaError::Malformed { .. }), "{number}");
    let header = DeltaHeader {
        n_removed: 1,
        ..delta.header.clone()
    };
    let stranger = ImageId::of_file(b"z").0;
    let gone = apply(&one, &lay_out(&header, &stranger, Some(&added)), false).unwrap_err();
    assert!(matches!(gone, DeltaError::NotThere { .. }), "{gone}");
}

#[test]
fn a_hundred_images_of_twenty_thousand_are_a_delta_of_a_hundred() {
    let dim = 16;
    let mut random = crate::random::Random::new(1);
    let n_rows = 20_100;
    let values = (0..n_rows * dim).map(|_| random.normal() as f32).collect();
    let rows = Embeddings::from_values(dim, values).unwrap();
    let names: Vec<String> = (0..n_rows).map(|i| format!("shelf/{i}.jpg")).collect();
    let entries: Vec<Entry<'_>> = names
        .iter()
        .map(|name| Entry {
            id: ImageId::of_file(name.as_bytes()),
            label: "tea",
            name,
        })
        .collect();
    let source = GallerySource {
        space: SpaceId(Fingerprint([7; 32])),
        teacher: "teacher".to_owned(),
        manifest: Fingerprint([1; 32]),
        codes: Codes::INT8_F16,
    };
    let new = write(&source, &rows, &entries).unwrap();
    let new = Gallery::open(&new).unwrap();
    let old = Picked::of(vec![&new], |_, row| row >= 100);
    let old = Plan::new(&source, &old).unwrap().to_bytes();
    let delta = diff(
        &old,
        Plan::new(&source, &Picked::all(&new))
            .unwrap()
            .to_bytes()
            .as_slice(),
    );
    assert_eq!(Delta::read(&delta).unwrap().header.n_added, 100);
    // A record is 20 + 32 bytes of codes, 16 of id, 8 of offsets and label, and its name.
    let bytes_of_a_record = delta.len() / 100;
    assert!(bytes_of_a_record < 120, "{} bytes", delta.len());
}
