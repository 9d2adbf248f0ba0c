use eyas_shared::calibration::{LabelOffset, Verdict, Witness};
use eyas_shared::embedding::{Embeddings, dot};
use eyas_shared::fingerprint::ImageId;
use eyas_shared::gallery::{Codes, Gallery};
use proptest::prelude::*;

use super::*;
use crate::test_data::{calibration_of, embeddings, gallery_of, gallery_with};

fn request(k: usize) -> Request {
    Request {
        k,
        by_label: false,
        rerank: Rerank::default(),
        exclude: None,
    }
}

/// Rows of the labels pear (even ids) and apple (odd ids) at chosen angles in the plane.
fn plane(angles: &[f32], codes: Codes) -> Vec<u8> {
    let values = angles.iter().flat_map(|angle| [angle.cos(), angle.sin()]);
    let rows = Embeddings::from_values(2, values.collect()).unwrap();
    let ids: Vec<u8> = (0..angles.len() as u8).collect();
    gallery_of(&rows, &ids, codes)
}

fn at(angle: f32) -> Asked {
    Asked::single(vec![angle.cos(), angle.sin()])
}

#[test]
fn a_verdict_follows_from_score_and_lead() {
    let bytes = plane(&[0.0, 1.5], Codes::F32);
    let gallery = Gallery::open(&bytes).unwrap();
    let calibrations = [calibration_of(&gallery, 0.9, 0.5, 0.1)];
    let matcher = Matcher::new(gallery);
    let answerer = Answerer::new(&matcher, &calibrations);
    assert_eq!(answerer.standing(), &Standing::Same);
    let judged = |angle| answerer.answer(&at(angle), &request(1)).judgement.unwrap();
    let verdict = |angle| (judged(angle).verdict, judged(angle).reason);
    assert_eq!(verdict(0.1), (Verdict::Match, Reason::Clear));
    assert_eq!(verdict(-0.8), (Verdict::Uncertain, Reason::Between));
    assert_eq!(verdict(-1.4), (Verdict::Unknown, Reason::Low));
    let text = judged(-1.4).to_string();
    assert_eq!(
        text,
        "unknown: the best score, 0.1700 (`pear`), is below 0.5000"
    );
    let narrow = [calibration_of(matcher.gallery(), 0.7, 0.5, 0.1)];
    let answerer = Answerer::new(&matcher, &narrow);
    let judgement = answerer.answer(&at(0.74), &request(1)).judgement.unwrap();
    assert_eq!(judgement.reason, Reason::Narrow);
    assert!(
        judgement
            .to_string()
            .contains("above `apple`, 0.1000 needed")
    );
}

#[test]
fn an_offset_moves_both_thresholds_of_its_label_alone() {
    let bytes = plane(&[0.0, 1.5], Codes::F32);
    let gallery = Gallery::open(&bytes).unwrap();
    let mut calibration = calibration_of(&gallery, 0.9, 0.5, 0.0);
    calibration.offsets.push(LabelOffset {
        label: "pear".to_owned(),
        offset: 0.2,
        n_unknown: 9,
    });
    let calibrations = [calibration];
    let matcher = Matcher::new(gallery);
    let answerer = Answerer::new(&matcher, &calibrations);
    let judged = |angle| answerer.answer(&at(angle), &request(1)).judgement.unwrap();
    assert_eq!(judged(0.1).verdict, Verdict::Uncertain);
    assert!((judged(0.1).match_score - 1.1).abs() < 1e-6);
    assert_eq!(judged(1.5).verdict, Verdict::Match);
    assert_eq!(judged(-0.87).verdict, Verdict::Unknown);
}

#[test]
fn another_gallery_gets_no_verdict_and_a_grown_one_a_warning() {
    let angles: Vec<f32> = (0..20).map(|i| i as f32 * 0.1).collect();
    let bytes = plane(&angles, Codes::F32);
    let calibration = calibration_of(&Gallery::open(&bytes).unwrap(), 0.9, 0.5, 0.0);
    let calibrations = [calibration];
    let standing = |angles: &[f32], codes| {
        let bytes = plane(angles, codes);
        let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
        let answerer = Answerer::new(&matcher, &calibrations);
        let answer = answerer.answer(&at(0.1), &request(1));
        let standing = answerer.standing().clone();
        assert_eq!(answer.judgement.is_some(), standing.gives_verdicts());
        standing
    };
    let grown: Vec<f32> = (0..22).map(|i| i as f32 * 0.1).collect();
    let near = standing(&grown, Codes::F32);
    assert_eq!(
        near,
        Standing::Near {
            n_added: 2,
            n_removed: 0,
            n_rows: 20
        }
    );
    assert!(near.to_string().contains("1.10 times"), "{near}");
    let other = standing(&angles[..15], Codes::F32);
    assert_eq!(other.word(), "other-gallery");
    assert_eq!(standing(&angles, Codes::F16), Standing::Same);
    let bytes = plane(&angles, Codes::F32);
    let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
    assert_eq!(
        Answerer::new(&matcher, &[]).standing(),
        &Standing::Uncalibrated
    );
}

#[test]
fn rows_stored_so_that_scores_differ_get_no_verdict() {
    let angles = [0.0, 1.0];
    let bytes = plane(&angles, Codes::F32);
    let mut calibration = calibration_of(&Gallery::open(&bytes).unwrap(), 0.9, 0.5, 0.0);
    calibration.witness_embeddings = vec![1.0, 0.0];
    calibration.witnesses = vec![Witness {
        label: "pear".to_owned(),
        // As if f16 had moved the score by 0.01.
        score: 0.99,
        margin: None,
        verdict: Verdict::Match,
    }];
    let calibrations = [calibration];
    let halves = plane(&angles, Codes::F16);
    let matcher = Matcher::new(Gallery::open(&halves).unwrap());
    let answerer = Answerer::new(&matcher, &calibrations);
    assert_eq!(answerer.standing().word(), "other-scores");
    assert!(answerer.answer(&at(0.0), &request(1)).judgement.is_none());
}

