//! `eyas sweep`: students x losses x seeds, one table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use eyas_device::hints::chain_of;
use eyas_shared::bundle::Precision;
use eyas_shared::files;
use eyas_shared::fingerprint::{Fingerprint, Fingerprinter};
use serde_json::json;

use super::train;
use super::training::{ComputeArgs, TrainingArgs};
use super::{Answer, Progress, note, say};
use crate::data;
use crate::data::manifest::{Manifest, Selection};
use crate::export::{self, Reference};
use crate::runs::RECIPE_FILE;
use crate::student::{StoredStudent, TrainedStudent};
use crate::sweep::{Ceiling, Cell, CellRecord, Ground, Sweep, SweepFile, ground};
use crate::teacher::Teacher;
use crate::weights::Weights;

/// Train, export and score every student with every loss and seed of a file.
///
/// Every student is trained as by `eyas train`, exported as by `eyas export`, and scored as
/// by `eyas evaluate`: in the gallery that the teacher embedded (asymmetric) and in its own
/// (symmetric). The out folder gets `table.md` and `table.csv` (means and spread over the
/// seeds), `cells.csv`, and under `cells` a run directory for each training. The same
/// command goes on where an interrupted sweep was, and tries failed cells again. Exit code 1
/// says that cells failed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  eyas sweep models/sweeps/grocery.toml --dry-run
  eyas sweep models/sweeps/grocery.toml --threads 2")]
pub(super) struct Args {
    /// What to compare, such as models/sweeps/grocery.toml.
    sweep: PathBuf,
    /// Images, instead of the file's `data`.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Teacher, instead of the file's.
    #[arg(long)]
    teacher: Option<PathBuf>,
    /// Folder of cached teacher embeddings, instead of the file's.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Where everything is written, instead of the file's `out`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only list the cells, and which are done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// A sweep whose inputs were read and fit together.
struct Ready {
    file: SweepFile,
    cells: Vec<Cell>,
    fingerprints: Vec<String>,
    teacher: Teacher,
    grounds: Vec<Ground>,
    compute: ComputeArgs,
    quiet: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Answer> {
    let ready = Ready::open(args)?;
    if args.dry_run {
        ready.list();
        return Ok(Answer::Yes);
    }
    files::create_folder(&ready.file.out)?;
    let ceilings = ready.ceilings()?;
    let mut records = ready.known();
    ready.write_tables(&records, &ceilings)?;
    let n_cells = ready.cells.len();
    for cell_idx in 0..n_cells {
        if records[cell_idx].as_ref().is_some_and(CellRecord::is_done) {
            continue;
        }
        let started = Instant::now();
        let record = ready.run_cell(cell_idx)?;
        ready.tell(&format!(
            "[{}/{n_cells}] {}: {}, {:.0} s",
            cell_idx + 1,
            ready.cells[cell_idx],
            outcome(&record),
            started.elapsed().as_secs_f64()
        ));
        records[cell_idx] = Some(record);
        ready.write_tables(&records, &ceilings)?;
    }
    let sweep = ready.sweep(&records, &ceilings);
    let failures = sweep.failures();
    if args.json {
        say(&as_json(&ready.file.out, &sweep).to_string());
    } else {
        say(&sweep.markdown());
        say(&format!("tables   {}", ready.file.out.display()));
    }
    Ok(if failures.is_empty() {
        Answer::Yes
    } else {
        note(&format!(
            "{} of {n_cells} cells failed; the same command tries them again",
            failures.len()
        ));
        Answer::No
    })
}

impl Ready {
    fn open(args: &Args) -> anyhow::Result<Self> {
        let mut file = SweepFile::read(&args.sweep)?;
        let overrides = [
            (&mut file.data, &args.data),
            (&mut file.teacher, &args.teacher),
            (&mut file.cache, &args.cache),
            (&mut file.out, &args.out),
        ];
        for (path, given) in overrides {
            if let Some(given) = given {
                path.clone_from(given);
            }
        }
        let cells = file.cells(&args.sweep)?;
        let teacher = Teacher::open(&file.teacher)?;
        let manifest = data::open(&file.data)?;
        let in_data = || format!("data `{}`", file.data.display());
        let grounds: Vec<Ground> = file
            .galleries
            .iter()
            .map(|axis| {
                Ground::select(axis, &manifest)
                    .with_context(in_data)
                    .with_context(|| format!("gallery `{}`", axis.name))
            })
            .collect::<anyhow::Result<_>>()?;
        let fingerprints = fingerprints(&file, &cells, &teacher, &manifest, &grounds)?;
        Ok(Self {
            file,
            cells,
            fingerprints,
            teacher,
            grounds,
            compute: args.compute,
            quiet: args.json,
        })
    }

