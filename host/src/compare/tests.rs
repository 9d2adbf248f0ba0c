//! Pairs of cells whose differences are known.

use serde_json::{Value, json};

use super::choose::{Choice, ChoiceError, pairs};
use super::condition::{Condition, ConditionError};
use super::*;
use crate::bench::test_session::{TestCell, session};

const F16: &str = "tiny/f16/1/shelf";
const INT8: &str = "tiny/int8/1/shelf";

fn cell<'a>(key: &'a str, median_ms: f64, wrong: &'a [usize]) -> TestCell<'a> {
    TestCell {
        key,
        median_ms,
        bytes: 1_800_000,
        wrong,
    }
}

fn parsed(value: Value) -> Results {
    serde_json::from_value(value).unwrap()
}

fn of(first: usize, n_queries: usize, cells: &[TestCell<'_>]) -> Results {
    parsed(session(first, n_queries, cells))
}

fn compared(a: &Results, b: &Results) -> Comparison {
    let session = |folder: &str, results: &Results| Session {
        folder: folder.into(),
        results: Box::new(results.clone()),
    };
    compare(&session("a", a), &session("b", b), &[(0, 0)])
}

fn measure<'a>(comparison: &'a Comparison, name: &str) -> &'a Compared {
    let mut measures = comparison.pairs[0].measures.iter();
    measures.find(|found| found.name == name).unwrap()
}

fn judged(comparison: &Comparison, condition: &str) -> Judged {
    let condition: Condition = condition.parse().unwrap();
    condition.judge(&comparison.pairs[0])
}

#[test]
fn queries_that_changed_sides_are_named_and_counted() {
    let a = of(0, 40, &[cell(F16, 40.0, &[1, 2])]);
    let b = of(0, 40, &[cell(F16, 40.0, &[2, 7, 9, 30])]);
    let found = compared(&a, &b);
    let queries = found.pairs[0].queries.as_ref().unwrap();
    let flips = &queries.flips;
    assert_eq!(
        (queries.n, flips.n_right_both, flips.n_wrong_both),
        (40, 35, 1)
    );
    let names =
        |flips: &[Flip]| -> Vec<String> { flips.iter().map(|flip| flip.name.clone()).collect() };
    // The surest wrong match first: scores fall with the number of the query modulo 7.
    assert_eq!(
        names(&flips.lost),
        ["oat milk/7.jpg", "black tea/9.jpg", "coffee/30.jpg"]
    );
    assert_eq!(names(&flips.won), ["black tea/1.jpg"]);
    assert_eq!(flips.chance, 10.0 / 16.0);
    assert_eq!(flips.lost[0].b.first_right, Some(1));

    let recall = measure(&found, "recall_at_1");
    assert_eq!((recall.a, recall.b), (Some(0.95), Some(0.9)));
    assert!((recall.difference.unwrap() + 0.05).abs() < 1e-12);
    let interval = recall.interval.unwrap();
    assert_eq!((interval.over, interval.n), (Over::Queries, [40, 40]));
    assert!(
        interval.low < -0.05 && -0.05 < interval.high,
        "{interval:?}"
    );
    // The mean average precision that the sessions hold is the one of their answers.
    for (side, results) in [(0, &a), (1, &b)] {
        let stored = results.cells[0].accuracy.as_ref().unwrap();
        let precision = measure(&found, "mean_average_precision_at_r");
        let recomputed = [precision.a, precision.b][side].unwrap();
        let stored = stored.mean_average_precision_at_r.unwrap();
        assert!((recomputed - stored).abs() < 1e-12);
    }
    assert!(found.cautions.is_empty() && found.pairs[0].cautions.is_empty());
}

#[test]
fn other_query_sets_are_compared_where_they_meet() {
    // Queries 10 to 39 are common; both are wrong beyond.
    let a = of(0, 40, &[cell(F16, 40.0, &[0, 1, 2])]);
    let b = of(10, 40, &[cell(F16, 40.0, &[12, 45, 46])]);
    let found = compared(&a, &b);
    let queries = found.pairs[0].queries.as_ref().unwrap();
    assert_eq!(
        (queries.n, queries.n_only_a, queries.n_only_b),
        (30, 10, 10)
    );
    let recall = measure(&found, "recall_at_1");
    assert_eq!((recall.a, recall.b), (Some(1.0), Some(29.0 / 30.0)));
    assert!(
        queries
            .said()
            .contains("10 asked in the second session alone")
    );

    let far = of(100, 40, &[cell(F16, 40.0, &[])]);
    let found = compared(&a, &far);
    assert_eq!(found.pairs[0].queries.as_ref().unwrap().n, 0);
    let recall = measure(&found, "recall_at_1");
    assert_eq!((recall.difference, recall.interval), (None, None));
    let judged = judged(&found, "recall_at_1 drops 0.5");
    assert_eq!(judged.holds, None);
    assert!(judged.why.contains("no query in common"));
}

