//! From records of any kinds to one report.

use std::path::Path;

use super::input::{Input, Session, Training};
use super::select::Limit;
use super::session::{self, name_of};
use super::text::counted;
use super::{Chapter, Report, run, sweep};
use crate::sweep::StoredSweep;

/// Makes one report of all inputs: sessions first, then sweeps, then all runs together.
/// Without a title it gets one from what it holds.
#[must_use]
pub fn compose(inputs: &[Input], title: Option<&str>, limits: &[Limit]) -> Report {
    let mut report = Report::default();
    let sessions = sessions(inputs);
    let sweeps = sweeps(inputs);
    let runs = runs(inputs);
    for session in &sessions {
        let said = session::tell(&session.results, limits, &|id| session.picture(id));
        report.summary.extend(said.answer);
        report.warnings.extend(said.warnings);
        let title = title_of_session(session);
        report.chapters.push(Chapter {
            title,
            ..said.chapter
        });
    }
    for sweep in &sweeps {
        report.summary.extend(sweep::answer(sweep));
        report.warnings.extend(sweep::warnings(sweep));
        let title = format!("Sweep {}", shown(&sweep.folder));
        report.chapters.push(Chapter {
            title,
            ..sweep::tell(sweep)
        });
    }
    if !runs.is_empty() {
        report.summary.extend(run::answer(&runs));
        let title = match &runs[..] {
            [only] => format!("Training run {}", only.run.name()),
            runs => counted(runs.len(), "training run", "training runs"),
        };
        report.chapters.push(Chapter {
            title,
            ..run::tell(&runs)
        });
    }
    let titles: Vec<&str> = report
        .chapters
        .iter()
        .map(|chapter| &*chapter.title)
        .collect();
    report.title = title.map_or_else(|| titles.join(", "), str::to_owned);
    if let [only] = &mut report.chapters[..] {
        only.title.clear();
    }
    report
}

/// The sessions among some inputs.
#[must_use]
pub fn sessions<'i>(inputs: &'i [Input]) -> Vec<&'i Session> {
    let session = |input: &'i Input| match input {
        Input::Session(session) => Some(session),
        _ => None,
    };
    inputs.iter().filter_map(session).collect()
}

pub(super) fn sweeps<'i>(inputs: &'i [Input]) -> Vec<&'i StoredSweep> {
    let sweep = |input: &'i Input| match input {
        Input::Sweep(sweep) => Some(sweep),
        _ => None,
    };
    inputs.iter().filter_map(sweep).collect()
}

pub(super) fn runs(inputs: &[Input]) -> Vec<Training> {
    let run = |input: &Input| match input {
        Input::Run(run) => Some(run.clone()),
        _ => None,
    };
    inputs.iter().filter_map(run).collect()
}

fn title_of_session(session: &Session) -> String {
    let results = &session.results;
    let name = match results.name.as_str() {
        "" => shown(&session.folder),
        name => name.to_owned(),
    };
    format!("{name} on {}", name_of(&results.board))
}