    /// Tells of progress; a script gets only the answer.
    fn tell(&self, line: &str) {
        if !self.quiet {
            say(line);
        }
    }

    fn folder(&self, cell_idx: usize) -> PathBuf {
        self.cells[cell_idx].folder(&self.file.out)
    }

    /// What earlier runs of this sweep left.
    fn known(&self) -> Vec<Option<CellRecord>> {
        let prints = self.fingerprints.iter().enumerate();
        prints
            .map(|(cell_idx, print)| CellRecord::read(&self.folder(cell_idx), print))
            .collect()
    }

    fn sweep<'a>(
        &'a self,
        records: &'a [Option<CellRecord>],
        ceilings: &'a [Ceiling],
    ) -> Sweep<'a> {
        Sweep {
            file: &self.file,
            teacher: self.teacher.name(),
            cells: &self.cells,
            records,
            ceilings,
        }
    }

    fn write_tables(
        &self,
        records: &[Option<CellRecord>],
        ceilings: &[Ceiling],
    ) -> anyhow::Result<()> {
        let sweep = self.sweep(records, ceilings);
        for (name, text) in [
            ("table.md", sweep.markdown()),
            ("table.csv", sweep.csv()),
            ("cells.csv", sweep.cells_csv()),
        ] {
            files::replace(&self.file.out.join(name), text.as_bytes())?;
        }
        Ok(())
    }

    fn list(&self) {
        let records = self.known();
        let is_begun = |cell_idx| self.folder(cell_idx).join(RECIPE_FILE).exists();
        let states = records.iter().enumerate().map(|(i, record)| match record {
            None if is_begun(i) => "begun",
            None => "to do",
            Some(record) if record.is_done() => "done",
            Some(_) => "failed",
        });
        if self.quiet {
            let cells: Vec<_> = self
                .cells
                .iter()
                .zip(states)
                .map(|(cell, state)| {
                    json!({
                        "student": cell.student,
                        "loss": cell.loss,
                        "seed": cell.recipe.seed,
                        "state": state,
                    })
                })
                .collect();
            say(&json!({ "schema": "eyas.sweep-cells/1", "cells": cells }).to_string());
            return;
        }
        for (cell, state) in self.cells.iter().zip(states) {
            say(&format!("{state:6}  {cell}"));
        }
        say(&format!("{} cells", self.cells.len()));
    }

    /// Builds the teacher's galleries and scores the teacher in them.
    fn ceilings(&self) -> anyhow::Result<Vec<Ceiling>> {
        let n_images = self.grounds.iter().map(Ground::n_images).sum();
        let progress = Progress::of_images("embedding with the teacher", n_images);
        let (cache, out) = (&self.file.cache, &self.file.out);
        let prepare = |ground: &Ground| {
            ground
                .prepare(&self.teacher, cache, out, &|| progress.step())
                .with_context(|| format!("gallery `{}`", ground.name()))
        };
        self.grounds.iter().map(prepare).collect()
    }

    /// Trains, exports and scores; what fails is in the record. Only a record that can not
    /// be kept is an error.
    fn run_cell(&self, cell_idx: usize) -> anyhow::Result<CellRecord> {
        let (cell, folder) = (&self.cells[cell_idx], self.folder(cell_idx));
        let mut record = CellRecord::new(cell, self.fingerprints[cell_idx].clone());
        if let Err(err) = self.train(cell, &folder) {
            record.failures.push(chain_of(err.as_ref()));
        } else if let Err(err) = self.score(&folder, &mut record) {
            record.failures.push(chain_of(err.as_ref()));
        }
        record.save(&folder)?;
        Ok(record)
    }

    fn train(&self, cell: &Cell, folder: &Path) -> anyhow::Result<()> {
        files::create_folder(folder)?;
        // The recipe as `eyas train` would be given it.
        let recipe = folder.join("cell.toml");
        files::replace(&recipe, cell.recipe.resolved().as_bytes())?;
        let args = train::Args {
            training: TrainingArgs {
                recipe,
                data: self.file.data.clone(),
                split: self.file.split.clone(),
                start: cell.start.clone(),
                seed: None,
                compute: self.compute,
            },
            teacher: self.file.teacher.clone(),
            out: folder.to_owned(),
            cache: self.file.cache.clone(),
            teacher_network: cell.teacher_network.clone(),
        };
        train::train(&args, &|_| ())
    }

