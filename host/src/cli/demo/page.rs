//! From the answers of the steps to the report.

use anyhow::Context;

use super::answers::{Evaluation, Scores, Timing};
use super::{Evaluations, Folder, Outcome};
use crate::report::{Block, Cell, Chapter, Report, Section, Table, compose, input, thousands};

pub(super) fn report(folder: &Folder, seed: u64, outcome: &Outcome) -> anyhow::Result<Report> {
    let facts = [
        (
            "command",
            format!("eyas demo --out {} --seed {seed}", folder.0.display()),
        ),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("machine", machine()),
        (
            "data",
            "rendered shelves: scores compare methods, they promise no product".to_owned(),
        ),
    ];
    let facts = facts.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let table = |title: &str, table: Table| Section::new(title, vec![Block::Table(table)]);
    let own = Chapter {
        title: "The student beside its teacher".to_owned(),
        summary: Vec::new(),
        sections: vec![
            table("Does it find the right product?", scores(folder, outcome)?),
            table("How long does a query take?", times(outcome)),
            table("What was done", steps(outcome)),
            Section::new("How this was made", vec![Block::Facts(facts)]),
        ],
    };
    let records = records(folder, outcome)?;
    let rest = compose(&records, None, &[]);
    Ok(Report {
        title: "A student that searches its teacher's gallery".to_owned(),
        summary: std::iter::once(verdict(folder, outcome)?)
            .chain(rest.summary)
            .collect(),
        warnings: rest.warnings,
        chapters: std::iter::once(own).chain(rest.chapters).collect(),
    })
}

/// What was measured over the link, and how teacher and student were trained.
fn records(folder: &Folder, outcome: &Outcome) -> anyhow::Result<Vec<input::Input>> {
    let runs = ["runs/teacher", "runs/student"].map(|run| folder.at(run).into());
    let folders = std::iter::once(outcome.session.clone()).chain(runs);
    let records = folders.map(|folder| input::read(&folder));
    Ok(records.collect::<Result<_, _>>()?)
}

fn machine() -> String {
    let n_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!(
        "{}, {n_threads} threads, {}",
        std::env::consts::ARCH,
        std::env::consts::OS
    )
}

fn file_bytes(path: &str) -> anyhow::Result<u64> {
    let metadata = std::fs::metadata(path);
    Ok(metadata
        .with_context(|| format!("looking at `{path}`"))?
        .len())
}

/// What a student is compared with: recall_at_1 on the same queries and gallery.
struct Compared {
    teacher: f64,
    histogram: f64,
    chance: f64,
}

impl Compared {
    fn of(evaluation: &Evaluation) -> anyhow::Result<Self> {
        let score = |scores: &Option<Scores>, what: &str| {
            let scores = scores.as_ref();
            scores
                .map(|scores| scores.recall_at_1)
                .with_context(|| format!("{what} has no score"))
        };
        Ok(Self {
            teacher: score(&evaluation.teacher, "the teacher")?,
            histogram: score(&evaluation.histogram, "the color histogram")?,
            chance: evaluation
                .chance_recall_at_1
                .context("no query has a relevant image")?,
        })
    }
}

fn verdict(folder: &Folder, outcome: &Outcome) -> anyhow::Result<String> {
    let Some((
        precision,
        Evaluations {
            asymmetric: evaluation,
            ..
        },
    )) = outcome.evaluations.last()
    else {
        return Ok(String::new());
    };
    let compared = Compared::of(evaluation)?;
    let bytes = file_bytes(&folder.bundle(precision))?;
    Ok(format!(
        "The {precision} student ({} bytes) finds the right product first for {:.1} % of {} queries \
         in the gallery that its teacher embedded. The teacher itself reaches {:.1} %, color \
         histograms {:.1} %, chance {:.1} %.",
        thousands(bytes),
        100.0 * evaluation.recall_at_1,
        evaluation.n_queries,
        100.0 * compared.teacher,
        100.0 * compared.histogram,
        100.0 * compared.chance,
    ))
}

