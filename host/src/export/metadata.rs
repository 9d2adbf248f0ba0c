//! What an ONNX file says of itself, for tools that know nothing of bundles.

use eyas_shared::bundle::Precision;
use serde_json::{Value, json};

use super::stored::Rounding;
use super::verify::Agreement;
use crate::student::TrainedStudent;

/// Keys and values of `metadata_props`, in order.
///
/// What was measured is known only once the file without it has been compared; it changes
/// nothing that is computed.
pub(super) fn of(
    student: &TrainedStudent,
    precision: Precision,
    rounding: &Rounding,
    measured: Option<&Agreement>,
) -> Vec<(String, String)> {
    let spec = &student.preprocess;
    let json = |value: Value| value.to_string();
    let filter = serde_json::to_value(spec.filter).unwrap_or_default();
    let mut pairs = vec![
        ("producer", "eyas".to_owned()),
        ("eyas_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("student", student.name.clone()),
        ("architecture", student.network.name.clone()),
        ("teacher", student.teacher.clone()),
        ("space_id", student.space.0.to_string()),
        ("embed_dim", student.network.dim().to_string()),
        ("precision", precision.to_string()),
        ("rounding", json(rounding_json(precision, rounding))),
        ("input_size", json(json!([1, 3, spec.crop, spec.crop]))),
        ("channel_order", "RGB".to_owned()),
        ("value_range", json(json!([0, 1]))),
        (
            "resize",
            json(json!({ "shorter_side": spec.resize_shorter, "filter": filter })),
        ),
        ("crop", json(json!({ "side": spec.crop, "from": "center" }))),
        ("mean", json(json!(decimals(spec.mean)))),
        ("std", json(json!(decimals(spec.std)))),
        ("recipe", student.recipe.to_string()),
        ("seed", student.seed.to_string()),
        ("manifest", student.manifest.to_string()),
    ];
    if let Some(measured) = measured {
        let metrics = json!({
            "n_images": measured.n_images,
            "min_cosine_to_libtorch": decimal(measured.min_cosine),
            "mean_cosine_to_libtorch": decimal(measured.mean_cosine),
        });
        pairs.push(("metrics", json(metrics)));
    }
    let owned = |(key, value): (&str, String)| (key.to_owned(), value);
    pairs.into_iter().map(owned).collect()
}

/// What was done to the weights, as far as the precision knows it.
pub fn rounding_json(precision: Precision, rounding: &Rounding) -> Value {
    match precision {
        Precision::F32 => json!({}),
        Precision::F16 => json!({ "bias_corrected": rounding.bias_corrected }),
        Precision::Int8 | Precision::FullInt8 => json!(rounding),
    }
}

/// The f64 with the digits that the f32 is written with: 0.485, not 0.48500001430511475.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

fn decimals(values: [f32; 3]) -> [f64; 3] {
    values.map(decimal)
}

#[cfg(test)]
mod tests {
    use super::super::stored::ScaleRule;
    use super::super::tests::student;
    use super::*;

    #[test]
    fn a_file_says_how_its_pixels_are_made_and_where_it_comes_from() {
        let folder = tempfile::tempdir().unwrap();
        let student = student("eyas-xs", folder.path());
        let measured = Agreement {
            n_images: 17,
            min_cosine: 0.999,
            mean_cosine: 0.9995,
            worst_image: "probe 3".to_owned(),
        };
        let rounding = Rounding::default();
        let pairs = of(&student, Precision::Int8, &rounding, Some(&measured));
        let value = |key: &str| {
            let pair = pairs.iter().find(|(found, _)| found == key);
            pair.map_or("", |(_, value)| value.as_str())
        };
        let expected = [
            ("producer", "eyas"),
            ("student", "shelf"),
            ("teacher", "big"),
            ("embed_dim", "16"),
            ("precision", "int8"),
            ("input_size", "[1,3,32,32]"),
            ("channel_order", "RGB"),
            ("resize", r#"{"filter":"bilinear","shorter_side":36}"#),
            ("std", "[0.229,0.224,0.225]"),
        ];
        for (key, expected) in expected {
            assert_eq!(value(key), expected, "{key}");
        }
        assert_eq!(value("space_id"), student.space.0.to_string());
        assert!(value("metrics").contains(r#""min_cosine_to_libtorch":0.999"#));
        assert!(value("rounding").contains(r#""scales":"min-max""#));
        assert!(!value("mean").is_empty() && !value("crop").is_empty());
        assert!(!value("rounding").contains("activations"));
        let full = Rounding {
            activations: Some(ScaleRule::LeastSquares),
            ..rounding.clone()
        };
        let full = rounding_json(Precision::FullInt8, &full).to_string();
        assert!(full.contains(r#""activations":"least-squares""#), "{full}");
        let exact = of(&student, Precision::F32, &rounding, None);
        assert!(exact.contains(&("rounding".to_owned(), "{}".to_owned())));
        assert!(exact.iter().all(|(key, _)| key != "metrics"));
    }
}