#[test]
fn unanswered_queries_and_those_without_anything_to_find_are_left_out() {
    let a = of(0, 20, &[cell(F16, 40.0, &[])]);
    let mut b = of(0, 20, &[cell(F16, 40.0, &[3])]);
    let accuracy = b.cells[0].accuracy.as_mut().unwrap();
    accuracy.answers.remove(5);
    accuracy.failed.push((5, "the line broke".to_owned()));
    accuracy.answers[8].n_relevant = 0;
    let found = compared(&a, &b);
    let queries = found.pairs[0].queries.as_ref().unwrap();
    assert_eq!(
        (queries.n, queries.n_unanswered, queries.n_without_relevant),
        (18, 1, 1)
    );
    assert_eq!(measure(&found, "recall_at_1").b, Some(17.0 / 18.0));
    assert_eq!(
        found.pairs[0].cautions,
        ["the second cell left 1 queries unanswered"]
    );
}

#[test]
fn latencies_are_compared_over_clean_windows() {
    let a = of(0, 20, &[cell(F16, 40.0, &[])]);
    let mut b = of(0, 20, &[cell(F16, 44.0, &[])]);
    let performance = b.cells[0].performance.as_mut().unwrap();
    let flag = json!([{ "flag": "noisy", "why": "others" }]);
    performance.windows[0].flags = serde_json::from_value(flag).unwrap();
    performance.windows[0].total.median_ms = 900.0;
    performance.n_clean = 4;
    let found = compared(&a, &b);
    let median = measure(&found, "median_ms");
    let interval = median.interval.unwrap();
    assert_eq!((interval.over, interval.n), (Over::Windows, [5, 4]));
    assert!(3.0 < interval.low && interval.high < 5.0, "{interval:?}");
    assert_eq!(median.is_better(), Some(false));
    let caution = &found.pairs[0].cautions[0];
    assert!(
        caution.contains("1 of 5 windows") && caution.contains("noisy"),
        "{caution}"
    );
    // Cold starts from memory are no cold starts as long as there are others.
    let cold = measure(&found, "cold_ms").interval.unwrap();
    assert_eq!((cold.over, cold.n), (Over::Starts, [3, 3]));
    let mut of_flagged_alone = b.clone();
    let performance = of_flagged_alone.cells[0].performance.as_mut().unwrap();
    let flags = performance.windows[0].flags.clone();
    let windows = performance.windows.iter_mut();
    windows.for_each(|window| window.flags.clone_from(&flags));
    performance.n_clean = 0;
    let disturbed = compared(&a, &of_flagged_alone);
    assert_eq!(measure(&disturbed, "median_ms").is_better(), None);
    assert_eq!(judged(&disturbed, "median_ms rises 1").holds, None);
    assert_eq!(judged(&disturbed, "recall_at_1 drops 1").holds, Some(false));
    // A file's size has no interval; a quantile over all queries has none here.
    assert!(measure(&found, "bundle_mb").interval.is_none());
    assert!(measure(&found, "p99_ms").interval.is_none());
}

