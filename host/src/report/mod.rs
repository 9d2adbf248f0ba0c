//! What was found, as one HTML file that needs nothing else: no network, no script. The same
//! as Markdown, JSON and CSV; `REPORTS.md` beside the sources describes those.
//!
//! A report is written from plain records: sessions of a board ([`crate::bench::results`]),
//! training runs ([`crate::runs`]) and sweeps ([`crate::sweep`]). It measures nothing and has
//! no clock, so equal records give equal bytes; dates and durations come from whoever made
//! the records.
//!
//! [`input`] reads records, [`session`], [`run`] and [`sweep`] make chapters of them,
//! [`plot`] draws, [`select`] and [`pareto`] choose.

mod compose;
#[cfg(test)]
pub(crate) mod fixture;
mod html;
pub mod input;
mod markdown;
pub mod numbers;
pub mod pareto;
mod picture;
pub mod plot;
pub mod run;
pub mod select;
pub mod session;
pub mod sweep;
mod text;

use plot::Figure;

pub use compose::{compose, sessions};
#[cfg(test)]
pub(crate) use fixture::session as example_session;
pub use picture::{PictureError, Thumbnail};
pub use text::thousands;

/// A report before it is written.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Heading.
    pub title: String,
    /// A few sentences, each a paragraph: the answer, before all tables.
    pub summary: Vec<String>,
    /// What a reader must know before believing the answer, such as failures.
    pub warnings: Vec<String>,
    /// In reading order.
    pub chapters: Vec<Chapter>,
}

/// What one input, or one kind of inputs, says.
#[derive(Clone, Debug, Default)]
pub struct Chapter {
    /// Heading; empty if there is one chapter only, whose sections then stand by themselves.
    pub title: String,
    /// A few sentences, each a paragraph.
    pub summary: Vec<String>,
    /// In reading order.
    pub sections: Vec<Section>,
}

/// Blocks under one heading.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// Heading.
    pub title: String,
    /// In reading order.
    pub blocks: Vec<Block>,
}

/// A part of a section.
#[derive(Clone, Debug)]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// A paragraph that must not be overlooked.
    Warning(String),
    /// Numbers.
    Table(Table),
    /// Drawings, side by side where there is room.
    Figures(Vec<Figure>),
    /// Queries with what was found for them.
    Pictures(Pictures),
    /// Queries with what two sides found for them.
    Flips(Vec<FlipPicture>),
    /// Names and values, such as the machine and the commit.
    Facts(Vec<(String, String)>),
    /// What few want to read: shown when asked for.
    Folded(String, Vec<Block>),
}

/// Numbers with what a reader must know of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Heading; none if the section's says it.
    pub title: String,
    /// Headings of the columns. The first column names the rows.
    pub columns: Vec<String>,
    /// One cell per column.
    pub rows: Vec<Vec<Cell>>,
    /// What the numbers mean: the definition of the metric, units, what was left out.
    pub convention: String,
    /// How many measurements are behind the numbers.
    pub n: String,
    /// Where they come from: the command that gave them, or the record that holds them.
    pub origin: String,
}

/// One cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A number, or a word among numbers.
    Text(String),
    /// Words.
    Words(String),
    /// A number from 0 to 1, with a bar of that length.
    Share(f64),
    /// Does not apply.
    Nothing,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Nothing, Self::Text)
    }
}

/// Queries with what was found for them.
#[derive(Clone, Debug, Default)]
pub struct Pictures {
    /// In any order: the worst are shown first.
    pub queries: Vec<QueryPicture>,
    /// Where the queries come from and which ones are shown.
    pub origin: String,
}

/// One query and its best matches.
#[derive(Clone, Debug)]
pub struct QueryPicture {
    /// Label of the query.
    pub label: String,
    /// File or other name of the query.
    pub name: String,
    /// The query; none if its picture was not kept.
    pub picture: Option<Thumbnail>,
    /// Zero-based rank of the first match with the query's label; `None` if there is none
    /// among the matches that were asked for.
    pub first_right: Option<usize>,
    /// Best first.
    pub matches: Vec<MatchPicture>,
}

/// One match of a query.
#[derive(Clone, Debug)]
pub struct MatchPicture {
    /// Label of the match.
    pub label: String,
    /// Its score.
    pub score: f32,
    /// Whether the label is the query's.
    pub is_right: bool,
    /// The match; none if its picture was not kept.
    pub picture: Option<Thumbnail>,
}

/// One query with what was found for it before, and what is found now.
#[derive(Clone, Debug)]
pub struct FlipPicture {
    /// Label of the query.
    pub label: String,
    /// File or other name of the query.
    pub name: String,
    /// What became of it, in words.
    pub outcome: String,
    /// The query; none if its picture was not kept.
    pub picture: Option<Thumbnail>,
    /// Best first.
    pub before: Vec<MatchPicture>,
    /// Best first.
    pub now: Vec<MatchPicture>,
}

