//! What makes two measurements hard to compare, in words.

use crate::bench::results::{Board, Cell, Protocol, Results};

/// Name of a fact, and what each side says.
type Fact = (&'static str, String, String);

/// A sentence about facts that differ; none if they do not.
fn differing(what: &str, facts: Vec<Fact>) -> Option<String> {
    let differing: Vec<String> = facts
        .into_iter()
        .filter(|(_, a, b)| a != b)
        .map(|(name, a, b)| format!("{name} {} and {}", quoted(&a), quoted(&b)))
        .collect();
    (!differing.is_empty()).then(|| format!("{what}: {}", differing.join(", ")))
}

fn quoted(value: &str) -> String {
    if value.is_empty() {
        "unknown".to_owned()
    } else {
        format!("`{value}`")
    }
}

fn fact<T: ToString>(name: &'static str, a: &T, b: &T) -> Fact {
    (name, a.to_string(), b.to_string())
}

/// About two sessions as a whole.
pub(super) fn of_sessions(a: &Results, b: &Results) -> Vec<String> {
    let mut cautions = Vec::new();
    cautions.extend(differing("other boards", board_facts(&a.board, &b.board)));
    let program = fact("hash", &a.board.program_hash, &b.board.program_hash);
    cautions.extend(differing("other programs on the board", vec![program]));
    let protocols = protocol_facts(&a.protocol, &b.protocol);
    cautions.extend(differing("measured in other ways", protocols));
    for (side, results) in [("first", a), ("second", b)] {
        for incident in &results.incidents {
            cautions.push(format!("the {side} session was disturbed: {incident}"));
        }
    }
    cautions
}

fn board_facts(a: &Board, b: &Board) -> Vec<Fact> {
    let clock = |board: &Board| board.max_clock_mhz.map(|clock| format!("{clock} MHz"));
    let or_empty = |clock: Option<String>| clock.unwrap_or_default();
    vec![
        fact("model", &a.model, &b.model),
        fact("processor", &a.cpu, &b.cpu),
        fact("cores", &a.n_cores, &b.n_cores),
        fact("architecture", &a.architecture, &b.architecture),
        fact("kernel", &a.kernel, &b.kernel),
        fact("memory", &a.memory_bytes, &b.memory_bytes),
        fact("governor", &a.governor, &b.governor),
        ("clock", or_empty(clock(a)), or_empty(clock(b))),
        fact("matcher", &a.matcher_kernel, &b.matcher_kernel),
    ]
}

fn protocol_facts(a: &Protocol, b: &Protocol) -> Vec<Fact> {
    vec![
        fact("mode", &a.mode, &b.mode),
        fact("windows", &a.n_windows, &b.n_windows),
        fact("seconds of a window", &a.at_least_s, &b.at_least_s),
        fact("queries of a window", &a.at_least, &b.at_least),
        fact("seconds of warm-up", &a.warm_up_s, &b.warm_up_s),
        fact("images of a window", &a.n_window_images, &b.n_window_images),
        fact("matches per query", &a.top_k, &b.top_k),
    ]
}

/// About two cells.
pub(super) fn of_cells(a: &Results, a_cell: &Cell, b: &Results, b_cell: &Cell) -> Vec<String> {
    let mut cautions = Vec::new();
    let gallery = |results: &Results, cell: &Cell| {
        let mut galleries = results.galleries.iter();
        let found = galleries.find(|gallery| gallery.name == cell.gallery);
        found.map_or((String::new(), String::new()), |gallery| {
            (gallery.hash.clone(), gallery.teacher.clone())
        })
    };
    let ((a_hash, a_teacher), (b_hash, b_teacher)) = (gallery(a, a_cell), gallery(b, b_cell));
    let facts = vec![("hash", a_hash, b_hash), ("teacher", a_teacher, b_teacher)];
    cautions.extend(differing("other galleries", facts));
    for (side, cell) in [("first", a_cell), ("second", b_cell)] {
        cautions.extend(windows(side, cell));
        for failure in &cell.failures {
            cautions.push(format!("the {side} cell failed: {failure}"));
        }
        let n_failed = cell.accuracy.iter().map(|found| found.failed.len()).sum();
        if let 1.. = n_failed {
            let n_failed: usize = n_failed;
            cautions.push(format!(
                "the {side} cell left {n_failed} queries unanswered"
            ));
        }
    }
    cautions
}

/// About windows that do not count.
fn windows(side: &str, cell: &Cell) -> Option<String> {
    let performance = cell.performance.as_ref()?;
    let n = performance.windows.len();
    let flags = performance.windows.iter().flat_map(|window| &window.flags);
    let mut names: Vec<&str> = flags.map(|raised| raised.flag.name()).collect();
    names.sort_unstable();
    names.dedup();
    let names = names.join(", ");
    match (n - performance.n_clean.min(n), performance.n_clean) {
        (0, _) => None,
        (_, 0) => Some(format!(
            "all {n} windows of the {side} cell are flagged ({names}): its times are not \
             comparable"
        )),
        (flagged, _) => Some(format!(
            "{flagged} of {n} windows of the {side} cell are flagged ({names}) and left out"
        )),
    }
}
