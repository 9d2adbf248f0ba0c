//! `eyas demo`: the whole flow on rendered shelves.
//!
//! Every step is a command that a user could type, run as one: what the demo shows is what
//! the commands do. Here is only their order, and what is read off their answers.

mod answers;
mod page;
mod steps;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use eyas_shared::files;

use super::{Answer, say};
use answers::{Evaluation, QueryAnswer};
use steps::Steps;

/// Run the whole flow on rendered shelves and write a report.
///
/// Renders data, trains a teacher and a student, exports, builds the gallery, asks
/// `eyas-device`, evaluates. Needs no download and no terminal.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  eyas demo --out demo")]
pub(super) struct Args {
    /// Folder for everything; a folder of an earlier demo is cleared first.
    #[arg(long, default_value = "demo")]
    out: PathBuf,
    /// Root of all randomness.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Go on with what an earlier demo left instead of clearing it.
    #[arg(long)]
    keep: bool,
}

/// Says that a folder was made by the demo and may be cleared by it.
const MARK: &str = ".eyas-demo";

const TEACHER_RECIPE: &str = include_str!("../../../../models/recipes/shelf-teacher.toml");
const STUDENT_RECIPE: &str = include_str!("../../../../models/recipes/shelf-student.toml");

/// Precisions that are exported and compared.
const PRECISIONS: [&str; 2] = ["f32", "f16"];

/// What is measured, this machine being the board: shorter than a field benchmark, whose
/// windows last 10 s.
const PLAN: &str = r#"# Measures the demo's student; `eyas help bench` explains every line.
name = "demo"
profile = true
[queries]
manifest = "shelves"
split = "query"
[performance]
windows = 3
at_least_s = 1.0
warm_up_s = 0.3
[students]
shelf = ["bundles/shelf-f32.bundle", "bundles/shelf-f16.bundle"]
[galleries]
shelf = "shelf.gallery"
"#;

/// Where everything lies in the demo's folder.
struct Folder(PathBuf);

