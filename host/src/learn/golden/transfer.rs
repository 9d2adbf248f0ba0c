//! Entries of losses that compare embeddings with a teacher's.

use tch::Tensor;

use super::{Case, Computed, Evaluated};
use crate::learn::distance::l2_normalize;
use crate::learn::loss;
use crate::recipe::loss::{
    ContextualSimilarity, DarkRank, DecoupledDifferential, RankOrder, References,
    RelaxedContrastive, RelaxedMultiSimilarity, SecondOrder,
};

/// Margin of the triplet loss that RC's authors add to DarkRank.
const DARK_RANK_TRIPLET_MARGIN: f64 = 0.2;

/// Sharpness of relaxed multi-similarity, which the authors' code fixes.
const RELAXED_ALPHA_BETA: (f64, f64) = (1.0, 2.0);

pub(super) fn evaluate(case: &Case<'_>) -> Evaluated {
    for family in [relational, absolute, neighbors, representation] {
        if let Some(computed) = family(case)? {
            return Ok(Some(computed));
        }
    }
    Ok(None)
}

fn pair<'a>(case: &'a Case<'_>) -> Result<(&'a Tensor, &'a Tensor), String> {
    Ok((case.tensor("student")?, case.tensor("teacher")?))
}

fn relational(case: &Case<'_>) -> Evaluated {
    let weighted_rkd = |distance: f64, angle: f64| {
        let (student, teacher) = pair(case)?;
        let relative = loss::rkd_distance(student, teacher) * distance;
        Ok::<_, String>(relative + loss::rkd_angle(student, teacher) * angle)
    };
    let value = match &*case.entry.cls {
        "Relaxed_Contra" => {
            let (student, teacher) = pair(case)?;
            let settings = RelaxedContrastive {
                sigma: case.number("sigma")?,
                delta: case.number("delta")?,
            };
            loss::relaxed_contrastive(student, teacher, settings)
        }
        "Relaxed_MS" => {
            let (student, teacher) = pair(case)?;
            let settings = RelaxedMultiSimilarity {
                sigma: case.number("sigma")?,
                delta: case.number("delta")?,
                alpha: RELAXED_ALPHA_BETA.0,
                beta: RELAXED_ALPHA_BETA.1,
            };
            loss::relaxed_multi_similarity(student, teacher, 2, &settings)
        }
        "RkdDistance" => weighted_rkd(1.0, 0.0)?,
        "RKdAngle" => weighted_rkd(0.0, 1.0)?,
        "RKdAD" => weighted_rkd(1.0, 2.0)?,
        "RKDLoss" => weighted_rkd(case.number("w_d")?, case.number("w_a")?)?,
        "1*RkdDistance+2*RKdAngle" => {
            weighted_rkd(case.number_or("dist", 1.0), case.number_or("angle", 2.0))?
        }
        "HardDarkRank" => dark_rank(case)?,
        "PKT" | "cosine_similarity_loss" => {
            let (student, teacher) = pair(case)?;
            loss::probabilistic_transfer(student, teacher)
        }
        "Similarity" => {
            let (student, teacher) = pair(case)?;
            loss::similarity_preserving(student, teacher)
        }
        "mean(norm(dis-dis_T))" => {
            let (student, teacher) = pair(case)?;
            loss::relative_teacher(student, teacher)
        }
        _ => return Ok(None),
    };
    Ok(Some(value.into()))
}

fn dark_rank(case: &Case<'_>) -> Result<Tensor, String> {
    let (student, teacher) = pair(case)?;
    let settings = DarkRank {
        alpha: case.number("alpha")?,
        beta: case.number("beta")?,
        n_ranked: case.number_or("permute_len", 4.0) as usize,
    };
    if case.entry.repo != "tjddus9597+LabelRelaxation-CVPR21" {
        return Ok(loss::dark_rank(student, teacher, &settings));
    }
    let student = l2_normalize(student);
    let ranked = loss::dark_rank(&student, &l2_normalize(teacher), &settings);
    Ok(ranked + all_triplets(&student, case.tensor("labels")?))
}

/// Mean over the triplets that violate the margin, of all triplets there are.
fn all_triplets(unit: &Tensor, labels: &Tensor) -> Tensor {
    let distances = crate::learn::distance::self_distances(unit);
    let same = labels.unsqueeze(0).eq_tensor(&labels.unsqueeze(1));
    let itself = distances.eq(0.0);
    let positive = same.logical_and(&itself.logical_not()).unsqueeze(2);
    let triplets = positive.logical_and(&same.logical_not().unsqueeze(1));
    let violation = distances.unsqueeze(2) - distances.unsqueeze(1) + DARK_RANK_TRIPLET_MARGIN;
    let violation = violation.clamp_min(0.0) * triplets.to_kind(unit.kind());
    let n_violating = violation.gt(0.0).sum(tch::Kind::Int64).clamp_min(1);
    violation.sum(unit.kind()) / n_violating
}

