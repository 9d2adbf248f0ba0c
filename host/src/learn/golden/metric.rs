//! Entries of losses that learn from labels.

use eyas_shared::random::Random;
use tch::{Kind, Tensor};

use super::{Case, Evaluated};
use crate::learn::distance::l2_normalize;
use crate::learn::loss::{
    Comparison, TupleRows, circle, contrastive, cosine_contrastive, generalized_lifted, lifted,
    margin, multi_similarity, n_pair, nt_xent, proxy_anchor, proxy_nca, shifted_normalize,
    soft_triple, triplet, tuple_contrastive, tuple_distance_regression, tuple_multi_similarity,
    tuple_triplet, tuplet_margin,
};
use crate::recipe::loss::{
    Circle, Contrastive, CosineContrastive, Distance, GeneralizedLifted, Lifted, Margin, Memory,
    Miner, Mining, MultiSimilarity, NPair, NtXent, OneSided, PairReferences, Pairs, Positives,
    ProxyAnchor, ProxyNca, Reducer, Similarity, SoftTriple, Triplet, TupleContrastive,
    TupleMultiSimilarity, TupleReferences, TupleTriplet, Tuples, TupletMargin,
};

pub(super) fn evaluate(case: &Case<'_>) -> Evaluated {
    let repo = case.entry.repo.as_str();
    let loss = match repo.split_once('+').map_or(repo, |(owner, _)| owner) {
        _ if repo.starts_with("pytorch-metric-learning") => of_pytorch_metric_learning(case)?,
        "tjddus9597" => of_label_relaxation(case)?,
        "lenscloth" => of_relational_knowledge(case)?,
        "budnikm" => of_asymmetric_metric_learning(case)?,
        "idstcv" | "dichotomies" | "msight-tech" => of_authors(case)?,
        _ => None,
    };
    Ok(loss.map(Into::into))
}

type Found = Result<Option<Tensor>, String>;

/// A value that no formula here asks for.
const NOT_ASKED: f64 = 1.0;

fn anything() -> Random {
    Random::new(0)
}

/// What is compared does not depend on it: entries bring their own references.
fn pairs(miner: Miner, reducer: Reducer) -> Pairs {
    Pairs {
        references: PairReferences::Batch,
        miner,
        reducer,
    }
}

impl Case<'_> {
    /// An argument that is written like `name=VALUE` within the text of another.
    fn number_within(&self, argument: &str, name: &str, default: f64) -> Result<f64, String> {
        let text = self.text(argument);
        let Some((_, value)) = text.split_once(&format!("{name}=")) else {
            return Ok(default);
        };
        let value = value.split([',', ')']).next().unwrap_or_default().trim();
        let number = value.parse();
        number.map_err(|_| format!("`{name}` in `{text}` is not a number"))
    }

    fn text(&self, argument: &str) -> &str {
        let value = self.entry.args.get(argument);
        value
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default()
    }

    /// The batch with itself, or with the teacher's embeddings where the entry has them.
    fn comparison(&self) -> Result<Comparison, String> {
        let (student, labels) = (self.tensor("student")?, self.tensor("labels")?);
        Ok(match self.tensor("teacher") {
            Ok(teacher) => Comparison::with_teacher(student, teacher, labels),
            Err(_) => Comparison::within(student, labels),
        })
    }

    /// The miner that pytorch-metric-learning calls so.
    fn miner(&self) -> Result<Miner, String> {
        let text = self.text("miner");
        Ok(match text.split('(').next().unwrap_or_default() {
            "" => Miner::All,
            "BatchHardMiner" => Miner::BatchHard,
            "MultiSimilarityMiner" => Miner::MultiSimilarity {
                epsilon: self.number_within("miner", "epsilon", 0.1)?,
            },
            "TripletMarginMiner" if text.contains("semihard") => Miner::SemiHard {
                margin: self.number_within("miner", "margin", 0.2)?,
            },
            _ => return Err(format!("the miner `{text}` is not known")),
        })
    }
}

