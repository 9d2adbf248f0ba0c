//! Entries of losses that compare feature maps, and of pooling.

use tch::Kind;

use super::{Case, Computed, Evaluated};
use crate::learn::loss::{self, Flow, Regressor};
use crate::learn::network::gem;

pub(super) fn evaluate(case: &Case<'_>) -> Evaluated {
    let pair = || Ok::<_, String>((case.tensor("student")?, case.tensor("teacher")?));
    let value = match &*case.entry.cls {
        "KD_losses.FitNet" => {
            let (student, teacher) = pair()?;
            loss::feature_hint(student, teacher, case.tensor("w")?)
        }
        "KD_losses.AttentionTransfer" | "Attention" => {
            let (student, teacher) = pair()?;
            loss::attention_transfer(student, teacher, case.number_or("p", 2.0))
        }
        "FactorTransfer" => {
            let (student, teacher) = pair()?;
            let (p1, p2) = (case.number_or("p1", 2.0), case.number_or("p2", 1.0));
            loss::factor_transfer(student, teacher, p1, p2)
        }
        "NSTLoss" => {
            let (student, teacher) = pair()?;
            loss::neuron_selectivity(student, teacher)
        }
        "FSP" => {
            let flow = |from: &str, to: &str| {
                let (from, to) = (case.tensor(from)?, case.tensor(to)?);
                Ok::<_, String>(Flow { from, to })
            };
            loss::solution_flow(&flow("s1", "s2")?, &flow("t1", "t2")?)
        }
        "VIDLoss" => {
            let (student, teacher) = pair()?;
            let regressor = Regressor {
                layers: [case.tensor("w0")?, case.tensor("w1")?, case.tensor("w2")?],
                log_scale: case.tensor("log_scale")?,
            };
            loss::variational_information(student, teacher, &regressor)
        }
        _ => return pooling(case),
    };
    Ok(Some(value.into()))
}

/// Pooled maps, N x C; the value is their weighted sum, or the sum of their squares.
fn pooling(case: &Case<'_>) -> Evaluated {
    let maps = || case.tensor("x");
    let pooled = match &*case.entry.cls {
        "functional.gem -> sum(w*y)" => gem(maps()?, case.tensor("p")?),
        "functional.mac" => maps()?.amax([2, 3].as_slice(), false),
        "functional.spoc" => maps()?.mean_dim([2, 3].as_slice(), false, None::<Kind>),
        _ => return Ok(None),
    };
    let loss = match case.tensor("w") {
        Ok(weights) => (&pooled * weights).sum(pooled.kind()),
        Err(_) => pooled.square().sum(pooled.kind()),
    };
    Ok(Some(Computed {
        loss,
        others: vec![("y", pooled)],
    }))
}