#[test]
fn votes_outweigh_the_nearest_row_and_the_verdict_says_so() {
    // One pear (id 0) next to the query, three apples (odd ids) behind it; id 2 is far.
    let bytes = plane(&[0.0, 0.2, 3.0, 0.21, 3.1, 0.22], Codes::F32);
    let gallery = Gallery::open(&bytes).unwrap();
    let calibrations = [calibration_of(&gallery, 0.5, 0.1, 0.0)];
    let matcher = Matcher::new(gallery);
    let answerer = Answerer::new(&matcher, &calibrations);
    let mut wanted = request(5);
    wanted.rerank.votes = Some(4);
    let answer = answerer.answer(&at(0.0), &wanted);
    assert_eq!(answer.found.len(), 2);
    assert_eq!(answer.found[0].votes.map(|(n, _)| n), Some(3));
    assert_eq!(answer.found[0].best.row, 1);
    let judgement = answer.judgement.unwrap();
    assert_eq!(judgement.reason, Reason::Reranked);
    assert_eq!(judgement.nearest.label, "pear");
}

#[test]
fn views_are_merged_to_the_mean_of_their_scores() {
    let bytes = plane(&[0.3, 1.0], Codes::F32);
    let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
    let answerer = Answerer::new(&matcher, &[]);
    let (left, right) = (at(0.0), at(0.8));
    let merged = merge(&[left.embedding.clone(), right.embedding.clone()]).unwrap();
    let score = |asked: &Asked| answerer.answer(asked, &request(1)).found[0].best.score;
    assert!((score(&merged) - (0.3_f32.cos() + 0.5_f32.cos()) / 2.0).abs() < 1e-5);
    assert_eq!(merge(&[]), Err(ViewError::None));
    assert_eq!(
        merge(&[vec![1.0, 0.0], vec![-1.0, 0.0]]),
        Err(ViewError::Opposite)
    );
    assert!(merge(&[vec![1.0], vec![1.0, 0.0]]).is_err());
    assert_eq!(merge(std::slice::from_ref(&left.embedding)).unwrap(), left);
}

proptest! {
    /// Grouping finds what a search of all rows finds, however few labels the best rows have.
    #[test]
    fn labels_are_those_of_all_rows(n_rows in 1_usize..300, seed: u64, n in 1_usize..4) {
        let rows = embeddings(n_rows, 8, seed);
        // Odd ids are few: the second label is far down.
        let id = |i: usize| {
            let mut id = [0; 16];
            id[0] = if i % 97 == 96 { 1 } else { 2 };
            id[1..9].copy_from_slice(&(i as u64).to_le_bytes());
            ImageId(id)
        };
        let ids: Vec<ImageId> = (0..n_rows).map(id).collect();
        let bytes = gallery_with(&rows, &ids, Codes::F32);
        let matcher = Matcher::new(Gallery::open(&bytes).unwrap());
        let query = embeddings(1, 8, seed ^ 9);
        let found = labels::nearest(&matcher, query.row(0), n, None);
        let all = matcher.search(query.row(0), n_rows, None);
        let mut expected: Vec<(u32, u32)> = Vec::new();
        for row in &all {
            let label = matcher.gallery().label_idx(row.row);
            if expected.iter().all(|(known, _)| *known != label) {
                expected.push((label, row.row));
            }
        }
        expected.truncate(n);
        let found: Vec<_> = found.iter().map(|f| (f.label_idx, f.best.row)).collect();
        prop_assert_eq!(found, expected);
    }

    /// A re-ranking never makes a match of what is none, and never changes a score.
    #[test]
    fn reranking_only_orders(
        n_rows in 2_usize..80,
        seed: u64,
        match_score in -0.5_f32..0.9,
        margin in 0.0_f32..0.3,
        votes in proptest::option::of(1_usize..20),
        expansion in proptest::option::of((0_usize..10, 0.0_f32..5.0)),
        by_label: bool,
    ) {
        let rows = embeddings(n_rows, 6, seed);
        let ids: Vec<u8> = (0..n_rows as u8).collect();
        let bytes = gallery_of(&rows, &ids, Codes::F32);
        let gallery = Gallery::open(&bytes).unwrap();
        let calibrations = [calibration_of(&gallery, match_score, -0.5, margin)];
        let matcher = Matcher::new(gallery);
        let answerer = Answerer::new(&matcher, &calibrations);
        let asked = Asked::single(embeddings(1, 6, seed ^ 5).row(0).to_vec());
        let plain = answerer.answer(&asked, &request(5));
        let expansion = expansion.map(|(n_rows, alpha)| Expansion { n_rows, alpha });
        let wanted = Request { by_label, rerank: Rerank { expansion, votes }, ..request(5) };
        let answer = answerer.answer(&asked, &wanted);
        let (before, after) = (plain.judgement.unwrap(), answer.judgement.unwrap());
        prop_assert!(after.verdict != Verdict::Match || before.verdict == Verdict::Match);
        prop_assert_eq!(before.nearest, after.nearest);
        let mut row = vec![0.0; 6];
        for found in &answer.found {
            matcher.gallery().row_into(found.best.row, &mut row);
            prop_assert_eq!(found.best.score, dot(&asked.embedding, &row));
        }
    }
}
