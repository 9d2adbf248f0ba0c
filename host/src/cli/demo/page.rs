//! From the answers of the steps to the report.

use std::path::Path;

use anyhow::Context;
use eyas_shared::files;
use eyas_shared::preprocess::{Limits, decode};

use super::answers::{Evaluation, QueryAnswer, Scores, Timing};
use super::{Evaluations, Folder, Outcome};
use crate::data::{self, Manifest};
use crate::report::input::{self, Input};
use crate::report::{
    Block, Cell, Chapter, MatchPicture, Pictures, QueryPicture, Report, Section, Table, Thumbnail,
    run, thousands,
};

/// Queries that are shown: every wrong one up to half, the others spread over the rest.
const N_SHOWN: usize = 12;

/// Matches that are shown of each.
const N_MATCHES: usize = 5;

pub(super) fn report(folder: &Folder, seed: u64, outcome: &Outcome) -> anyhow::Result<Report> {
    let manifest = data::open(Path::new(&folder.at("shelves")))?;
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
    let mut sections = vec![
        Section::new(
            "Does it find the right product?",
            vec![Block::Table(scores(folder, outcome)?)],
        ),
        Section::new(
            "How long does a query take?",
            vec![Block::Table(times(outcome))],
        ),
    ];
    sections.extend(training(folder)?);
    sections.push(Section::new(
        "What was done",
        vec![Block::Table(steps(outcome))],
    ));
    let queries = pictures(&manifest, &outcome.queries)?;
    let origin = format!(
        "{} of {} queries to the f16 bundle: wrong ones first, as many as half of the \
         places, then others spread over the rest.",
        N_SHOWN.min(outcome.queries.len()),
        outcome.queries.len(),
    );
    let queries = Block::Pictures(Pictures { queries, origin });
    sections.push(Section::new("Queries and their matches", vec![queries]));
    sections.push(Section::new("How this was made", vec![Block::Facts(facts)]));
    Ok(Report {
        title: "A student that searches its teacher's gallery".to_owned(),
        summary: vec![verdict(folder, outcome)?],
        chapters: vec![Chapter {
            sections,
            ..Chapter::default()
        }],
        ..Report::default()
    })
}

/// The curves of teacher and student, as far as their runs are there.
fn training(folder: &Folder) -> anyhow::Result<Vec<Section>> {
    let mut runs = Vec::new();
    for name in ["runs/teacher", "runs/student"] {
        let path = folder.at(name);
        if !Path::new(&path).exists() {
            continue;
        }
        if let Input::Run(training) = input::read(Path::new(&path))? {
            runs.push(training);
        }
    }
    Ok(if runs.is_empty() {
        Vec::new()
    } else {
        run::tell(&runs).sections
    })
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

/// Label of a query by its path.
fn label_of<'m>(manifest: &'m Manifest, query: &QueryAnswer) -> Option<&'m str> {
    let mut images = manifest.images.iter();
    let image = images.find(|image| manifest.path(image) == Path::new(&query.image))?;
    Some(&image.label)
}

fn first_right(label: &str, query: &QueryAnswer) -> Option<usize> {
    query.matches.iter().position(|found| found.label == label)
}

fn pictures(manifest: &Manifest, queries: &[QueryAnswer]) -> anyhow::Result<Vec<QueryPicture>> {
    let labeled: Vec<(&str, &QueryAnswer)> = queries
        .iter()
        .filter_map(|query| Some((label_of(manifest, query)?, query)))
        .collect();
    let (right, mut wrong): (Vec<_>, Vec<_>) = labeled
        .into_iter()
        .partition(|(label, query)| first_right(label, query) == Some(0));
    let depth = |(label, query): &(&str, &QueryAnswer)| {
        std::cmp::Reverse(first_right(label, query).unwrap_or(usize::MAX))
    };
    wrong.sort_by_key(depth);
    let n_wrong = wrong
        .len()
        .min(N_SHOWN.saturating_sub(right.len()).max(N_SHOWN / 2));
    let n_right = N_SHOWN - n_wrong;
    let every = (right.len() / n_right.max(1)).max(1);
    let shown = wrong.into_iter().take(n_wrong);
    let shown = shown.chain(right.into_iter().step_by(every).take(n_right));
    shown
        .map(|(label, query)| picture(manifest, label, query))
        .collect()
}