fn shown(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or(folder.as_os_str());
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::bench::results::Results;
    use crate::report::numbers;

    fn page_of(results: Results) -> String {
        let folder = "session".into();
        let inputs = [Input::Session(Session {
            folder,
            results: Box::new(results),
        })];
        let report = compose(&inputs, None, &[]);
        let (html, markdown) = (report.to_html(), report.to_markdown());
        assert_eq!(html, compose(&inputs, None, &[]).to_html());
        for word in ["http://", "https://", "<script", "url(", "@import", "<link"] {
            assert!(!html.contains(word), "{word}");
        }
        for (name, text) in [
            ("html", &html),
            ("markdown", &markdown),
            ("json", &numbers::json(&inputs, &report, &[]).to_string()),
            ("csv", &numbers::csv(&inputs)),
        ] {
            for word in ["NaN", "inf ", "\"inf", ">inf", "-inf"] {
                assert!(!text.contains(word), "{name} has `{word}`");
            }
        }
        html
    }

    #[test]
    fn a_session_gives_a_page_with_all_its_plots() {
        let html = page_of(fixture::session());
        for title in [
            "Recall against latency",
            "Recall against memory",
            "Recall against bundle size",
            "Recall against energy",
            "recall_at_1 by student and precision",
            "Stages of a query",
            "Cold start",
            "Drift",
            "Temperature",
            "Operators of",
            "Scores, right and wrong",
            "Reliability",
            "Confusion",
            "Map of embeddings",
            "Queries and their matches",
            "Flagged windows",
            "How this was measured",
        ] {
            assert!(html.contains(title), "{title}");
        }
        assert!(html.matches("<svg class=\"plot").count() >= 14);
        assert!(html.matches("role=\"img\"").count() >= 14);
        assert!(html.contains("Best:") && html.contains("the link was cut in round 2"));
        assert!(html.contains("no picture kept"));
    }

    #[test]
    fn sessions_with_little_in_them_give_pages_too() {
        let session = fixture::session();
        let changes: [fn(&mut Results); 8] = [
            |results| results.cells.clear(),
            |results| results.cells.truncate(1),
            |results| {
                results
                    .cells
                    .iter_mut()
                    .for_each(|cell| cell.accuracy = None)
            },
            |results| {
                results
                    .cells
                    .iter_mut()
                    .for_each(|cell| cell.performance = None)
            },
            |results| {
                results
                    .cells
                    .iter_mut()
                    .for_each(|cell| cell.failures.push("cut".to_owned()))
            },
            |results| {
                for cell in &mut results.cells {
                    (cell.accuracy, cell.performance) = (None, None);
                    cell.operators.clear();
                }
            },
            |results| {
                results.queries.clear();
                results.galleries.clear();
            },
            |results| {
                for performance in results
                    .cells
                    .iter_mut()
                    .filter_map(|cell| cell.performance.as_mut())
                {
                    performance.n_clean = 0;
                    performance.median_ms = 0.0;
                    performance.stages.clear();
                    performance.windows.truncate(1);
                    performance.cold_starts.clear();
                }
            },
        ];
        for change in changes {
            let mut changed = session.clone();
            change(&mut changed);
            let html = page_of(changed);
            assert!(html.contains("How this was measured"));
        }
    }

    #[test]
    fn numbers_that_are_none_leave_no_trace_in_drawings() {
        let mut session = fixture::session();
        for (idx, cell) in session.cells.iter_mut().enumerate() {
            let wrong = [f64::NAN, f64::INFINITY, -1.0, 0.0][idx % 4];
            let (performance, accuracy) = (
                cell.performance.as_mut().unwrap(),
                cell.accuracy.as_mut().unwrap(),
            );
            performance.p95_ms = wrong;
            performance.stages[0].figures.median_ms = wrong;
            performance.stages[1].histogram.counts.clear();
            performance.windows[0].celsius = Some([wrong; 2]);
            accuracy.answers[0].at = [f32::NAN; 2];
            accuracy.answers[1].matches.clear();
            accuracy.answers[2].query = usize::MAX;
        }
        let inputs = [Input::Session(Session {
            folder: "session".into(),
            results: Box::new(session),
        })];
        let html = compose(&inputs, None, &[]).to_html();
        for drawing in html.split("<svg").skip(1) {
            let drawing = drawing.split("</svg>").next().unwrap_or_default();
            for attribute in drawing.split('"').skip(1).step_by(2) {
                assert!(
                    !attribute.contains("NaN") && !attribute.contains("inf"),
                    "{attribute}"
                );
            }
        }
    }

    #[test]
    fn names_from_outside_are_escaped_in_every_place() {
        let mut session = fixture::session();
        let evil = "<img src=x onerror=1>&\"'|`".to_owned();
        session.name.clone_from(&evil);
        session.board.model.clone_from(&evil);
        for cell in &mut session.cells {
            cell.student.clone_from(&evil);
            cell.failures.push(evil.clone());
            cell.operators[0].layer.clone_from(&evil);
        }
        for query in &mut session.queries {
            query.label.clone_from(&evil);
        }
        let html = page_of(session);
        assert!(!html.contains("<img src=x"));
        assert!(html.contains("&lt;img src=x onerror=1&gt;&amp;&quot;&#39;"));
    }

    #[test]
    fn limits_are_answered_on_the_page() {
        let results = fixture::session();
        let inputs = [Input::Session(Session {
            folder: "session".into(),
            results: Box::new(results),
        })];
        let page = |limits: &str| {
            let limits = Limit::parse_all(limits).unwrap();
            compose(&inputs, Some("Which?"), &limits).to_html()
        };
        assert!(page("p95_ms<12").contains("Best with p95_ms&lt;12:"));
        let none = page("p95_ms<0");
        assert!(
            none.contains("No cell has p95_ms&lt;0. Best of all:")
                && none.contains("<h1>Which?</h1>")
        );
    }

    #[test]
    fn several_inputs_make_chapters() {
        let session = |name: &str| {
            let mut results = fixture::session();
            results.name = name.to_owned();
            Input::Session(Session {
                folder: name.into(),
                results: Box::new(results),
            })
        };
        let report = compose(&[session("a"), session("b")], None, &[]);
        let titles: Vec<&str> = report
            .chapters
            .iter()
            .map(|chapter| &*chapter.title)
            .collect();
        assert_eq!(
            titles,
            [
                "a on Raspberry Pi 4 Model B Rev 1.4",
                "b on Raspberry Pi 4 Model B Rev 1.4"
            ]
        );
    }
}
