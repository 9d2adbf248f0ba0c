//! Batches of whole tuples, as Budnik and Avrithis (CVPR 2021, AML) train: a query, a
//! positive and negatives, made anew for each epoch.

use serde::{Deserialize, Serialize};

use super::loss::{Loss, Mining, Positives, TupleReferences, Tuples};
use super::{Batch, Recipe, Trainee};

/// Far beyond any epoch, and an epoch's tuples are part of every checkpoint.
const MAX_TUPLES: usize = 1 << 20;

/// How the tuples of an epoch are made, and how many a step sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TupleBatch {
    /// Tuples of a step.
    pub tuples: usize,
    /// Tuples of an epoch, all different in their queries as far as images go.
    pub tuples_per_epoch: usize,
    /// What of a tuple the network in training embeds.
    pub student_sees: StudentSees,
    /// What is a positive; one is drawn for each tuple. With labels, negatives have other
    /// labels, each another one; with the teacher's nearest, labels are not asked. Listed pairs
    /// are drawn as pairs: each once before any comes again.
    pub positives: Positives,
    /// Negatives of a tuple.
    pub negatives: usize,
    /// How negatives are chosen.
    pub mining: EpochMining,
    /// Augmented views of each image.
    pub views: usize,
}

/// What of a tuple the network in training embeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StudentSees {
    /// All of it: rows are query, positive, negatives, tuple after tuple (symmetric).
    Tuples,
    /// The query; the teacher's embeddings stand for the rest (asymmetric).
    Queries,
}

/// How the negatives of an epoch's tuples are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum EpochMining {
    /// Drawn evenly.
    Random,
    /// Those nearest to the query, which the network in training embeds as it is when the
    /// epoch begins, without augmentation.
    Hard {
        /// Images drawn anew for each epoch among which negatives are looked for. Where
        /// they have too few labels, the rest is drawn from all images.
        pool: usize,
        /// Who embeds them.
        embedded_by: PoolEmbedder,
    },
}

/// Who embeds the pool of negatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolEmbedder {
    /// The teacher, once for all epochs.
    Teacher,
    /// The network in training, as it embeds the queries.
    Student,
}

impl TupleBatch {
    /// Images of a tuple.
    #[must_use]
    pub fn size(&self) -> usize {
        self.negatives.saturating_add(2)
    }

    /// Images of a step that the network in training embeds.
    #[must_use]
    pub fn images(&self) -> usize {
        self.tuples.saturating_mul(match self.student_sees {
            StudentSees::Tuples => self.size(),
            StudentSees::Queries => 1,
        })
    }

    /// Steps of an epoch.
    #[must_use]
    pub fn steps_per_epoch(&self) -> usize {
        self.tuples_per_epoch / self.tuples.max(1)
    }

    pub(super) fn fault(&self) -> Option<&'static str> {
        let pool = match self.mining {
            EpochMining::Random => 1,
            EpochMining::Hard { pool, .. } => pool,
        };
        let nearest = match self.positives {
            Positives::Label | Positives::Listed => 1,
            Positives::Teacher { nearest } => nearest,
        };
        super::loss::first_fault(&[
            (self.tuples > 0, "batch.tuples is 0"),
            (
                (1..=MAX_TUPLES).contains(&self.tuples_per_epoch),
                "batch.tuples_per_epoch is not 1 to 1048576",
            ),
            (
                self.tuples_per_epoch.is_multiple_of(self.tuples.max(1)),
                "batch.tuples_per_epoch is not a multiple of batch.tuples",
            ),
            (
                (1..=1024).contains(&self.negatives),
                "batch.negatives is not 1 to 1024",
            ),
            (
                (1..=1 << 20).contains(&pool),
                "batch.mining: pool is not 1 to 1048576",
            ),
            (
                (1..=1 << 20).contains(&nearest),
                "batch.positives: nearest is not 1 to 1048576",
            ),
        ])
    }

    fn needs_teacher(&self) -> Option<&'static str> {
        match (self.positives, self.mining, self.student_sees) {
            (Positives::Teacher { .. }, ..) => Some("positives are the teacher's nearest"),
            (
                _,
                EpochMining::Hard {
                    embedded_by: PoolEmbedder::Teacher,
                    ..
                },
                _,
            ) => Some("the teacher embeds the pool: let the student do it"),
            (.., StudentSees::Queries) => {
                Some("the teacher's embeddings stand for what student_sees leaves out")
            }
            _ => None,
        }
    }

    /// Why a loss over the batch's own tuples does not mean these.
    fn difference(&self, tuples: Tuples) -> Option<String> {
        if tuples.references == TupleReferences::Batch && self.student_sees == StudentSees::Queries
        {
            let what = "references is batch, but the student sees only the queries: set \
                        references to teacher or batch.student_sees to tuples";
            return Some(what.to_owned());
        }
        let mining = match self.mining {
            EpochMining::Random => Mining::Random,
            EpochMining::Hard { .. } => Mining::Hard,
        };
        let differs = |name: &str| {
            format!("tuples.{name} is not the same as in batch, whose tuples this loss takes")
        };
        if tuples.negatives != self.negatives {
            Some(differs("negatives"))
        } else if tuples.positives != self.positives {
            Some(differs("positives"))
        } else if tuples.mining != mining {
            Some(differs("mining"))
        } else {
            None
        }
    }
}

