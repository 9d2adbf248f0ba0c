//! Means over seeds, as Markdown and CSV. Pure functions of the records: no clock, and the
//! same bytes whatever the order in which the cells were run.

use eyas_shared::bundle::Precision;

use super::file::{Cell, SweepFile};
use super::record::{Ceiling, CellRecord, Means, Mode, Score};

const MODES: [Mode; 2] = [Mode::Asymmetric, Mode::Symmetric];

/// A sweep as far as it has come.
pub struct Sweep<'a> {
    /// What was asked for.
    pub file: &'a SweepFile,
    /// Name of the teacher.
    pub teacher: &'a str,
    /// All cells.
    pub cells: &'a [Cell],
    /// What came of each; none if it was not run yet.
    pub records: &'a [Option<CellRecord>],
    /// The teacher's own score in each gallery.
    pub ceilings: &'a [Ceiling],
}

/// A mean with the sample standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// With n - 1 in the denominator; none for a single value.
    pub deviation: Option<f64>,
}

/// A student with a loss in one gallery, mode and precision, over the seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary<'a> {
    /// Name of the student.
    pub student: &'a str,
    /// Name of the loss.
    pub loss: &'a str,
    /// The gallery, and the teacher's score in it.
    pub ceiling: &'a Ceiling,
    /// Who embedded the gallery.
    pub mode: Mode,
    /// How the bundle stores its weights.
    pub precision: Precision,
    /// Trainings that were scored.
    pub n_seeds: usize,
    /// recall_at_1.
    pub recall_at_1: Spread,
    /// mean_average_precision_at_r.
    pub mean_average_precision_at_r: Spread,
}

impl Spread {
    /// Of some values; none if there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares = || values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
        (!values.is_empty()).then(|| Self {
            mean,
            deviation: (values.len() > 1).then(|| (squares() / (n - 1.0)).sqrt()),
        })
    }
}

impl<'a> Sweep<'a> {
    /// Number of cells without anything left to do.
    #[must_use]
    pub fn n_done(&self) -> usize {
        let records = self.records.iter().flatten();
        records.filter(|record| record.is_done()).count()
    }

    /// Cells that failed, with the reasons.
    #[must_use]
    pub fn failures(&self) -> Vec<(&'a Cell, &'a [String])> {
        let pairs = self.cells.iter().zip(self.records);
        pairs
            .filter_map(|(cell, record)| Some((cell, record.as_ref()?)))
            .filter(|(_, record)| !record.is_done())
            .map(|(cell, record)| (cell, &record.failures[..]))
            .collect()
    }

    fn scores_of(
        &self,
        student: &'a str,
        loss: &'a str,
    ) -> impl Iterator<Item = &'a Score> + use<'a> {
        let records: &'a [Option<CellRecord>] = self.records;
        records
            .iter()
            .flatten()
            .filter(move |record| record.student == student && record.loss == loss)
            .flat_map(|record| &record.scores)
    }

