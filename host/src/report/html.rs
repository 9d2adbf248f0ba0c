//! The page: structure here, looks in `style.css`.

use super::{Cell, MatchPicture, QueryPicture, Report, Table, worst_first};

const STYLE: &str = include_str!("style.css");

/// Says to browsers what the page needs: nothing but itself.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

pub(super) fn page(report: &Report) -> String {
    let mut page = format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{title}</title>
<style>
{STYLE}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="summary">{summary}</p>
</header>
<main>
"#,
        title = escape(&report.title),
        summary = escape(&report.summary),
    );
    for table in &report.tables {
        page += &section_of_table(table);
    }
    page += &section_of_queries(report);
    page += &section_of_facts(&report.facts);
    page + "</main>\n</body>\n</html>\n"
}

fn section_of_table(table: &Table) -> String {
    let title = escape(&table.title);
    let mut html = format!("<section>\n<h2>{title}</h2>\n<table>\n<thead><tr>");
    for column in &table.columns {
        html += &format!(r#"<th scope="col">{}</th>"#, escape(column));
    }
    html += "</tr></thead>\n<tbody>\n";
    for row in &table.rows {
        html += "<tr>";
        for (column_idx, cell) in row.iter().enumerate() {
            let column = table.columns.get(column_idx).map_or("", String::as_str);
            html += &cell_of(cell, column_idx, &escape(column));
        }
        html += "</tr>\n";
    }
    html += "</tbody>\n</table>\n<dl class=\"origin\">\n";
    let origin = [
        ("convention", escape(&table.convention)),
        ("n", escape(&table.n)),
        ("origin", format!("<code>{}</code>", escape(&table.origin))),
    ];
    for (name, value) in origin {
        html += &format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n");
    }
    html + "</dl>\n</section>\n"
}

fn cell_of(cell: &Cell, column_idx: usize, column: &str) -> String {
    match cell {
        Cell::Text(text) if column_idx == 0 => {
            format!(r#"<th scope="row">{}</th>"#, escape(text))
        }
        Cell::Text(text) => format!(r#"<td data-column="{column}">{}</td>"#, escape(text)),
        Cell::Share(share) => format!(
            r#"<td data-column="{column}" class="share"><span class="bar"><i style="width:{:.1}%"></i></span><b>{share:.3}</b></td>"#,
            100.0 * share.clamp(0.0, 1.0),
        ),
        Cell::Nothing => format!(r#"<td data-column="{column}" class="nothing">–</td>"#),
    }
}

fn section_of_queries(report: &Report) -> String {
    if report.queries.is_empty() {
        return String::new();
    }
    let n_wrong = report
        .queries
        .iter()
        .filter(|query| query.first_right != Some(0))
        .count();
    let mut html = format!(
        "<section>\n<h2>Queries and their matches</h2>\n<p>{} {} of the {} shown found a wrong image first; the worst come first.</p>\n",
        escape(&report.queries_origin),
        n_wrong,
        report.queries.len(),
    );
    for query in worst_first(&report.queries) {
        html += &article_of_query(query);
    }
    html + "</section>\n"
}

fn article_of_query(query: &QueryPicture) -> String {
    let label = escape(&query.label);
    let outcome = match query.first_right {
        Some(0) => "right at once".to_owned(),
        Some(rank) => format!("first right match at rank {}", rank + 1),
        None => "no image of this label in the gallery".to_owned(),
    };
    let class = if query.first_right == Some(0) {
        "query"
    } else {
        "query missed"
    };
    let mut html = format!(
        "<article class=\"{class}\">\n<figure>{}<figcaption><span class=\"mark\">query</span> <strong>{label}</strong> <small>{}</small> <small>{outcome}</small></figcaption></figure>\n<ol>\n",
        query.picture.to_html(&format!("query: {label}")),
        escape(&query.name),
    );
    for (rank, found) in (1..).zip(&query.matches) {
        html += &item_of_match(rank, found);
    }
    html + "</ol>\n</article>\n"
}

fn item_of_match(rank: usize, found: &MatchPicture) -> String {
    let label = escape(&found.label);
    let (class, mark) = if found.is_right {
        ("right", "✓ right")
    } else {
        ("wrong", "✗ wrong")
    };
    format!(
        "<li class=\"{class}\"><figure>{}<figcaption><span class=\"mark\">{mark}</span> <span class=\"label\">{label}</span> <small>{rank}. score {:.3}</small></figcaption></figure></li>\n",
        found
            .picture
            .to_html(&format!("match {rank}, {mark}: {label}")),
        found.score,
    )
}

fn section_of_facts(facts: &[(String, String)]) -> String {
    if facts.is_empty() {
        return String::new();
    }
    let mut html = "<section>\n<h2>How this was made</h2>\n<dl class=\"facts\">\n".to_owned();
    for (name, value) in facts {
        html += &format!(
            "<div><dt>{}</dt><dd>{}</dd></div>\n",
            escape(name),
            escape(value)
        );
    }
    html + "</dl>\n</section>\n"
}

/// Text for element content and quoted attributes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            other => escaped.push(other),
        }
    }
    escaped
}