impl Report {
    /// The whole HTML file.
    #[must_use]
    pub fn to_html(&self) -> String {
        html::page(self)
    }

    /// The same in Markdown: words and tables; figures as the tables of their numbers.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        markdown::page(self)
    }
}

impl Section {
    /// A heading with blocks under it.
    #[must_use]
    pub fn new(title: &str, blocks: Vec<Block>) -> Self {
        let title = title.to_owned();
        Self { title, blocks }
    }
}

/// Worst first: nothing right among the matches, then the deepest first right match; among
/// equals the wrong match with the highest score, or the right one with the lowest.
fn worst_first(queries: &[QueryPicture]) -> Vec<&QueryPicture> {
    let mut sorted: Vec<&QueryPicture> = queries.iter().collect();
    let depth = |query: &QueryPicture| query.first_right.unwrap_or(usize::MAX);
    let doubt = |query: &QueryPicture| {
        let score = query.matches.first().map_or(0.0, |first| first.score);
        if depth(query) == 0 { -score } else { score }
    };
    sorted.sort_by(|a, b| {
        (depth(b).cmp(&depth(a)))
            .then(doubt(b).total_cmp(&doubt(a)))
            .then(a.name.cmp(&b.name))
    });
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use eyas_shared::bundle::probe_image;

    fn picture() -> Thumbnail {
        Thumbnail::of(&probe_image(0)).unwrap()
    }

    fn query(name: &str, first_right: Option<usize>, score: f32) -> QueryPicture {
        QueryPicture {
            label: "<tea> & \"milk\"".to_owned(),
            name: name.to_owned(),
            picture: Some(picture()),
            first_right,
            matches: vec![MatchPicture {
                label: "coffee".to_owned(),
                score,
                is_right: first_right == Some(0),
                picture: Some(picture()),
            }],
        }
    }

    fn report() -> Report {
        let table = Table {
            title: "Recall".to_owned(),
            columns: vec!["model".to_owned(), "recall_at_1".to_owned()],
            rows: vec![vec!["<u>".into(), Cell::Share(0.25)]],
            convention: "share of queries".to_owned(),
            n: "10 queries".to_owned(),
            origin: "eyas evaluate".to_owned(),
        };
        let pictures = Pictures {
            queries: vec![query("a", Some(0), 0.9), query("b", Some(3), 0.5)],
            origin: "all queries".to_owned(),
        };
        let facts = vec![("machine".to_owned(), "a & b".to_owned())];
        let sections = vec![
            Section::new("Numbers", vec![Block::Table(table)]),
            Section::new("Queries", vec![Block::Pictures(pictures)]),
            Section::new("How", vec![Block::Facts(facts)]),
        ];
        Report {
            title: "Shelf <student>".to_owned(),
            summary: vec!["It works.".to_owned()],
            warnings: vec!["One <b> failed.".to_owned()],
            chapters: vec![Chapter {
                sections,
                ..Chapter::default()
            }],
        }
    }

    #[test]
    fn equal_records_give_equal_pages_that_load_nothing() {
        let page = report().to_html();
        assert_eq!(page, report().to_html());
        for word in ["http://", "https://", "<script", "url(", "@import", "<link"] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn text_is_escaped_everywhere() {
        let page = report().to_html();
        assert!(page.contains("Shelf &lt;student&gt;") && page.contains("a &amp; b"));
        assert!(page.contains("&lt;tea&gt; &amp; &quot;milk&quot;"));
        assert!(!page.contains("<tea>") && !page.contains("<u>"));
    }

    #[test]
    fn the_worst_queries_come_first() {
        let queries = [
            query("right and sure", Some(0), 0.9),
            query("wrong, deep", Some(7), 0.2),
            query("right but unsure", Some(0), 0.3),
            query("nothing to find", None, 0.1),
            query("wrong, near", Some(1), 0.4),
            query("wrong, near and sure", Some(1), 0.8),
        ];
        let names: Vec<&str> = worst_first(&queries)
            .iter()
            .map(|q| q.name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "nothing to find",
                "wrong, deep",
                "wrong, near and sure",
                "wrong, near",
                "right but unsure",
                "right and sure",
            ]
        );
    }

    #[test]
    fn right_and_wrong_are_said_in_words() {
        let page = report().to_html();
        assert!(page.contains("✓ right") && page.contains("✗ wrong"));
        assert!(
            page.find("✗ wrong") < page.find("✓ right"),
            "wrong ones first"
        );
    }
}
