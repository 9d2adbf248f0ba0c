//! The page: structure here, looks in `style.css`.

use super::plot::Figure;
use super::{
    Block, Cell, Chapter, FlipPicture, MatchPicture, Pictures, QueryPicture, Report, Section,
    Table, Thumbnail, worst_first,
};

const STYLE: &str = include_str!("style.css");

/// Says to browsers what the page needs: nothing but itself.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// Sections from which on a page has a list of them.
const MANY_SECTIONS: usize = 4;

/// Columns from which on a table scrolls in a narrow place instead of becoming a list.
const MANY_COLUMNS: usize = 7;

pub(super) fn page(report: &Report) -> String {
    let title = escape(&report.title);
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
"#
    );
    for paragraph in &report.summary {
        page += &format!("<p class=\"summary\">{}</p>\n", escape(paragraph));
    }
    for warning in &report.warnings {
        page += &paragraph_of_warning(warning);
    }
    page += &contents(&report.chapters);
    page += "</header>\n<main>\n";
    for (idx, chapter) in report.chapters.iter().enumerate() {
        page += &html_of_chapter(idx, chapter);
    }
    page + "</main>\n</body>\n</html>\n"
}

/// Name of a section's place in the page.
fn anchor(chapter_idx: usize, section_idx: usize) -> String {
    format!("s{}-{}", chapter_idx + 1, section_idx + 1)
}

fn contents(chapters: &[Chapter]) -> String {
    let n_sections: usize = chapters.iter().map(|chapter| chapter.sections.len()).sum();
    if n_sections < MANY_SECTIONS {
        return String::new();
    }
    let mut html = "<nav aria-label=\"Contents\">\n".to_owned();
    for (chapter_idx, chapter) in chapters.iter().enumerate() {
        html += "<p>";
        if !chapter.title.is_empty() {
            html += &format!("<strong>{}</strong> ", escape(&chapter.title));
        }
        for (section_idx, section) in chapter.sections.iter().enumerate() {
            let (anchor, title) = (anchor(chapter_idx, section_idx), escape(&section.title));
            html += &format!("<a href=\"#{anchor}\">{title}</a> ");
        }
        html += "</p>\n";
    }
    html + "</nav>\n"
}

fn html_of_chapter(chapter_idx: usize, chapter: &Chapter) -> String {
    let mut html = String::new();
    let level = if chapter.title.is_empty() { 2 } else { 3 };
    if !chapter.title.is_empty() {
        html += &format!("<h2 class=\"chapter\">{}</h2>\n", escape(&chapter.title));
    }
    for paragraph in &chapter.summary {
        html += &format!("<p>{}</p>\n", escape(paragraph));
    }
    for (section_idx, section) in chapter.sections.iter().enumerate() {
        let anchor = anchor(chapter_idx, section_idx);
        html += &html_of_section(&anchor, level, section);
    }
    html
}

fn html_of_section(anchor: &str, level: usize, section: &Section) -> String {
    let title = escape(&section.title);
    let blocks: String = section.blocks.iter().map(html_of_block).collect();
    format!("<section id=\"{anchor}\">\n<h{level}>{title}</h{level}>\n{blocks}</section>\n")
}

fn html_of_block(block: &Block) -> String {
    match block {
        Block::Text(text) => format!("<p>{}</p>\n", escape(text)),
        Block::Warning(text) => paragraph_of_warning(text),
        Block::Table(table) => html_of_table(table),
        Block::Figures(figures) => html_of_figures(figures),
        Block::Pictures(pictures) => html_of_pictures(pictures),
        Block::Flips(flips) => flips.iter().map(article_of_flip).collect(),
        Block::Facts(facts) => html_of_facts(facts),
        Block::Folded(title, blocks) => {
            let blocks: String = blocks.iter().map(html_of_block).collect();
            let title = escape(title);
            format!("<details>\n<summary>{title}</summary>\n{blocks}</details>\n")
        }
    }
}

fn paragraph_of_warning(text: &str) -> String {
    let text = escape(text);
    format!("<p class=\"warning\"><strong>Note</strong> {text}</p>\n")
}

