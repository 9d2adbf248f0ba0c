//! What was found, as one HTML file that needs nothing else: no network, no script.
//!
//! A report is written from plain records. It measures nothing and has no clock, so equal
//! records give equal bytes; dates and durations come from whoever made the records.

mod html;
mod picture;

pub use picture::{PictureError, Thumbnail};

/// A report before it is written.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Heading.
    pub title: String,
    /// One or two sentences: the answer, before all tables.
    pub summary: String,
    /// Names and values, such as the machine and the commit.
    pub facts: Vec<(String, String)>,
    /// In reading order.
    pub tables: Vec<Table>,
    /// Queries with what was found for them. In any order: the worst are shown first.
    pub queries: Vec<QueryPicture>,
    /// Where the queries come from and which ones are shown.
    pub queries_origin: String,
}

/// Numbers with what a reader must know of them.
#[derive(Clone, Debug)]
pub struct Table {
    /// Heading.
    pub title: String,
    /// Headings of the columns. The first column names the rows.
    pub columns: Vec<String>,
    /// One cell per column.
    pub rows: Vec<Vec<Cell>>,
    /// What the numbers mean: the definition of the metric, units, what was left out.
    pub convention: String,
    /// How many measurements are behind the numbers.
    pub n: String,
    /// The command that gave them.
    pub origin: String,
}

/// One cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Words or a number.
    Text(String),
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

/// One query and its best matches.
#[derive(Clone, Debug)]
pub struct QueryPicture {
    /// Label of the query.
    pub label: String,
    /// File or other name of the query.
    pub name: String,
    /// The query.
    pub picture: Thumbnail,
    /// Zero-based rank of the first match with the query's label in the whole gallery;
    /// `None` if there is none.
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
    /// The match.
    pub picture: Thumbnail,
}

impl Report {
    /// The whole HTML file.
    #[must_use]
    pub fn to_html(&self) -> String {
        html::page(self)
    }
}

/// Worst first: nothing right in the gallery, then the deepest first right match; among
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
            picture: picture(),
            first_right,
            matches: vec![MatchPicture {
                label: "coffee".to_owned(),
                score,
                is_right: first_right == Some(0),
                picture: picture(),
            }],
        }
    }

    fn report() -> Report {
        Report {
            title: "Shelf <student>".to_owned(),
            summary: "It works.".to_owned(),
            facts: vec![("machine".to_owned(), "a & b".to_owned())],
            tables: vec![Table {
                title: "Recall".to_owned(),
                columns: vec!["model".to_owned(), "recall_at_1".to_owned()],
                rows: vec![vec!["<u>".into(), Cell::Share(0.25)]],
                convention: "share of queries".to_owned(),
                n: "10 queries".to_owned(),
                origin: "eyas evaluate".to_owned(),
            }],
            queries: vec![query("a", Some(0), 0.9), query("b", Some(3), 0.5)],
            queries_origin: "all queries".to_owned(),
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