impl Recipe {
    /// What a batch of tuples and the rest of the recipe do not agree on.
    pub(super) fn tuples_fault(&self, trainee: Trainee) -> Option<String> {
        let Batch::Tuples(batch) = self.batch else {
            return self.listed_fault(None);
        };
        if let Some(fault) = self.listed_fault(Some(batch)) {
            return Some(fault);
        }
        if trainee == Trainee::Teacher
            && let Some(what) = batch.needs_teacher()
        {
            return Some(format!(
                "batch: a teacher is trained without one, but {what}"
            ));
        }
        self.loss.iter().find_map(|term| {
            let tuples = tuples_of(&term.loss)?;
            if matches!(tuples.references, TupleReferences::Gallery { .. }) {
                return None;
            }
            let what = batch.difference(tuples)?;
            Some(format!("{}: {what}", term.loss.kind()))
        })
    }
}

impl Recipe {
    /// A loss that would look for listed positives itself: only batches are made of them.
    fn listed_fault(&self, batch: Option<TupleBatch>) -> Option<String> {
        self.loss.iter().find_map(|term| {
            let tuples = tuples_of(&term.loss)?;
            let of_gallery = matches!(tuples.references, TupleReferences::Gallery { .. });
            let is_own = batch.is_none() || of_gallery;
            (is_own && tuples.positives == Positives::Listed).then(|| {
                format!(
                    "{}: tuples.positives is listed, which is for the tuples that a batch is \
                     made of: set batch.kind to tuples and tuples.references to batch or teacher",
                    term.loss.kind()
                )
            })
        })
    }
}