fn html_of_figures(figures: &[Figure]) -> String {
    let class = match figures {
        [_] => "figures one",
        _ => "figures",
    };
    let is_alone = figures.len() == 1;
    let figures = figures
        .iter()
        .map(|figure| html_of_figure(figure, is_alone));
    let figures: String = figures.collect();
    format!("<div class=\"{class}\">\n{figures}</div>\n")
}

/// A wide drawing is for a figure that has the page's width for itself.
fn html_of_figure(figure: &Figure, is_alone: bool) -> String {
    let wide = figure.wide.as_ref().filter(|_| is_alone);
    let mut html = "<figure class=\"figure\">\n".to_owned();
    if !figure.title.is_empty() {
        html += &format!("<p class=\"caption\">{}</p>\n", escape(&figure.title));
    }
    let narrow = if wide.is_some() { "narrow" } else { "only" };
    html += &format!(
        "<div class=\"drawing {narrow}\">\n{}</div>\n",
        figure.narrow
    );
    if let Some(wide) = wide {
        html += &format!("<div class=\"drawing wide\">\n{wide}</div>\n");
    }
    if !figure.key.is_empty() {
        html += "<ul class=\"key\">\n";
        for entry in &figure.key {
            html += &format!("<li>{} {}</li>\n", entry.swatch(), escape(&entry.meaning));
        }
        html += "</ul>\n";
    }
    if !figure.note.is_empty() {
        html += &format!("<figcaption>{}</figcaption>\n", escape(&figure.note));
    }
    if let Some(table) = &figure.table {
        let table = html_of_table(table);
        html += &format!("<details>\n<summary>The numbers</summary>\n{table}</details>\n");
    }
    html + "</figure>\n"
}

fn html_of_table(table: &Table) -> String {
    let is_wide = table.columns.len() >= MANY_COLUMNS;
    let class = if is_wide { "many" } else { "few" };
    let mut html = format!("<div class=\"table {class}\">\n<table>\n");
    if !table.title.is_empty() {
        html += &format!("<caption>{}</caption>\n", escape(&table.title));
    }
    html += "<thead><tr>";
    for (column_idx, column) in table.columns.iter().enumerate() {
        let is_words = |row: &Vec<Cell>| matches!(row.get(column_idx), Some(Cell::Words(_)));
        let class = if table.rows.iter().any(is_words) {
            " class=\"words\""
        } else {
            ""
        };
        // Names of metrics may be broken where people would.
        let column = escape(column).replace('_', "_<wbr>");
        html += &format!("<th scope=\"col\"{class}>{column}</th>");
    }
    html += "</tr></thead>\n<tbody>\n";
    for row in &table.rows {
        html += "<tr>";
        for (column_idx, cell) in row.iter().enumerate() {
            let column = table.columns.get(column_idx).map_or("", String::as_str);
            html += &html_of_cell(cell, column_idx, &escape(column));
        }
        html += "</tr>\n";
    }
    html += "</tbody>\n</table>\n</div>\n";
    html + &html_of_origin(table)
}

fn html_of_origin(table: &Table) -> String {
    let parts = [
        ("convention", &table.convention),
        ("n", &table.n),
        ("origin", &table.origin),
    ];
    let mut html = String::new();
    for (name, value) in parts.iter().filter(|(_, value)| !value.is_empty()) {
        html += &format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(value));
    }
    if html.is_empty() {
        return html;
    }
    format!("<dl class=\"origin\">\n{html}</dl>\n")
}