fn scores(folder: &Folder, outcome: &Outcome) -> anyhow::Result<Table> {
    let gallery = thousands(file_bytes(&folder.at("shelf.gallery"))?);
    let mut rows = Vec::new();
    let Some((
        _,
        Evaluations {
            asymmetric: any, ..
        },
    )) = outcome.evaluations.first()
    else {
        anyhow::bail!("nothing was evaluated");
    };
    let compared = Compared::of(any)?;
    let alone = |name: &str, recall: f64, gallery: Cell| {
        vec![
            name.into(),
            Cell::Nothing,
            Cell::Share(recall),
            Cell::Nothing,
            gallery,
        ]
    };
    rows.push(alone(
        "teacher (ceiling)",
        compared.teacher,
        gallery.as_str().into(),
    ));
    for (precision, evaluation) in &outcome.evaluations {
        rows.push(vec![
            format!("student {precision}").into(),
            Cell::Share(evaluation.asymmetric.recall_at_1),
            Cell::Share(evaluation.symmetric.recall_at_1),
            thousands(file_bytes(&folder.bundle(precision))?).into(),
            gallery.as_str().into(),
        ]);
    }
    rows.push(alone("color histogram", compared.histogram, Cell::Nothing));
    rows.push(alone("chance", compared.chance, Cell::Nothing));
    let columns = [
        "model",
        "asymmetric recall_at_1",
        "symmetric recall_at_1",
        "bundle bytes",
        "gallery bytes",
    ];
    Ok(Table {
        title: String::new(),
        columns: columns.map(str::to_owned).to_vec(),
        rows,
        convention: "recall_at_1: share of queries whose best match shows the query's product. \
                     Asymmetric: the student embeds the query, the teacher has embedded the \
                     gallery. Symmetric: one model embeds both."
            .to_owned(),
        n: format!(
            "{} queries, {} gallery images of products that training never saw",
            any.n_queries, any.n_gallery
        ),
        origin: outcome.evaluate_command.clone(),
    })
}