/// The tuples of a loss over tuples.
fn tuples_of(loss: &Loss) -> Option<Tuples> {
    match loss {
        Loss::TupleContrastive(loss) => Some(loss.tuples),
        Loss::TupleTriplet(loss) => Some(loss.tuples),
        Loss::TupleMultiSimilarity(loss) => Some(loss.tuples),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::example;

    const LOSS: &str = r#"loss = [{ kind = "tuple-contrastive", weight = 1.0, margin = 0.7, tuples = { references = "batch", positives = "label", mining = "hard", negatives = 5, own_teacher = true, reducer = "sum" } }]"#;

    const BATCH: &str = r#"batch = { kind = "tuples", tuples = 5, tuples_per_epoch = 2000, student_sees = "tuples", positives = "label", negatives = 5, mining = { hard = { pool = 20000, embedded_by = "teacher" } }, views = 1 }"#;

    /// The example with tuples, some of the text replaced.
    fn parse(trainee: Trainee, changes: &[(&str, &str)]) -> Result<Recipe, String> {
        let mut text: String = example()
            .resolved()
            .lines()
            .filter(|line| !line.starts_with("teacher_views"))
            .map(|line| format!("{line}\n"))
            .collect();
        let views = match trainee {
            Trainee::Teacher => "none",
            Trainee::Student => "cached",
        };
        for table in ["[batch]", "[[loss]]"] {
            let start = text.find(table).unwrap();
            let rest = &text[start + 1..];
            let end = rest.find("\n[").map_or(text.len(), |at| start + 1 + at);
            text.replace_range(start..end, "");
        }
        text = format!("{BATCH}\n{LOSS}\nteacher_views = \"{views}\"\n{text}");
        for (from, to) in changes {
            assert!(text.contains(from), "{from} is not in {text}");
            text = text.replace(from, to);
        }
        Recipe::parse(&text, "r.toml", trainee).map_err(|err| err.to_string())
    }

    #[test]
    fn the_epochs_of_the_authors_can_be_written() {
        let recipe = parse(Trainee::Student, &[]).unwrap();
        assert_eq!(recipe.batch.images(), 35);
        assert_eq!(recipe.batch.steps_per_epoch(100), 400);
        let again = Recipe::parse(&recipe.resolved(), "again", Trainee::Student).unwrap();
        assert_eq!(again, recipe);
        let asymmetric = [
            (r#"student_sees = "tuples""#, r#"student_sees = "queries""#),
            (r#"references = "batch""#, r#"references = "teacher""#),
        ];
        let recipe = parse(Trainee::Student, &asymmetric).unwrap();
        assert_eq!(recipe.batch.images(), 5);
        let random = [
            (
                r#"{ hard = { pool = 20000, embedded_by = "teacher" } }"#,
                r#""random""#,
            ),
            (r#"mining = "hard""#, r#"mining = "random""#),
        ];
        parse(Trainee::Student, &random).unwrap();
        let alone = [
            (r#"embedded_by = "teacher""#, r#"embedded_by = "student""#),
            ("own_teacher = true", "own_teacher = false"),
        ];
        parse(Trainee::Teacher, &alone).unwrap();
    }

    #[test]
    fn what_a_batch_of_tuples_can_not_be_is_named() {
        let complaint = |from: &str, to: &str| parse(Trainee::Student, &[(from, to)]).unwrap_err();
        assert!(complaint("tuples = 5", "tuples = 0").contains("batch.tuples is 0"));
        assert!(complaint("epoch = 2000", "epoch = 2001").contains("not a multiple"));
        assert!(complaint("epoch = 2000", "epoch = 0").contains("tuples_per_epoch"));
        assert!(complaint("pool = 20000", "pool = 0").contains("pool"));
        assert!(complaint("pool = 20000", "pol = 20000").contains("unknown field `pol`"));
        assert!(complaint("views = 1", "views = 0").contains("1 view"));
        let nearest = complaint(
            r#"positives = "label""#,
            "positives = { teacher = { nearest = 0 } }",
        );
        assert!(nearest.contains("nearest"), "{nearest}");
    }

    #[test]
    fn a_loss_over_the_batchs_tuples_says_what_they_are() {
        let complaint = |from: &str, to: &str| parse(Trainee::Student, &[(from, to)]).unwrap_err();
        let negatives = complaint("negatives = 5, own", "negatives = 4, own");
        assert!(
            negatives.contains("tuple-contrastive: tuples.negatives"),
            "{negatives}"
        );
        let mining = complaint(r#"mining = "hard""#, r#"mining = "random""#);
        assert!(mining.contains("tuples.mining"), "{mining}");
        let positives = complaint(
            r#"positives = "label", mining"#,
            r#"positives = { teacher = { nearest = 3 } }, mining"#,
        );
        assert!(positives.contains("tuples.positives"), "{positives}");
        let queries = complaint(r#"student_sees = "tuples""#, r#"student_sees = "queries""#);
        assert!(queries.contains("sees only the queries"), "{queries}");
        // Tuples of its own, from the gallery.
        let gallery = [
            (
                r#"references = "batch""#,
                "references = { gallery = { pool = 9 } }",
            ),
            ("negatives = 5, own", "negatives = 4, own"),
        ];
        parse(Trainee::Student, &gallery).unwrap();
    }

    #[test]
    fn listed_positives_are_for_the_tuples_of_a_batch() {
        let label = r#"positives = "label""#;
        let listed = (label, r#"positives = "listed""#);
        // All of them: the batch's and the loss's.
        assert!(
            parse(Trainee::Student, &[listed])
                .unwrap()
                .needs_listed_pairs()
        );
        let gallery = (
            r#"references = "batch""#,
            "references = { gallery = { pool = 9 } }",
        );
        let fault = parse(Trainee::Student, &[listed, gallery]).unwrap_err();
        assert!(
            fault.contains("tuple-contrastive: tuples.positives is listed"),
            "{fault}"
        );
        let shuffled = (
            BATCH,
            r#"batch = { kind = "shuffled", images = 8, views = 1 }"#,
        );
        let fault = parse(Trainee::Student, &[shuffled, listed]).unwrap_err();
        assert!(fault.contains("set batch.kind to tuples"), "{fault}");
        assert!(!parse(Trainee::Student, &[]).unwrap().needs_listed_pairs());
    }

    #[test]
    fn tuples_that_need_a_teacher_do_not_train_one() {
        let own = ("own_teacher = true", "own_teacher = false");
        let complaint = |changes: &[(&str, &str)]| {
            parse(Trainee::Teacher, &[&[own], changes].concat()).unwrap_err()
        };
        let pool = complaint(&[]);
        assert!(pool.contains("let the student do it"), "{pool}");
        let by_student = (r#"embedded_by = "teacher""#, r#"embedded_by = "student""#);
        let queries = (r#"student_sees = "tuples""#, r#"student_sees = "queries""#);
        assert!(complaint(&[by_student, queries]).contains("student_sees"));
        // Of the batch; the loss keeps its labels.
        let nearest = (
            r#""tuples", positives = "label""#,
            r#""tuples", positives = { teacher = { nearest = 3 } }"#,
        );
        assert!(complaint(&[by_student, nearest]).contains("nearest"));
    }
}