    fn summary(
        &self,
        (student, loss): (&'a str, &'a str),
        ceiling: &'a Ceiling,
        mode: Mode,
        precision: Precision,
    ) -> Option<Summary<'a>> {
        let means: Vec<&Means> = self
            .scores_of(student, loss)
            .filter(|score| score.gallery == ceiling.gallery)
            .filter(|score| score.mode == mode && score.precision == precision)
            .map(|score| &score.means)
            .collect();
        let spread = |of: fn(&Means) -> f64| {
            let values: Vec<f64> = means.iter().map(|means| of(means)).collect();
            Spread::of(&values)
        };
        Some(Summary {
            student,
            loss,
            ceiling,
            mode,
            precision,
            n_seeds: means.len(),
            recall_at_1: spread(|means| means.recall_at_1)?,
            mean_average_precision_at_r: spread(|means| means.mean_average_precision_at_r)?,
        })
    }

    /// Students with losses, in the order of the file.
    fn pairs(&self) -> Vec<(&'a str, &'a str)> {
        let file: &'a SweepFile = self.file;
        let students = file.students.iter();
        students
            .flat_map(|student| {
                let losses = file.losses.iter();
                losses.map(|loss| (&*student.name, &*loss.name))
            })
            .collect()
    }

    /// All that has been scored, in the order of the file.
    #[must_use]
    pub fn summaries(&self) -> Vec<Summary<'a>> {
        let mut summaries = Vec::new();
        for pair in self.pairs() {
            for ceiling in self.ceilings {
                for mode in MODES {
                    let precisions = self.file.precisions.iter();
                    summaries.extend(
                        precisions
                            .filter_map(|&precision| self.summary(pair, ceiling, mode, precision)),
                    );
                }
            }
        }
        summaries
    }

    /// `table.md`: for each gallery and metric one table, a line for each student and loss.
    #[must_use]
    pub fn markdown(&self) -> String {
        let failures = self.failures();
        let mut text = format!(
            "# Sweep\n\n{} of {} cells are done, {} failed.\n\
             Teacher: {}. Trained on the split `{}`.\n\
             Means over the seeds, ± the sample standard deviation; in parentheses the share of \
             the teacher's own score.\n\
             Asymmetric: the teacher embedded the gallery. Symmetric: the student did. \
             Gallery rows are stored in f16.\n",
            self.n_done(),
            self.cells.len(),
            failures.len(),
            self.teacher,
            self.file.split,
        );
        for ceiling in self.ceilings {
            text += &format!(
                "\n## {}: {} images, {} queries\n",
                ceiling.gallery, ceiling.n_gallery, ceiling.n_queries
            );
            let recall = Metric {
                name: "recall_at_1",
                ceiling: ceiling.means.recall_at_1,
                of: |summary| summary.recall_at_1,
            };
            let precision = Metric {
                name: "mean_average_precision_at_r",
                ceiling: ceiling.means.mean_average_precision_at_r,
                of: |summary| summary.mean_average_precision_at_r,
            };
            text += &self.metric_table(ceiling, &recall);
            text += &self.metric_table(ceiling, &precision);
        }
        if !failures.is_empty() {
            text += "\n## Failed\n\n";
        }
        for (cell, reasons) in failures {
            for reason in reasons {
                text += &format!("- {cell}: {}\n", one_line(reason));
            }
        }
        text
    }

    fn metric_table(&self, ceiling: &'a Ceiling, metric: &Metric) -> String {
        let mut text = format!(
            "\n{}; the teacher's own: {:.4}\n\n| student | loss | seeds |",
            metric.name, metric.ceiling
        );
        let columns: Vec<(Mode, Precision)> = MODES
            .iter()
            .flat_map(|&mode| self.file.precisions.iter().map(move |&p| (mode, p)))
            .collect();
        for (mode, precision) in &columns {
            text += &format!(" {mode} {precision} |");
        }
        text += "\n|---|---|---:|";
        text += &"---|".repeat(columns.len());
        text += "\n";
        for pair in self.pairs() {
            let found: Vec<Option<Summary<'_>>> = columns
                .iter()
                .map(|&(mode, precision)| self.summary(pair, ceiling, mode, precision))
                .collect();
            let n_seeds = found.iter().flatten().map(|summary| summary.n_seeds).max();
            text += &format!("| {} | {} | {} |", pair.0, pair.1, n_seeds.unwrap_or(0));
            for summary in &found {
                text += &format!(" {} |", metric.shown(summary.as_ref()));
            }
            text += "\n";
        }
        text
    }

    /// `table.csv`: a line for each student, loss, gallery, mode and precision.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = "student,loss,gallery,mode,precision,n_seeds,n_queries,n_gallery,\
                        recall_at_1_mean,recall_at_1_deviation,recall_at_1_of_teacher,\
                        teacher_recall_at_1,mean_average_precision_at_r_mean,\
                        mean_average_precision_at_r_deviation,\
                        mean_average_precision_at_r_of_teacher,\
                        teacher_mean_average_precision_at_r\n"
            .to_owned();
        for summary in self.summaries() {
            let ceiling = summary.ceiling;
            text += &format!(
                "{},{},{},{},{},{},{},{}",
                summary.student,
                summary.loss,
                ceiling.gallery,
                summary.mode,
                summary.precision,
                summary.n_seeds,
                ceiling.n_queries,
                ceiling.n_gallery
            );
            let teacher = ceiling.means;
            for (spread, whole) in [
                (summary.recall_at_1, teacher.recall_at_1),
                (
                    summary.mean_average_precision_at_r,
                    teacher.mean_average_precision_at_r,
                ),
            ] {
                text += &format!(
                    ",{:.4},{},{},{whole:.4}",
                    spread.mean,
                    decimals(spread.deviation),
                    decimals(share(spread.mean, whole)),
                );
            }
            text += "\n";
        }
        text
    }

    /// `cells.csv`: a line for each score of each cell.
    #[must_use]
    pub fn cells_csv(&self) -> String {
        let mut text = "student,loss,seed,precision,gallery,mode,n_queries,n_gallery,\
                        recall_at_1,recall_at_5,recall_at_10,mean_average_precision_at_r,\
                        teacher_recall_at_1,recall_at_1_of_teacher,\
                        bundle_bytes,n_parameters,multiply_adds\n"
            .to_owned();
        for record in self.records.iter().flatten() {
            for score in &record.scores {
                text += &self.cell_line(record, score);
            }
        }
        text
    }

    fn cell_line(&self, record: &CellRecord, score: &Score) -> String {
        let mut ceilings = self.ceilings.iter();
        let Some(ceiling) = ceilings.find(|ceiling| ceiling.gallery == score.gallery) else {
            return String::new();
        };
        let whole = ceiling.means.recall_at_1;
        format!(
            "{},{},{},{},{},{},{},{},{:.4},{:.4},{:.4},{:.4},{whole:.4},{},{},{},{}\n",
            record.student,
            record.loss,
            record.seed,
            score.precision,
            score.gallery,
            score.mode,
            ceiling.n_queries,
            ceiling.n_gallery,
            score.means.recall_at_1,
            score.means.recall_at_5,
            score.means.recall_at_10,
            score.means.mean_average_precision_at_r,
            decimals(share(score.means.recall_at_1, whole)),
            score.bundle_bytes,
            record.n_parameters,
            record.multiply_adds,
        )
    }
}