fn times(outcome: &Outcome) -> Table {
    type Stage = (&'static str, fn(&Timing) -> u64);
    let stages: [Stage; 5] = [
        ("decode", |t| t.decode),
        ("resize and normalize", |t| t.preprocess),
        ("encode", |t| t.encode),
        ("search", |t| t.search),
        ("all", |t| t.total),
    ];
    let row = |(name, of): &Stage| {
        let mut times: Vec<u64> = outcome.queries.iter().map(|q| of(&q.timing_us)).collect();
        times.sort_unstable();
        let shown = [times[0], times[times.len() / 2], times[times.len() - 1]];
        let cells = shown.map(|micros| Cell::Text(format!("{:.3}", micros as f64 / 1e3)));
        std::iter::once(Cell::from(*name)).chain(cells).collect()
    };
    Table {
        title: String::new(),
        columns: ["stage", "min ms", "median ms", "max ms"]
            .map(str::to_owned)
            .to_vec(),
        rows: stages.iter().map(row).collect(),
        convention: "wall clock of one query after the other on this machine, f16 bundle, \
                     reading of the file left out"
            .to_owned(),
        n: format!("{} queries, one after the other", outcome.queries.len()),
        origin: outcome.query_command.clone(),
    }
}

fn steps(outcome: &Outcome) -> Table {
    let row = |(command, seconds): &(String, f64)| {
        vec![command.as_str().into(), format!("{seconds:.1}").into()]
    };
    Table {
        title: String::new(),
        columns: ["command", "seconds"].map(str::to_owned).to_vec(),
        rows: outcome.steps.iter().map(row).collect(),
        convention: "wall clock of the whole command on this machine".to_owned(),
        n: "each once".to_owned(),
        origin: "eyas demo".to_owned(),
    }
}

/// The scores as text for the terminal.
pub(super) fn summary(folder: &Folder, outcome: &Outcome) -> anyhow::Result<String> {
    let table = scores(folder, outcome)?;
    let mut text = format!(
        "\n{:18} {:>11} {:>10} {:>13} {:>14}\n",
        "recall_at_1", "asymmetric", "symmetric", "bundle bytes", "gallery bytes"
    );
    for row in &table.rows {
        let cell = |idx: usize| match &row[idx] {
            Cell::Text(text) | Cell::Words(text) => text.clone(),
            Cell::Share(share) => format!("{share:.3}"),
            Cell::Nothing => "-".to_owned(),
        };
        text += &format!(
            "{:18} {:>11} {:>10} {:>13} {:>14}\n",
            cell(0),
            cell(1),
            cell(2),
            cell(3),
            cell(4)
        );
    }
    text += &format!(
        "\n{:22} {:>9} {:>9} {:>9}  ms\n",
        "time per query", "min", "median", "max"
    );
    for row in &times(outcome).rows {
        let cells: Vec<&str> = row
            .iter()
            .map(|cell| {
                if let Cell::Text(text) = cell {
                    text
                } else {
                    ""
                }
            })
            .collect();
        text += &format!(
            "{:22} {:>9} {:>9} {:>9}\n",
            cells[0], cells[1], cells[2], cells[3]
        );
    }
    Ok(text + &format!("\n{}", table.n))
}

#[cfg(test)]
mod tests {
    use super::super::answers;
    use super::*;
    use crate::bench::results::RESULTS_FILE;
    use crate::report::example_session;

    fn line(image: &str) -> String {
        let timing = serde_json::json!({"decode": 100, "preprocess": 20, "encode": 2000, "search": 3, "total": 2123});
        let answer = serde_json::json!({"schema": "eyas.query/1", "image": image, "matches": [],
            "timing_us": timing, "space_id": "x"});
        format!("{answer}\n")
    }

    #[test]
    fn answers_and_records_become_a_report() {
        let data = tempfile::tempdir().unwrap();
        let folder = Folder(data.path().join("demo"));
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        for name in ["shelf.gallery", "bundles/shelf-f16.bundle"] {
            write(name, &vec![0; 1_234_567]);
        }
        let session = folder.0.join("sessions/1");
        let results = example_session().to_json();
        write(&format!("sessions/1/{RESULTS_FILE}"), results.as_bytes());
        for run in ["teacher", "student"] {
            write(&format!("runs/{run}/recipe.toml"), b"name = \"shelf\"\n");
            let epoch = r#"{"epoch":1,"loss":0.5,"validation_recall_at_1":null,"seconds":2.0}"#;
            write(&format!("runs/{run}/metrics.jsonl"), epoch.as_bytes());
        }
        let json = r#"{"schema": "eyas.evaluation/1", "n_queries": 2, "n_gallery": 3,
            "recall_at_1": 0.5, "teacher": {"recall_at_1": 1.0},
            "histogram": {"recall_at_1": 0.125}, "chance_recall_at_1": 0.1, "more": 3}"#;
        let evaluations = Evaluations {
            asymmetric: answers::evaluation(json).unwrap(),
            symmetric: answers::evaluation(json).unwrap(),
        };
        let outcome = Outcome {
            evaluations: vec![("f16", evaluations)],
            queries: answers::queries(&(line("a.jpg") + &line("b.jpg"))).unwrap(),
            query_command: "eyas-device query".to_owned(),
            evaluate_command: "eyas evaluate".to_owned(),
            session,
            steps: vec![("eyas data render".to_owned(), 1.5)],
        };
        let text = summary(&folder, &outcome).unwrap();
        assert!(
            text.contains("1,234,567") && text.contains("0.500") && text.contains("2.000"),
            "{text}"
        );
        let page = report(&folder, 7, &outcome).unwrap().to_html();
        for part in [
            "50.0 % of 2 queries",
            "✗ wrong",
            "Recall against latency",
            "2 training runs",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }
}