    /// Exports to every precision and scores the bundles.
    fn score(&self, folder: &Path, record: &mut CellRecord) -> anyhow::Result<()> {
        let StoredStudent {
            student,
            images_root,
        } = TrainedStudent::open(folder)?;
        let reference = Reference::read(&student, &images_root)?;
        let bundles = folder.join("bundles");
        files::create_folder(&bundles)?;
        for &precision in &self.file.precisions {
            let verified = match export::export(&student, &reference, precision) {
                Ok(verified) => verified.with_declared_memory()?,
                Err(err) if err.is_disagreement() => {
                    record
                        .failures
                        .push(format!("no {precision} bundle: {err}"));
                    continue;
                }
                Err(err) => return Err(err.into()),
            };
            let path = bundles.join(format!("{}-{precision}.bundle", student.name));
            verified.save(&path)?;
            self.score_bundle(&path, precision, record)?;
        }
        Ok(())
    }

    fn score_bundle(
        &self,
        path: &Path,
        precision: Precision,
        record: &mut CellRecord,
    ) -> anyhow::Result<()> {
        let n_images = ground::all_images(&self.grounds).images.len();
        let progress = Progress::of_images(&format!("scoring {precision}"), n_images);
        let out = &self.file.out;
        let (header, scores) = ground::score_bundle(path, &self.grounds, out, || progress.step())?;
        record.n_parameters = header.n_parameters;
        record.multiply_adds = header.multiply_adds;
        record.scores.extend(scores);
        Ok(())
    }
}

/// Names all that the scores of each cell follow from.
fn fingerprints(
    file: &SweepFile,
    cells: &[Cell],
    teacher: &Teacher,
    manifest: &Manifest,
    grounds: &[Ground],
) -> anyhow::Result<Vec<String>> {
    let training = manifest.select(&Selection {
        split: Some(file.split.clone()),
        role: None,
    });
    let starts = file
        .students
        .iter()
        .filter_map(|axis| axis.start.as_deref());
    let networks = file
        .losses
        .iter()
        .filter_map(|axis| Some(&*axis.teacher_network.as_ref()?.weights));
    let mut weights: BTreeMap<&Path, Fingerprint> = BTreeMap::new();
    for path in starts.chain(networks) {
        weights.insert(path, Weights::read(path)?.fingerprint());
    }
    let of_cell = |cell: &Cell| {
        let mut print = Fingerprinter::new("eyas sweep cell 1")
            .field("recipe", &cell.recipe.fingerprint().0)
            .field("teacher", &teacher.space().0.0)
            .field("training", &training.fingerprint().0);
        let files = [
            ("start", &cell.start),
            ("teacher network", &cell.teacher_network),
        ];
        for (name, path) in files {
            if let Some(path) = path {
                print = print.field(name, &weights[&**path].0);
            }
        }
        for ground in grounds {
            print = print.field("gallery", &ground.fingerprint().0);
        }
        for precision in &file.precisions {
            print = print.field("precision", precision.to_string().as_bytes());
        }
        print.finish().to_string()
    };
    Ok(cells.iter().map(of_cell).collect())
}

/// A cell's line while the sweep runs.
fn outcome(record: &CellRecord) -> String {
    if let Some(reason) = record.failures.first() {
        return format!("failed: {reason}");
    }
    record.scores.first().map_or(String::new(), |score| {
        format!(
            "recall_at_1 {:.4} ({}, {}, {})",
            score.means.recall_at_1, score.gallery, score.mode, score.precision
        )
    })
}

fn as_json(out: &Path, sweep: &Sweep<'_>) -> serde_json::Value {
    let failures: Vec<_> = sweep
        .failures()
        .into_iter()
        .map(|(cell, reasons)| json!({ "cell": cell.to_string(), "reasons": reasons }))
        .collect();
    let spread = |spread: crate::sweep::table::Spread| json!({ "mean": spread.mean, "deviation": spread.deviation });
    let rows: Vec<_> = sweep
        .summaries()
        .into_iter()
        .map(|row| {
            json!({
                "student": row.student,
                "loss": row.loss,
                "gallery": row.ceiling.gallery,
                "mode": row.mode,
                "precision": row.precision,
                "n_seeds": row.n_seeds,
                "recall_at_1": spread(row.recall_at_1),
                "mean_average_precision_at_r": spread(row.mean_average_precision_at_r),
            })
        })
        .collect();
    json!({
        "schema": "eyas.sweep/1",
        "out": out.display().to_string(),
        "n_cells": sweep.cells.len(),
        "n_done": sweep.n_done(),
        "failures": failures,
        "teacher": sweep.ceilings,
        "rows": rows,
    })
}