fn of_pytorch_metric_learning(case: &Case<'_>) -> Found {
    let class = case.entry.cls.split(['+', ' ', '(']).next();
    match class.unwrap_or_default() {
        "ProxyAnchorLoss" => anchored(case, "margin").map(Some),
        "ProxyNCALoss" => Ok(Some(proxy_nca(
            case.tensor("student")?,
            case.tensor("labels")?,
            case.tensor("proxies")?,
            &ProxyNca {
                softmax_scale: case.number_or("softmax_scale", 1.0),
                embedding_length: 1.0,
                proxy_length: 1.0,
                smoothing: 0.0,
                proxy_rate_factor: NOT_ASKED,
            },
        ))),
        "SoftTripleLoss" => softly(case, "centers_per_class").map(Some),
        "CrossBatchMemory" => with_memory(case).map(Some),
        class if class.ends_with("Loss") => compared(case, class),
        _ => Ok(None),
    }
}

/// Losses over pairs and triplets of pytorch-metric-learning.
fn compared(case: &Case<'_>, class: &str) -> Found {
    let miner = case.miner()?;
    let number = |name, default| case.number_or(name, default);
    let mean = pairs(miner, Reducer::Mean);
    let above_zero = pairs(miner, Reducer::MeanOfNonZero);
    let distance = Distance::Euclidean;
    let random = &mut anything();
    let mut comparison = case.comparison()?;
    let compared = &mut comparison;
    let (positive_margin, negative_margin) = (number("pos_margin", 0.0), number("neg_margin", 1.0));
    Ok(Some(match class {
        "ContrastiveLoss" => {
            let settings = Contrastive {
                positive_margin,
                negative_margin,
                distance,
                pairs: above_zero,
            };
            contrastive(compared, &settings, random)
        }
        "TripletMarginLoss" => {
            let settings = Triplet {
                margin: number("margin", 0.05),
                distance,
                pairs: above_zero,
            };
            triplet(compared, &settings, random)
        }
        "MarginLoss" => {
            let settings = Margin {
                margin: number("margin", 0.2),
                boundary: number("beta", 1.2),
                distance,
                pairs: mean,
            };
            margin(compared, &settings, random)
        }
        "LiftedStructureLoss" => {
            let settings = Lifted {
                positive_margin,
                negative_margin,
                distance,
                pairs: mean,
            };
            lifted(compared, &settings, random)
        }
        "GeneralizedLiftedStructureLoss" => {
            let settings = GeneralizedLifted {
                positive_margin,
                negative_margin,
                distance,
                pairs: mean,
            };
            generalized_lifted(compared, &settings, random)
        }
        _ => return by_cosine(case, class, compared, mean),
    }))
}

/// Losses of pytorch-metric-learning that rate cosines.
fn by_cosine(case: &Case<'_>, class: &str, compared: &mut Comparison, mean: Pairs) -> Found {
    let number = |name, default| case.number_or(name, default);
    let random = &mut anything();
    Ok(Some(match class {
        "MultiSimilarityLoss" => {
            let settings = MultiSimilarity {
                alpha: number("alpha", 2.0),
                beta: number("beta", 50.0),
                base: number("base", 0.5),
                one_sided: OneSided::Kept,
                pairs: mean,
            };
            multi_similarity(compared, &settings, random)
        }
        "NTXentLoss" => {
            let settings = NtXent {
                temperature: number("temperature", 0.07),
                pairs: mean,
            };
            nt_xent(compared, &settings, random)
        }
        "TupletMarginLoss" => {
            let settings = TupletMargin {
                margin_degrees: number("margin", 5.73),
                scale: number("scale", 64.0),
                pairs: mean,
            };
            tuplet_margin(compared, &settings, random)
        }
        "CircleLoss" => {
            let settings = Circle {
                m: number("m", 0.4),
                gamma: number("gamma", 80.0),
                pairs: pairs(mean.miner, Reducer::MeanOfNonZero),
            };
            circle(compared, &settings, random)
        }
        "NPairsLoss" => {
            let is_raw = case.text("distance").contains("normalize_embeddings=False");
            let settings = NPair {
                similarity: if is_raw {
                    Similarity::Dot
                } else {
                    Similarity::Cosine
                },
                references: PairReferences::Batch,
            };
            n_pair(compared, &settings)
        }
        _ => return Ok(None),
    }))
}