impl Folder {
    fn at(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn bundle(&self, precision: &str) -> String {
        self.at(&format!("bundles/shelf-{precision}.bundle"))
    }
}

/// One bundle's scores.
struct Evaluations {
    /// Against the teacher's gallery, with the teacher's own and the histograms' scores.
    asymmetric: Evaluation,
    /// Against the student's own gallery.
    symmetric: Evaluation,
}

/// What the page is written from.
struct Outcome {
    /// By precision of the student.
    evaluations: Vec<(&'static str, Evaluations)>,
    queries: Vec<QueryAnswer>,
    query_command: String,
    evaluate_command: String,
    /// Folder of what was measured over the link.
    session: PathBuf,
    steps: Vec<(String, f64)>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    prepare(&args.out, args.keep)?;
    let folder = Folder(args.out.clone());
    let mut steps = Steps::new()?;
    make(&folder, args.seed, &mut steps)?;
    let outcome = ask(&folder, steps)?;
    let report = page::report(&folder, args.seed, &outcome)?;
    let path = args.out.join("report.html");
    files::replace(&path, report.to_html().as_bytes())?;
    say(&page::summary(&folder, &outcome)?);
    say(&format!("report  {}", path.display()));
    Ok(Answer::Yes)
}

/// Leaves an empty folder, or with `keep` the one that is there.
fn prepare(out: &Path, keep: bool) -> anyhow::Result<()> {
    let mark = out.join(MARK);
    let is_ours = mark.exists();
    let is_empty = std::fs::read_dir(out).map_or(true, |mut entries| entries.next().is_none());
    if !is_empty && !is_ours {
        bail!(
            "`{}` holds files that no demo has made; name another folder with --out",
            out.display()
        );
    }
    if is_ours && !keep {
        std::fs::remove_dir_all(out).with_context(|| format!("clearing `{}`", out.display()))?;
    }
    files::create_folder(&out.join("recipes"))?;
    files::replace(&mark, b"made by `eyas demo`, which may clear this folder\n")?;
    files::replace(
        &out.join("recipes/shelf-teacher.toml"),
        TEACHER_RECIPE.as_bytes(),
    )?;
    files::replace(
        &out.join("recipes/shelf-student.toml"),
        STUDENT_RECIPE.as_bytes(),
    )?;
    Ok(())
}

/// From nothing to bundles and a gallery.
fn make(folder: &Folder, seed: u64, steps: &mut Steps) -> anyhow::Result<()> {
    let seed = seed.to_string();
    let (data, teacher, cache) = (
        folder.at("shelves"),
        folder.at("shelf.teacher"),
        folder.at("cache"),
    );
    let teacher_recipe = folder.at("recipes/shelf-teacher.toml");
    let student_recipe = folder.at("recipes/shelf-student.toml");
    let student_run = folder.at("runs/student");

    // What an earlier demo rendered is the same.
    if !Path::new(&data).exists() {
        steps.eyas(&["data", "render", &data, "--seed", &seed])?;
    }
    steps.eyas(&["data", "check", &data])?;
    let run = folder.at("runs/teacher");
    let words = ["teacher", "train", &teacher_recipe, "--data", &data];
    steps.eyas(
        &[
            &words[..],
            &["--run", &run, "--out", &teacher, "--seed", &seed],
        ]
        .concat(),
    )?;
    steps.eyas(&[
        "embed",
        "--teacher",
        &teacher,
        "--data",
        &data,
        "--cache",
        &cache,
    ])?;
    let words = [
        "train",
        &student_recipe,
        "--data",
        &data,
        "--teacher",
        &teacher,
    ];
    let rest = ["--cache", &cache, "--out", &student_run, "--seed", &seed];
    steps.eyas(&[&words[..], &rest].concat())?;
    let mut words = vec!["export", &student_run];
    words.extend(
        PRECISIONS
            .iter()
            .flat_map(|precision| ["--precision", precision]),
    );
    let bundles = folder.at("bundles");
    words.extend(["--name", "shelf", "--out", &bundles]);
    steps.eyas(&words)?;
    let gallery = folder.at("shelf.gallery");
    let words = [
        "gallery",
        "build",
        "--teacher",
        &teacher,
        "--data",
        &data,
        "--split",
        "gallery",
    ];
    steps.eyas(&[&words[..], &["--cache", &cache, "--out", &gallery]].concat())?;
    Ok(())
}

/// Asks the device, and evaluates.
fn ask(folder: &Folder, mut steps: Steps) -> anyhow::Result<Outcome> {
    let (data, gallery) = (folder.at("shelves"), folder.at("shelf.gallery"));
    let (teacher, cache) = (folder.at("shelf.teacher"), folder.at("cache"));
    let queries = folder.at("shelves/query");
    let bundle = folder.bundle("f16");
    let words = [
        "query",
        &queries,
        "--bundle",
        &bundle,
        "--gallery",
        &gallery,
        "--json",
    ];
    let (query_command, lines) = steps.device(&words)?;
    let queries = answers::queries(&lines)?;

    let mut evaluations = Vec::new();
    let mut evaluate_command = String::new();
    for precision in PRECISIONS {
        let bundle = folder.bundle(precision);
        let words = [
            "evaluate",
            "--bundle",
            &bundle,
            "--manifest",
            &data,
            "--split",
            "query",
        ];
        let against_teacher = [
            "--gallery",
            &gallery,
            "--teacher",
            &teacher,
            "--cache",
            &cache,
            "--baseline",
            "--json",
        ];
        let (command, json) = steps.eyas_json(&[&words[..], &against_teacher].concat())?;
        let asymmetric = answers::evaluation(&json)?;
        let against_itself = ["--symmetric", "--gallery-split", "gallery", "--json"];
        let (_, json) = steps.eyas_json(&[&words[..], &against_itself].concat())?;
        let symmetric = answers::evaluation(&json)?;
        evaluations.push((
            precision,
            Evaluations {
                asymmetric,
                symmetric,
            },
        ));
        evaluate_command = command;
    }
    let session = bench(folder, &mut steps)?;
    Ok(Outcome {
        session,
        evaluations,
        queries,
        query_command,
        evaluate_command,
        steps: steps.finish(),
    })
}

/// Measures the student over the link, as on a board; the session's folder.
fn bench(folder: &Folder, steps: &mut Steps) -> anyhow::Result<PathBuf> {
    let (plan, store) = (folder.at("board.toml"), folder.at("store"));
    files::replace(Path::new(&plan), PLAN.as_bytes())?;
    if !Path::new(&store).exists() {
        steps.device(&["init", "--store", &store, "--unsigned"])?;
    }
    let board = steps.device_command(&["serve", "--stdio", "--store", &store]);
    let sessions = folder.at("sessions");
    let words = ["bench", &plan, "--out", &sessions, "--stdio-command"];
    let (_, json) = steps.eyas_json(&[&words[..], &[&board, "--json"]].concat())?;
    answers::session(&json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_a_demo_are_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("demo");
        prepare(&out, false).unwrap();
        std::fs::write(out.join("old"), b"").unwrap();
        prepare(&out, true).unwrap();
        assert!(out.join("old").exists());
        prepare(&out, false).unwrap();
        assert!(!out.join("old").exists() && out.join("recipes/shelf-student.toml").exists());

        let foreign = folder.path().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("precious"), b"").unwrap();
        assert!(prepare(&foreign, false).is_err() && prepare(&foreign, true).is_err());
        assert!(foreign.join("precious").exists());
    }
}
