//! Whole files that are damaged.

use std::sync::OnceLock;

use eyas_shared::embedding::Embeddings;
use eyas_shared::fingerprint::{Fingerprint, ImageId, SpaceId};
use eyas_shared::gallery::{
    Codes, Entry, Fresh, Gallery, GallerySource, Picked, Plan, RowEncoding, delta,
};
use eyas_shared::random::Random;

const ALL_CODES: Codes = Codes {
    int2: true,
    int8: true,
    rows: Some(RowEncoding::F16),
};

fn source(codes: Codes) -> GallerySource {
    GallerySource {
        space: SpaceId(Fingerprint([3; 32])),
        teacher: "a teacher".to_owned(),
        manifest: Fingerprint([4; 32]),
        codes,
    }
}

/// A gallery with every section there is.
fn gallery(n_rows: usize, dim: usize, codes: Codes) -> Vec<u8> {
    let mut random = Random::new(n_rows as u64);
    let values = (0..n_rows * dim).map(|_| random.normal() as f32).collect();
    let rows = Embeddings::from_values(dim, values).unwrap();
    let names: Vec<String> = (0..n_rows).map(|i| format!("shelf/{i}.jpg")).collect();
    let entries: Vec<Entry<'_>> = names
        .iter()
        .enumerate()
        .map(|(i, name)| Entry {
            id: ImageId::of_file(name.as_bytes()),
            label: ["tea", "milk", "crème"][i % 3],
            name,
        })
        .collect();
    let thumbnails: Vec<Vec<u8>> = (0..n_rows).map(|i| vec![i as u8; i % 7]).collect();
    let records = Fresh {
        rows: &rows,
        entries: &entries,
        thumbnails: &thumbnails,
    };
    let plan = Plan::with_removed(&source(codes), &records, |idx| idx % 5 == 1);
    plan.unwrap().to_bytes()
}

/// About 64 KiB.
pub(crate) fn large_gallery() -> Vec<u8> {
    let bytes = gallery(345, 40, ALL_CODES);
    assert!((60_000..70_000).contains(&bytes.len()), "{}", bytes.len());
    bytes
}

/// Small ones of several codes.
pub(crate) fn small_galleries() -> &'static [Vec<u8>] {
    static ALL: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    ALL.get_or_init(make_small_galleries)
}

fn make_small_galleries() -> Vec<Vec<u8>> {
    let int2_int8 = Codes::INT2_INT8;
    [
        Codes::F32,
        Codes::F16,
        Codes::INT8,
        Codes::INT2_F16,
        int2_int8,
        ALL_CODES,
    ]
    .into_iter()
    .enumerate()
    .map(|(i, codes)| gallery(3 + 9 * i, 5 + 7 * i, codes))
    .collect()
}

/// A gallery and a delta that begins from it.
pub(crate) fn delta() -> &'static (Vec<u8>, Vec<u8>) {
    static PAIR: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    PAIR.get_or_init(make_delta)
}

fn make_delta() -> (Vec<u8>, Vec<u8>) {
    let all = gallery(40, 12, Codes::INT8_F16);
    let all = Gallery::open(&all).unwrap();
    let [base, new] = [0..30, 8..40].map(|range: std::ops::Range<u32>| {
        let records = Picked::of(vec![&all], |_, row| range.contains(&row));
        let plan = Plan::new(&GallerySource::of(&all), &records);
        plan.unwrap().to_bytes()
    });
    let open = |bytes| Gallery::open(bytes).unwrap();
    let delta = delta::between(&open(&base), &open(&new)).unwrap();
    (base, delta)
}