/// A column group of `table.md`.
struct Metric {
    name: &'static str,
    ceiling: f64,
    of: fn(&Summary<'_>) -> Spread,
}

impl Metric {
    fn shown(&self, summary: Option<&Summary<'_>>) -> String {
        let Some(summary) = summary else {
            return String::new();
        };
        let Spread { mean, deviation } = (self.of)(summary);
        let mut text = format!("{mean:.4}");
        if let Some(deviation) = deviation {
            text += &format!(" ± {deviation:.4}");
        }
        if let Some(share) = share(mean, self.ceiling) {
            text += &format!(" ({share:.3})");
        }
        text
    }
}

/// Part of the teacher's own score; none if that is 0.
fn share(score: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| score / whole)
}

/// Empty if there is no value.
fn decimals(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| format!("{value:.4}"))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_the_sample_standard_deviation() {
        let spread = Spread::of(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!((spread.mean, spread.deviation), (2.0, Some(1.0)));
        assert_eq!(Spread::of(&[0.5]).unwrap().deviation, None);
        assert_eq!(Spread::of(&[]), None);
    }

    const FILE: &str = r#"
        data = "d"
        split = "train"
        teacher = "t"
        cache = "c"
        out = "o"
        seeds = [1, 2]
        precisions = ["f16"]
        galleries = [{ name = "g" }]
        students = [{ name = "s", recipe = "r.toml" }]
        losses = [
            { name = "a", loss = [], map = { kind = "none" } },
            { name = "b", loss = [], map = { kind = "none" } },
        ]
    "#;

    fn means(recall_at_1: f64) -> Means {
        Means {
            recall_at_1,
            recall_at_5: 1.0,
            recall_at_10: 1.0,
            mean_average_precision_at_r: recall_at_1 / 2.0,
        }
    }

    fn record(seed: u64, recall_at_1: f64) -> CellRecord {
        let json = serde_json::json!({
            "schema": "eyas.cell/1", "fingerprint": "", "student": "s", "loss": "a",
            "seed": seed, "n_parameters": 7, "multiply_adds": 9, "failures": [],
            "scores": [{
                "gallery": "g", "mode": "asymmetric", "precision": "f16",
                "bundle_bytes": 5, "means": means(recall_at_1),
            }],
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn tables_hold_mean_spread_and_share_of_the_teacher() {
        let file: SweepFile = toml::from_str(FILE).unwrap();
        let sweep = Sweep {
            file: &file,
            teacher: "big",
            cells: &[],
            records: &[Some(record(1, 0.4)), None, Some(record(2, 0.6)), None],
            ceilings: &[Ceiling {
                gallery: "g".to_owned(),
                n_queries: 10,
                n_gallery: 20,
                means: means(0.8),
            }],
        };
        let markdown = sweep.markdown();
        let whole = "| s | a | 2 | 0.5000 ± 0.1414 (0.625) |  |\n| s | b | 0 |  |  |\n";
        assert!(markdown.contains(whole), "{markdown}");
        let line = "\ns,a,g,asymmetric,f16,2,10,20,0.5000,0.1414,0.6250,0.8000,\
                    0.2500,0.0707,0.6250,0.4000\n";
        assert!(sweep.csv().ends_with(line), "{}", sweep.csv());
        let line = "\ns,a,2,f16,g,asymmetric,10,20,0.6000,1.0000,1.0000,0.3000,\
                    0.8000,0.7500,5,7,9\n";
        assert!(sweep.cells_csv().ends_with(line), "{}", sweep.cells_csv());
        for table in [sweep.csv(), sweep.cells_csv()] {
            let mut widths = table.lines().map(|line| line.split(',').count());
            let head = widths.next();
            assert!(widths.all(|width| Some(width) == head), "{table}");
        }
    }
}