fn html_of_cell(cell: &Cell, column_idx: usize, column: &str) -> String {
    match cell {
        Cell::Text(text) | Cell::Words(text) if column_idx == 0 => {
            format!(r#"<th scope="row">{}</th>"#, escape(text))
        }
        Cell::Text(text) => format!(r#"<td data-column="{column}">{}</td>"#, escape(text)),
        Cell::Words(text) => {
            let text = escape(text);
            format!(r#"<td data-column="{column}" class="words">{text}</td>"#)
        }
        Cell::Share(share) => format!(
            r#"<td data-column="{column}" class="share"><span class="bar"><i style="width:{:.1}%"></i></span><b>{share:.3}</b></td>"#,
            100.0 * share.clamp(0.0, 1.0),
        ),
        Cell::Nothing => format!(r#"<td data-column="{column}" class="nothing">–</td>"#),
    }
}

fn html_of_pictures(pictures: &Pictures) -> String {
    let is_wrong = |query: &&QueryPicture| query.first_right != Some(0);
    let n_wrong = pictures.queries.iter().filter(is_wrong).count();
    let mut html = format!(
        "<p>{} {} of the {} shown found a wrong image first; the worst come first.</p>\n",
        escape(&pictures.origin),
        n_wrong,
        pictures.queries.len(),
    );
    for query in worst_first(&pictures.queries) {
        html += &article_of_query(query);
    }
    html
}

fn article_of_query(query: &QueryPicture) -> String {
    let outcome = match query.first_right {
        Some(0) => "right at once".to_owned(),
        Some(rank) => format!("first right match at rank {}", rank + 1),
        None => "no match of this label".to_owned(),
    };
    let class = if query.first_right == Some(0) {
        "query"
    } else {
        "query missed"
    };
    let figure = figure_of_query(query.picture.as_ref(), &query.label, &query.name, &outcome);
    let matches = list_of_matches(&query.matches);
    format!("<article class=\"{class}\">\n{figure}{matches}</article>\n")
}

fn article_of_flip(flip: &FlipPicture) -> String {
    let figure = figure_of_query(
        flip.picture.as_ref(),
        &flip.label,
        &flip.name,
        &flip.outcome,
    );
    let (before, now) = (list_of_matches(&flip.before), list_of_matches(&flip.now));
    format!(
        "<article class=\"query flip\">\n{figure}<div>\n<p class=\"caption\">first</p>\n{before}<p class=\"caption\">second</p>\n{now}</div>\n</article>\n"
    )
}

fn figure_of_query(picture: Option<&Thumbnail>, label: &str, name: &str, outcome: &str) -> String {
    let label = escape(label);
    format!(
        "<figure>{}<figcaption><span class=\"mark\">query</span> <strong>{label}</strong> <small>{}</small> <small>{}</small></figcaption></figure>\n",
        html_of_picture(picture, &format!("query: {label}")),
        escape(name),
        escape(outcome),
    )
}

fn list_of_matches(matches: &[MatchPicture]) -> String {
    let items = (1..).zip(matches);
    let items: String = items
        .map(|(rank, found)| item_of_match(rank, found))
        .collect();
    format!("<ol>\n{items}</ol>\n")
}

fn item_of_match(rank: usize, found: &MatchPicture) -> String {
    let label = escape(&found.label);
    let (class, mark) = if found.is_right {
        ("right", "✓ right")
    } else {
        ("wrong", "✗ wrong")
    };
    let description = format!("match {rank}, {mark}: {label}");
    format!(
        "<li class=\"{class}\"><figure>{}<figcaption><span class=\"mark\">{mark}</span> <span class=\"label\">{label}</span> <small>{rank}. score {:.3}</small></figcaption></figure></li>\n",
        html_of_picture(found.picture.as_ref(), &description),
        found.score,
    )
}

/// `description` must be escaped already.
fn html_of_picture(picture: Option<&Thumbnail>, description: &str) -> String {
    picture.map_or_else(
        || format!("<span class=\"missing\" role=\"img\" aria-label=\"{description}\">no picture kept</span>"),
        |picture| picture.to_html(description),
    )
}

fn html_of_facts(facts: &[(String, String)]) -> String {
    let mut html = "<dl class=\"facts\">\n".to_owned();
    for (name, value) in facts {
        let (name, value) = (escape(name), escape(value));
        html += &format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n");
    }
    html + "</dl>\n"
}

/// Text for element content and quoted attributes.
pub(super) fn escape(text: &str) -> String {
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