fn picture(manifest: &Manifest, label: &str, query: &QueryAnswer) -> anyhow::Result<QueryPicture> {
    let shown = query.matches.iter().take(N_MATCHES).map(|found| {
        Ok(MatchPicture {
            label: found.label.clone(),
            score: found.score,
            is_right: found.label == label,
            picture: Some(thumbnail(&manifest.root.join(&found.name))?),
        })
    });
    let path = Path::new(&query.image);
    let name = path.file_name().unwrap_or_default();
    Ok(QueryPicture {
        label: label.to_owned(),
        name: name.to_string_lossy().into_owned(),
        picture: Some(thumbnail(path)?),
        first_right: first_right(label, query),
        matches: shown.collect::<anyhow::Result<_>>()?,
    })
}

fn thumbnail(path: &Path) -> anyhow::Result<Thumbnail> {
    let bytes = files::read(path, Limits::DEFAULT.max_bytes)?;
    let image = decode(&bytes, &Limits::DEFAULT)
        .with_context(|| format!("decoding `{}`", path.display()))?;
    Ok(Thumbnail::of(&image)?)
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
    use eyas_shared::bundle::probe_image;

    fn line(image: &Path, labels: &[&str]) -> String {
        let matches: Vec<_> = labels
            .iter()
            .map(|label| {
                serde_json::json!({"rank": 1, "score": 0.5, "label": label, "name": "g.jpg", "id": "00"})
            })
            .collect();
        let timing = serde_json::json!({"decode": 100, "preprocess": 20, "encode": 2000, "search": 3, "total": 2123});
        let answer = serde_json::json!({"schema": "eyas.query/1", "image": image, "matches": matches,
            "timing_us": timing, "space_id": "x"});
        format!("{answer}\n")
    }

    #[test]
    fn answers_become_a_report() {
        let data = tempfile::tempdir().unwrap();
        let folder = Folder(data.path().join("demo"));
        let root = data.path().join("demo/shelves");
        std::fs::create_dir_all(root.join("tea")).unwrap();
        std::fs::create_dir_all(data.path().join("demo/bundles")).unwrap();
        let mut jpeg = Vec::new();
        let image = probe_image(0);
        jpeg_encoder::Encoder::new(&mut jpeg, 80)
            .encode(
                &image.samples,
                image.width as u16,
                image.height as u16,
                jpeg_encoder::ColorType::Rgb,
            )
            .unwrap();
        for name in ["tea/a.jpg", "tea/b.jpg", "g.jpg"] {
            std::fs::write(root.join(name), &jpeg).unwrap();
        }
        let list = "label,path,split\ntea,tea/a.jpg,query\ntea,tea/b.jpg,query\n";
        std::fs::write(root.join("manifest.csv"), list).unwrap();
        for name in ["shelf.gallery", "bundles/shelf-f16.bundle"] {
            std::fs::write(data.path().join("demo").join(name), vec![0; 1_234_567]).unwrap();
        }
        let lines = line(&root.join("tea/a.jpg"), &["tea", "milk"])
            + &line(&root.join("tea/b.jpg"), &["milk", "milk", "tea"]);
        let json = r#"{"schema": "eyas.evaluation/1", "n_queries": 2, "n_gallery": 3,
            "recall_at_1": 0.5, "teacher": {"recall_at_1": 1.0},
            "histogram": {"recall_at_1": 0.125}, "chance_recall_at_1": 0.1, "more": 3}"#;
        let evaluations = Evaluations {
            asymmetric: answers::evaluation(json).unwrap(),
            symmetric: answers::evaluation(json).unwrap(),
        };
        let outcome = Outcome {
            evaluations: vec![("f16", evaluations)],
            queries: answers::queries(&lines).unwrap(),
            query_command: "eyas-device query".to_owned(),
            evaluate_command: "eyas evaluate".to_owned(),
            steps: vec![("eyas data render".to_owned(), 1.5)],
        };
        let manifest = data::open(&root).unwrap();
        let pictures = pictures(&manifest, &outcome.queries).unwrap();
        let ranks: Vec<_> = pictures.iter().map(|picture| picture.first_right).collect();
        assert_eq!(ranks, [Some(2), Some(0)]);
        let text = summary(&folder, &outcome).unwrap();
        assert!(
            text.contains("1,234,567") && text.contains("0.500") && text.contains("2.000"),
            "{text}"
        );
        let page = report(&folder, 7, &outcome).unwrap().to_html();
        assert!(
            page.contains("50.0 % of 2 queries") && page.contains("✗ wrong"),
            "{text}"
        );
    }
}