/// A memory that holds its first rows and then the batch, which is not compared with
/// itself.
fn with_memory(case: &Case<'_>) -> Result<Tensor, String> {
    let (student, labels) = (case.tensor("student")?, case.tensor("labels")?);
    let (old, old_labels) = (case.tensor("mem")?, case.tensor("mem_labels")?);
    let n_rows = student.size()[0];
    let own = Tensor::eye(n_rows, (Kind::Bool, student.device()));
    let left_out = own.constant_pad_nd([old.size()[0], 0]);
    let memory = Tensor::cat(&[old.shallow_clone(), student.detach()], 0);
    let memory_labels = Tensor::cat(&[old_labels, labels], 0);
    let comparison = Comparison::with(student, labels, &memory, &memory_labels, Some(&left_out));
    let class = &case.entry.cls;
    let margin_in_class = class
        .split_once("neg_margin=")
        .and_then(|(_, text)| text.split([',', ')']).next()?.parse().ok());
    let settings = Contrastive {
        positive_margin: 0.0,
        negative_margin: margin_in_class.unwrap_or(case.number_or("neg_margin", 1.0)),
        distance: Distance::Euclidean,
        pairs: pairs(Miner::All, Reducer::MeanOfNonZero),
    };
    Ok(contrastive(&comparison, &settings, &mut anything()))
}

fn anchored(case: &Case<'_>, margin: &str) -> Result<Tensor, String> {
    let settings = ProxyAnchor {
        alpha: case.number("alpha")?,
        margin: case.number(margin)?,
        proxy_rate_factor: NOT_ASKED,
    };
    let (student, labels) = (case.tensor("student")?, case.tensor("labels")?);
    Ok(proxy_anchor(
        student,
        labels,
        case.tensor("proxies")?,
        settings,
    ))
}

/// Centers come as D x (C * K).
fn softly(case: &Case<'_>, centers: &str) -> Result<Tensor, String> {
    let settings = SoftTriple {
        centers: case.number(centers)? as usize,
        lambda: case.number("la")?,
        gamma: case.number("gamma")?,
        margin: case.number("margin")?,
        tau: case.number_or("tau", 0.0),
        proxy_rate_factor: NOT_ASKED,
    };
    let (student, labels) = (case.tensor("student")?, case.tensor("labels")?);
    let centers = case.tensor("centers")?.transpose(0, 1);
    Ok(soft_triple(student, labels, &centers, &settings))
}

fn of_label_relaxation(case: &Case<'_>) -> Found {
    match case.entry.cls.rsplit('.').next().unwrap_or_default() {
        "Proxy_Anchor" => anchored(case, "mrg").map(Some),
        // Its miner asks for triplets of a kind that its library takes for all.
        "TripletLoss" => compared(case, "TripletMarginLoss"),
        _ => Ok(None),
    }
}

fn of_relational_knowledge(case: &Case<'_>) -> Found {
    let Some((_, sampler)) = case.entry.cls.split_once("L2Triplet(sampler=") else {
        return Ok(None);
    };
    let miner = match sampler {
        "HardNegative)" => Miner::NearestNegative,
        "SemiHardNegative)" => Miner::NextNegative,
        "AllPairs)" => Miner::All,
        _ => return Ok(None),
    };
    let settings = Triplet {
        margin: case.number("margin")?,
        distance: Distance::ShiftedEuclidean,
        pairs: pairs(miner, Reducer::Mean),
    };
    let comparison = case.comparison()?.of_unit_vectors();
    Ok(Some(triplet(&comparison, &settings, &mut anything())))
}