fn absolute(case: &Case<'_>) -> Evaluated {
    let second_order = |student: &Tensor, teacher: &Tensor| {
        let settings = SecondOrder {
            student_teacher: case.number("lam_1")?,
            student_student: case.number("lam_2")?,
        };
        Ok::<_, String>(loss::second_order(student, teacher, &settings))
    };
    let value = match &*case.entry.cls {
        "SecondOrderLoss" => {
            let (student, teacher) = pair(case)?;
            second_order(student, teacher)?
        }
        "RAML.SecondOrderLoss" => {
            let (student, teacher) = pair(case)?;
            second_order(&l2_normalize(student), &l2_normalize(teacher))?
        }
        "Correlation" => {
            let (student, teacher) = pair(case)?;
            loss::successive_differences(student, teacher)
        }
        "DistillKL" => {
            let (student, teacher) = pair(case)?;
            loss::distill(student, teacher, case.number("T")?)
        }
        "HintLoss" => {
            let (student, teacher) = pair(case)?;
            loss::hint(student, teacher)
        }
        "mean(F.pairwise_distance)" => {
            let (student, teacher) = pair(case)?;
            loss::absolute_teacher(student, teacher)
        }
        _ => return Ok(None),
    };
    Ok(Some(value.into()))
}

fn neighbors(case: &Case<'_>) -> Evaluated {
    let value = match &*case.entry.cls {
        "csd_loss" => {
            let (student, teacher) = pair(case)?;
            let settings = ContextualSimilarity {
                references: References::Batch,
                n_neighbors: case.number("top_k")? as usize,
                student_temperature: case.number("temp_student")?,
                teacher_temperature: case.number("temp_teacher")?,
            };
            loss::contextual_similarity(student, teacher, teacher, &settings)
        }
        "d3_loss" => {
            let (student, teacher) = pair(case)?;
            let settings = DecoupledDifferential {
                n_neighbors: case.number("topk")? as usize,
                alpha: case.number("alpha")?,
                beta: case.number("beta")?,
                gamma: case.number("gamma")?,
            };
            loss::decoupled_differential(student, teacher, &settings)
        }
        "rank_order_preservation" => {
            let (student, teacher) = pair(case)?;
            let settings = RankOrder {
                n_neighbors: case.number("topk")? as usize,
                temperature: case.number("temperature")?,
                rank_weight: case.number("rank_weight")?,
            };
            loss::rank_order(student, teacher, &settings)
        }
        "SSP.forward (loss part)" => {
            let (student, teacher) = pair(case)?;
            let codebook = case.tensor("centroids")?;
            loss::structure_similarity(student, teacher, codebook, case.number("scale")?)
        }
        _ => return Ok(None),
    };
    Ok(Some(value.into()))
}

/// Contrastive representation distillation, run for the entry's number of steps.
fn representation(case: &Case<'_>) -> Evaluated {
    if case.entry.cls != "CRDLoss" {
        return Ok(None);
    }
    let (student, teacher) = pair(case)?;
    let linear = |rows: &Tensor, weight: &str, bias: &str| {
        let (weight, bias) = (case.tensor(weight)?, case.tensor(bias)?);
        Ok::<_, String>(rows.linear(weight, Some(bias)))
    };
    let student = linear(student, "Ws", "bs")?;
    let teacher = linear(teacher, "Wt", "bt")?;
    let mut memories = loss::ImageMemories {
        student: case.tensor("m1")?.detach().copy(),
        teacher: case.tensor("m2")?.detach().copy(),
        scales: Tensor::zeros([2], (student.kind(), student.device())),
    };
    let drawn = loss::Drawn {
        own: case.tensor("idx")?,
        compared: case.tensor("cidx")?,
    };
    let (temperature, momentum) = (case.number("nce_t")?, case.number("nce_m")?);
    let mut loss = None;
    for _ in 0..case.number_or("steps", 1.0) as usize {
        loss = Some(memories.step(&student, &teacher, &drawn, temperature, momentum));
    }
    Ok(Some(Computed {
        loss: loss.ok_or("the entry has no steps")?,
        others: vec![
            ("Z1", memories.scales.narrow(0, 0, 1)),
            ("Z2", memories.scales.narrow(0, 1, 1)),
            ("mem1_after", memories.student),
            ("mem2_after", memories.teacher),
        ],
    }))
}
