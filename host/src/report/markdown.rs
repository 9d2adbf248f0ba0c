//! A report as Markdown: words and tables. A figure becomes the table of its numbers.

use super::{Block, Cell, MatchPicture, Report, Table, worst_first};

pub(super) fn page(report: &Report) -> String {
    let mut text = format!("# {}\n", line(&report.title));
    for paragraph in &report.summary {
        text += &format!("\n{}\n", line(paragraph));
    }
    for warning in &report.warnings {
        text += &format!("\n> Note: {}\n", line(warning));
    }
    for chapter in &report.chapters {
        let heading = if chapter.title.is_empty() {
            "##"
        } else {
            "###"
        };
        if !chapter.title.is_empty() {
            text += &format!("\n## {}\n", line(&chapter.title));
        }
        for paragraph in &chapter.summary {
            text += &format!("\n{}\n", line(paragraph));
        }
        for section in &chapter.sections {
            text += &format!("\n{heading} {}\n", line(&section.title));
            text.extend(section.blocks.iter().map(of_block));
        }
    }
    text
}

fn of_block(block: &Block) -> String {
    match block {
        Block::Text(words) => format!("\n{}\n", line(words)),
        Block::Warning(words) => format!("\n> Note: {}\n", line(words)),
        Block::Table(table) => of_table(table),
        Block::Figures(figures) => {
            let tables = figures.iter().filter_map(|figure| {
                let table = figure.table.as_ref()?;
                let title = line(&figure.title);
                Some(format!("\n**{title}**\n{}", of_table(table)))
            });
            tables.collect()
        }
        Block::Pictures(pictures) => {
            let mut text = format!("\n{}\n\n", line(&pictures.origin));
            for query in worst_first(&pictures.queries) {
                let found = query
                    .matches
                    .first()
                    .map_or("nothing", |found| &found.label);
                let (label, name) = (line(&query.label), line(&query.name));
                text += &format!("- {label} ({name}): {} first\n", line(found));
            }
            text
        }
        Block::Flips(flips) => {
            let first = |matches: &[MatchPicture]| {
                let first = matches.first();
                first.map_or("nothing".to_owned(), |found| {
                    format!("{} {:.3}", line(&found.label), found.score)
                })
            };
            let lines = flips.iter().map(|flip| {
                let (label, name) = (line(&flip.label), line(&flip.name));
                let (before, now) = (first(&flip.before), first(&flip.now));
                format!(
                    "- {label} ({name}), {}: {before}, then {now}\n",
                    flip.outcome
                )
            });
            format!("\n{}", lines.collect::<String>())
        }
        Block::Facts(facts) => {
            let facts = facts.iter();
            let lines = facts.map(|(name, value)| format!("- {}: {}\n", line(name), line(value)));
            format!("\n{}", lines.collect::<String>())
        }
        Block::Folded(title, blocks) => {
            let blocks: String = blocks.iter().map(of_block).collect();
            format!("\n**{}**\n{blocks}", line(title))
        }
    }
}

fn of_table(table: &Table) -> String {
    let mut text = String::new();
    if !table.title.is_empty() {
        text += &format!("\n**{}**\n", line(&table.title));
    }
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    text += "\n";
    text += &row(table.columns.iter().map(|column| line(column)).collect());
    let alignment = |column_idx: usize| {
        let is_words = |row: &Vec<Cell>| matches!(row.get(column_idx), Some(Cell::Words(_)));
        if column_idx == 0 || table.rows.iter().any(is_words) {
            "---".to_owned()
        } else {
            "---:".to_owned()
        }
    };
    text += &row((0..table.columns.len()).map(alignment).collect());
    for cells in &table.rows {
        text += &row(cells.iter().map(of_cell).collect());
    }
    let parts = [&table.convention, &table.n, &table.origin];
    let origin: Vec<String> = { parts.iter() }
        .filter(|part| !part.is_empty())
        .map(|part| line(part))
        .collect();
    if !origin.is_empty() {
        text += &format!("\n{}.\n", origin.join("; "));
    }
    text
}

fn of_cell(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) | Cell::Words(text) => line(text),
        Cell::Share(share) => format!("{share:.3}"),
        Cell::Nothing => "–".to_owned(),
    }
}

/// On one line, with nothing that Markdown or HTML would read as its own.
fn line(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut line = String::with_capacity(words.len());
    for character in words.chars() {
        if "\\|<>`*[]".contains(character) {
            line.push('\\');
        }
        line.push(character);
    }
    line
}