/// Single losses of their own repositories.
fn of_authors(case: &Case<'_>) -> Found {
    let class = case.entry.cls.split(' ').next();
    Ok(Some(match class.unwrap_or_default() {
        "SoftTriple" => softly(case, "K")?,
        "ProxyNCA" => {
            let settings = ProxyNca {
                softmax_scale: 1.0,
                embedding_length: case.number("scaling_x")?,
                proxy_length: case.number("scaling_p")?,
                smoothing: case.number("smoothing_const")?,
                proxy_rate_factor: NOT_ASKED,
            };
            let (student, labels) = (case.tensor("student")?, case.tensor("labels")?);
            proxy_nca(student, labels, case.tensor("proxies")?, &settings)
        }
        "ContrastiveLoss" => {
            // Its network gives unit vectors; a memory is filled with them.
            let (student, labels) = (
                l2_normalize(case.tensor("student")?),
                case.tensor("labels")?,
            );
            let (memory, memory_labels) = (case.tensor("mem")?, case.tensor("mem_labels")?);
            let comparison =
                Comparison::with(&student, labels, memory, memory_labels, None).of_unit_vectors();
            let settings = CosineContrastive {
                margin: case.number("margin")?,
                references: PairReferences::Memory(Memory {
                    size: 1,
                    start_step: 0,
                }),
            };
            cosine_contrastive(&comparison, &settings)
        }
        "MultiSimilarityLoss" => {
            let epsilon = case.number("margin")?;
            let settings = MultiSimilarity {
                alpha: case.number("scale_pos")?,
                beta: case.number("scale_neg")?,
                base: case.number("thresh")?,
                one_sided: OneSided::LeftOut,
                pairs: pairs(Miner::MultiSimilarity { epsilon }, Reducer::Mean),
            };
            multi_similarity(&mut case.comparison()?, &settings, &mut anything())
        }
        _ => return Ok(None),
    }))
}

/// Tuples come as columns side by side; modes differ in the number of positives.
fn of_asymmetric_metric_learning(case: &Case<'_>) -> Found {
    let Ok(columns) = case.tensor("x") else {
        return Ok(None);
    };
    let n_tuples = case.number_or("tuples", 1.0) as i64;
    let n_positives = if case.text("mode") == "ts_self" { 2 } else { 1 };
    let columns_of = |columns| TupleRows::from_columns(columns, n_tuples, n_positives);
    let tuples = Tuples {
        references: TupleReferences::Batch,
        positives: Positives::Label,
        mining: Mining::Hard,
        negatives: 5,
        own_teacher: false,
        reducer: Reducer::Sum,
    };
    let kind = columns.kind();
    Ok(Some(match &*case.entry.cls {
        "ContrastiveLoss" => {
            let margin = case.number_or("margin", 0.7);
            tuple_contrastive(&columns_of(columns), &TupleContrastive { margin, tuples }).sum(kind)
        }
        "TripletLoss" => {
            let margin = case.number_or("margin", 0.1);
            tuple_triplet(&columns_of(columns), &TupleTriplet { margin, tuples }).sum(kind)
        }
        "MultiSimilarityLoss" => {
            let settings = TupleMultiSimilarity {
                alpha: case.number("scale_pos")?,
                beta: case.number("scale_neg")?,
                base: case.number("thresh")?,
                tuples,
            };
            tuple_multi_similarity(&columns_of(columns), &settings).sum(kind)
        }
        "contrastive_loss_dist" => {
            let wanted = case
                .entry
                .args
                .get("dists")
                .and_then(serde_json::Value::as_array);
            let wanted: Vec<f64> = wanted
                .into_iter()
                .flatten()
                .filter_map(serde_json::Value::as_f64)
                .collect();
            let wanted = Tensor::from_slice(&wanted).to_kind(kind);
            tuple_distance_regression(&columns_of(columns), &wanted).sum(kind)
        }
        class if class.starts_with("functional.l2n") => {
            (shifted_normalize(columns) * case.tensor("w")?).sum(kind)
        }
        _ => return Ok(None),
    }))
}