#[test]
fn other_boards_galleries_and_protocols_are_said() {
    let a = of(0, 20, &[cell(F16, 40.0, &[])]);
    let mut b = a.clone();
    b.board.n_cores = 2;
    b.board.program_hash = "ffff".to_owned();
    b.protocol.top_k = 5;
    b.galleries[0].hash = "eeee".to_owned();
    b.incidents.push("the board started anew".to_owned());
    let found = compared(&a, &b);
    let said = found.cautions.join("\n");
    for words in [
        "other boards: cores `4` and `2`",
        "other programs on the board",
        "matches per query `10` and `5`",
        "the second session was disturbed: the board started anew",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(found.pairs[0].cautions[0].contains("other galleries: hash"));
}

#[test]
fn conditions_hold_from_their_limit_on() {
    let a = of(0, 100, &[cell(F16, 40.0, &[])]);
    let b = of(0, 100, &[cell(F16, 44.0, &[1])]);
    let found = compared(&a, &b);
    let cases = [
        ("recall_at_1 drops 0.01", true),
        ("recall_at_1 drops 1%", true),
        ("recall_at_1 drops 0.011", false),
        ("recall_at_1 drops 0", true),
        ("recall_at_1 rises 0", false),
        // One of a hundred may be chance.
        ("recall_at_1 drops 0 surely", false),
        ("recall_at_5 drops 0", false),
        ("median_ms rises 4", true),
        ("median_ms rises 9.9%", true),
        ("median_ms rises 10.1%", false),
        ("median_ms rises 3 surely", true),
        ("median_ms rises 3.99 surely", false),
        ("queries_per_second drops 5% surely", true),
        ("bundle_mb rises 0 surely", false),
    ];
    for (condition, expected) in cases {
        let judged = judged(&found, condition);
        assert_eq!(judged.holds, Some(expected), "{judged:?}");
    }
    assert_eq!(judged(&found, "joules_per_query rises 1").holds, None);
    assert_eq!(judged(&found, "rss_mb rises 1 surely").holds, None);
}

#[test]
fn what_is_no_condition_says_what_one_is() {
    let parse = |text: &str| text.parse::<Condition>().unwrap_err();
    for text in [
        "",
        "recall_at_1",
        "recall_at_1 falls 0.1",
        "a drops 1 now",
        "a drops 1 2 surely",
    ] {
        assert_eq!(parse(text), ConditionError::Form, "{text}");
    }
    for text in [
        "p95_ms rises -1",
        "p95_ms rises NaN",
        "p95_ms rises %",
        "p95_ms rises inf",
    ] {
        assert!(matches!(parse(text), ConditionError::Number(_)), "{text}");
    }
    let unknown = parse("recall_at1 drops 0.01");
    assert!(
        unknown.to_string().contains("did you mean `recall_at_1`?"),
        "{unknown}"
    );
    assert!(
        parse("weather rises 1")
            .to_string()
            .contains("there are recall_at_1")
    );
}

#[test]
fn cells_are_named_by_a_part_of_their_key_or_paired_by_the_whole() {
    let both = of(0, 4, &[cell(F16, 40.0, &[]), cell(INT8, 30.0, &[])]);
    let other = of(
        0,
        4,
        &[cell(INT8, 30.0, &[]), cell("big/f16/1/shelf", 90.0, &[])],
    );
    let one = of(0, 4, &[cell("big/f16/2/shelf", 50.0, &[])]);
    let found = |a: &str, of_a: &Results, b: &str, of_b: &Results| {
        pairs((&Choice::of(a), of_a), (&Choice::of(b), of_b))
    };
    let paired = |found: Result<_, _>| -> Vec<(usize, usize)> {
        let found: super::choose::Pairs = found.unwrap();
        found.pairs
    };
    assert_eq!(paired(found("s#f16", &both, "s#int8", &both)), [(0, 1)]);
    assert_eq!(paired(found("s", &one, "t#f16", &both)), [(0, 0)]);
    assert_eq!(paired(found("s#int8", &both, "t", &other)), [(1, 0)]);
    assert_eq!(paired(found("s", &one, "t", &one)), [(0, 0)]);
    let by_key = found("s", &both, "t", &other).unwrap();
    assert_eq!(by_key.pairs, [(1, 0)]);
    assert_eq!(
        (&by_key.only_a[..], &by_key.only_b[..]),
        (&[F16.to_owned()][..], &["big/f16/1/shelf".to_owned()][..])
    );

    let several = found("s#tiny", &both, "t", &other).unwrap_err();
    assert!(matches!(several, ChoiceError::Several { .. }), "{several}");
    let none = found("s#tiny/f32", &both, "t", &other).unwrap_err();
    assert!(none.to_string().contains(F16), "{none}");
    let alone = found("s", &one, "t", &other).unwrap_err();
    assert!(matches!(alone, ChoiceError::NoPairs { .. }), "{alone}");
    let partner = found("s#f16", &both, "t", &other).unwrap_err();
    assert!(matches!(partner, ChoiceError::NoPairs { .. }), "{partner}");
}

#[test]
fn a_cell_without_a_partner_leaves_conditions_open() {
    let a = of(0, 4, &[cell(F16, 40.0, &[])]);
    let mut found = compared(&a, &a);
    found.only_a = vec![INT8.to_owned()];
    let found = found.judged(&["p95_ms rises 0".parse().unwrap()]);
    let holds: Vec<Option<bool>> = found.conditions.iter().map(|judged| judged.holds).collect();
    assert_eq!(holds, [Some(false), None]);
}

#[test]
fn pages_tell_what_json_tells() {
    let a = of(0, 40, &[cell(F16, 40.0, &[1])]);
    let b = of(0, 40, &[cell(F16, 44.0, &[2])]);
    let found = compared(&a, &b).judged(&["median_ms rises 1%".parse().unwrap()]);
    let report = found.to_report(&|_| None);
    assert!(report.to_html().contains("wrong before, right now"));
    let page = report.to_markdown();
    for words in [
        "1 of 1 conditions hold.",
        "| median_ms | 40.000 | 44.000 | +4.000 |",
        "- coffee (coffee/2.jpg), right before, wrong now: coffee 0.930, then black tea 0.930",
        "| median_ms rises 1% | holds | tiny/f16/1/shelf | median_ms 40.000 -\\> 44.000",
    ] {
        assert!(page.contains(words), "{words}\n{page}");
    }
}
