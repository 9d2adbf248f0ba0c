//! `eyas export --explain`: the budget of a student as a table or as JSON.

use serde_json::{Value, json};

use super::{Exporter, Precision, RecallCheck, recall_json, recall_text, shortest};
use crate::cli::{say, say_raw};
use crate::export::explain::{self, Budget, LayerBudget, PrecisionBudget};
use crate::export::{ExportError, Tried, rounding_json, verify};

/// Measures and prints; whether all precisions would pass the gate.
pub(super) fn run(
    exporter: &Exporter<'_>,
    precisions: &[Precision],
    check: Option<&RecallCheck<'_>>,
    as_json: bool,
) -> Result<bool, ExportError> {
    let budget = explain::explain(exporter, precisions, check)?;
    if as_json {
        say(&json(exporter, &budget).to_string());
    } else {
        say_raw(&text(exporter, &budget));
    }
    Ok(budget.precisions.iter().all(|it| it.passes))
}

fn text(exporter: &Exporter<'_>, budget: &Budget) -> String {
    let header = exporter.exact().header();
    let side = header.preprocess.crop;
    let mut text = format!(
        "{} ({}), images of {side}x{side}, embeddings of {}\n\n",
        header.name, header.architecture, header.dim
    );
    text += &layers_text(budget);
    text += &format!(
        "error: length of the difference to the plain computation, relative to its output, on \
         the mean of {} images; ms: in the device encoder on this machine\n\n",
        budget.n_images
    );
    text += &precisions_text(budget);
    for it in &budget.precisions {
        let how = rounding_json(it.precision, &it.rounding);
        text += &format!("{}: rounding {how}\n", it.precision);
        if it.tried.len() > 1 {
            text += &tried_text(&it.tried);
        }
        if let Some(loss) = &it.recall {
            text += &recall_text(it.precision, loss);
        }
    }
    text
}

fn layers_text(budget: &Budget) -> String {
    let widest = |of: fn(&LayerBudget) -> usize, least: usize| {
        budget.layers.iter().map(of).fold(least, usize::max)
    };
    let name_width = widest(|it| it.name.len(), "layer".len());
    let kind_width = widest(|it| it.kind.len(), "computes".len());
    let mut text = format!(
        "{:name_width$}  {:kind_width$}  {:>12}  {:>10}  {:>13}  {:>7}",
        "layer", "computes", "output", "parameters", "multiply-adds", "ms"
    );
    for it in &budget.precisions {
        let precision = it.precision.to_string();
        text += &format!(
            "  {:>10}  {:>10}",
            precision.clone() + " bytes",
            precision + " error"
        );
    }
    for layer in &budget.layers {
        let [channels, height, width] = layer.shape;
        text += &format!(
            "\n{:name_width$}  {:kind_width$}  {:>12}  {:>10}  {:>13}  {:>7.3}",
            layer.name,
            layer.kind,
            format!("{channels}x{height}x{width}"),
            layer.n_parameters,
            layer.multiply_adds,
            layer.milliseconds
        );
        for cost in &layer.costs {
            text += &format!("  {:>10}  {:>10.1e}", cost.bytes, cost.relative_error);
        }
    }
    text + "\n"
}

fn precisions_text(budget: &Budget) -> String {
    let mut text = format!(
        "{:9}  {:>10}  {:>7}  {:>11}  {:>11}  {:>8}  {}\n",
        "precision", "bytes", "ms", "min cosine", "mean cosine", "n images", "gate"
    );
    for it in &budget.precisions {
        let gate = match it.passes {
            true => "passes".to_owned(),
            false => refusal(it),
        };
        text += &format!(
            "{:9}  {:>10}  {:>7.3}  {:>11.8}  {:>11.8}  {:>8}  {gate}\n",
            it.precision.to_string(),
            it.bytes,
            it.milliseconds,
            it.agreement.min_cosine,
            it.agreement.mean_cosine,
            it.agreement.n_images,
        );
    }
    text
}

/// Why the gate refuses a precision.
fn refusal(budget: &PrecisionBudget) -> String {
    let agreement = &budget.agreement;
    match &budget.recall {
        Some(loss) if agreement.meets(verify::bounds(budget.precision)) => {
            format!("refuses: recall_at_1 drops {:.4}", -loss.difference.mean)
        }
        _ => format!("refuses: `{}` is off the most", agreement.worst_image),
    }
}

/// What the ways of rounding were worth, the chosen one among them.
fn tried_text(tried: &[Tried]) -> String {
    let n_images = tried.first().map_or(0, |it| it.agreement.n_images);
    let mut text = format!("  min and mean cosine on {n_images} images\n");
    for Tried {
        rounding,
        agreement,
    } in tried
    {
        let mut way = format!("{} scales", rounding.scales.name());
        if rounding.equalized {
            way += ", equalized";
        }
        if rounding.bias_corrected {
            way += ", biases corrected";
        }
        if let Some(rule) = rounding.activations {
            way += &format!(", {} activations", rule.name());
        }
        let (min, mean) = (agreement.min_cosine, agreement.mean_cosine);
        text += &format!("  {min:.8}  {mean:.8}  {way}\n");
    }
    text
}

fn json(exporter: &Exporter<'_>, budget: &Budget) -> Value {
    let header = exporter.exact().header();
    let precisions: Vec<Value> = budget.precisions.iter().map(precision_json).collect();
    let layers = budget.layers.iter().map(|layer| layer_json(layer, budget));
    json!({
        "schema": "eyas.budget/1",
        "name": header.name,
        "architecture": header.architecture,
        "side": header.preprocess.crop,
        "dim": header.dim,
        "n_parameters": header.n_parameters,
        "multiply_adds": header.multiply_adds,
        "n_images_by_layer": budget.n_images,
        "precisions": precisions,
        "layers": layers.collect::<Vec<_>>(),
    })
}

fn precision_json(it: &PrecisionBudget) -> Value {
    json!({
        "precision": it.precision,
        "bytes": it.bytes,
        "milliseconds": it.milliseconds,
        "min_cosine": shortest(it.agreement.min_cosine),
        "mean_cosine": shortest(it.agreement.mean_cosine),
        "worst_image": it.agreement.worst_image,
        "n_images": it.agreement.n_images,
        "passes": it.passes,
        "rounding": rounding_json(it.precision, &it.rounding),
        "tried": it.tried.iter().map(|tried| tried_json(it.precision, tried)).collect::<Vec<_>>(),
        "recall": it.recall.as_ref().map(recall_json),
    })
}

fn tried_json(precision: Precision, tried: &Tried) -> Value {
    json!({
        "rounding": rounding_json(precision, &tried.rounding),
        "min_cosine": shortest(tried.agreement.min_cosine),
        "mean_cosine": shortest(tried.agreement.mean_cosine),
        "n_images": tried.agreement.n_images,
    })
}

fn layer_json(layer: &LayerBudget, budget: &Budget) -> Value {
    let costs = layer.costs.iter().zip(&budget.precisions);
    let costs = costs.map(|(cost, of)| {
        let cost = json!({
            "bytes": cost.bytes,
            "cosine": cost.cosine,
            "relative_error": cost.relative_error,
        });
        (of.precision.to_string(), cost)
    });
    json!({
        "name": layer.name,
        "computes": layer.kind,
        "shape": layer.shape,
        "n_parameters": layer.n_parameters,
        "multiply_adds": layer.multiply_adds,
        "milliseconds": layer.milliseconds,
        "by_precision": costs.collect::<serde_json::Map<_, _>>(),
    })
}
