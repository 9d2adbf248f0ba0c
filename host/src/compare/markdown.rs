//! A comparison as Markdown, which terminals and forges show alike.

use super::{Comparison, Flip, Pair, SessionFacts};

/// Flips of a side that are listed; the rest is counted.
const N_SHOWN: usize = 20;

pub(super) fn page(comparison: &Comparison) -> String {
    let mut page = "# Comparison\n\n| | first | second |\n|---|---|---|\n".to_owned();
    let facts: [(&str, fn(&SessionFacts) -> &str); 6] = [
        ("session", |facts| &facts.session),
        ("name", |facts| &facts.name),
        ("began", |facts| &facts.began),
        ("board", |facts| &facts.board),
        ("its program", |facts| &facts.program),
        ("host", |facts| &facts.host),
    ];
    for (name, of) in facts {
        let (a, b) = (cell(of(&comparison.a)), cell(of(&comparison.b)));
        page += &format!("| {name} | {a} | {b} |\n");
    }
    page += &list("Caution", &comparison.cautions);
    for pair in &comparison.pairs {
        page += &section(pair);
    }
    let alone = |side: &str, keys: &[String]| {
        let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
        list(&format!("In the {side} session alone"), &keys)
    };
    page += &alone("first", &comparison.only_a);
    page += &alone("second", &comparison.only_b);
    page += &conditions(comparison);
    page
}

/// Text within a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn list(title: &str, items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items: Vec<String> = items.iter().map(|item| format!("- {item}\n")).collect();
    format!("\n{title}:\n\n{}", items.concat())
}

fn section(pair: &Pair) -> String {
    let title = if pair.a == pair.b {
        format!("\n## {}\n", pair.a)
    } else {
        format!("\n## {} and {}\n", pair.a, pair.b)
    };
    title + &list("Caution", &pair.cautions) + &table(pair) + &queries(pair)
}

fn table(pair: &Pair) -> String {
    let mut table = "\n| measure | unit | first | second | difference | 95 % interval | over |\n\
                     |---|---|--:|--:|--:|---|---|\n"
        .to_owned();
    for compared in &pair.measures {
        let shown = |value: Option<f64>| value.map_or("-".to_owned(), |x| compared.shown(x));
        let difference = compared.difference.map(|x| compared.signed(x));
        let (interval, sample) = match compared.interval {
            Some(found) => (
                format!(
                    "{} to {}",
                    compared.signed(found.low),
                    compared.signed(found.high)
                ),
                found.sample(),
            ),
            None => ("-".to_owned(), "-".to_owned()),
        };
        table += &format!(
            "| {} | {} | {} | {} | {} | {interval} | {sample} |\n",
            compared.name,
            compared.unit,
            shown(compared.a),
            shown(compared.b),
            difference.unwrap_or_else(|| "-".to_owned()),
        );
    }
    table
}

fn queries(pair: &Pair) -> String {
    let Some(queries) = &pair.queries else {
        return String::new();
    };
    let flips = &queries.flips;
    let mut text = format!("\n{}\n\n{}\n", queries.said(), flips.said());
    for (title, flips) in [
        ("Right before, wrong now", &flips.lost),
        ("Wrong before, right now", &flips.won),
    ] {
        let mut items: Vec<String> = flips.iter().take(N_SHOWN).map(Flip::said).collect();
        if flips.len() > N_SHOWN {
            items.push(format!("and {} more", flips.len() - N_SHOWN));
        }
        text += &list(title, &items);
    }
    text
}

fn conditions(comparison: &Comparison) -> String {
    if comparison.conditions.is_empty() {
        return String::new();
    }
    let mut table =
        "\n## Conditions\n\n| condition | cell | holds | numbers |\n|---|---|---|---|\n".to_owned();
    for judged in &comparison.conditions {
        table += &format!(
            "| {} | {} | {} | {} |\n",
            judged.condition,
            judged.cells(),
            judged.verdict(),
            cell(&judged.why),
        );
    }
    table
}
