//! How near is near enough.

use tch::{Kind, Tensor};

use super::Entry;

/// Largest differences of an entry.
pub(super) struct Tolerances {
    /// Relative difference of the value in f64.
    pub(super) value: f64,
    /// Difference of a gradient in f64, relative to its largest component.
    pub(super) gradient: f64,
    /// Difference of another output in f64, relative to its largest component.
    pub(super) output: f64,
    /// Relative difference of the value in f32.
    pub(super) value_f32: f64,
    /// Difference of a gradient in f32, relative to its largest component.
    pub(super) gradient_f32: f64,
}

/// f64 adds in another order; f32 has 24 bits, and its inputs are rounded to them before a
/// formula sees them.
///
/// A gradient jumps where a formula decides: which negative is the hardest, whether a hinge is
/// open, which of two maxima is larger. In f32 an entry that lies nearer to such an edge than
/// 24 bits tell falls on the other side, and is off by about its largest component; no
/// tolerance that means anything lets that through. None of the recorded entries lies there:
/// hard mining and hinges are off by as little as smooth losses, by 2e-6 at most
/// (ProxyNCALoss with scale 32). Another processor adds in another order, so five times that
/// is allowed; to lose one of a thousand pairs changes a gradient by more.
const USUAL: Tolerances = Tolerances {
    value: 1e-9,
    gradient: 1e-8,
    output: 1e-9,
    value_f32: 5e-6,
    gradient_f32: 1e-5,
};

pub(super) fn of(entry: &Entry) -> Tolerances {
    match (&*entry.repo, &*entry.cls) {
        // Tiny sums of nearly equal terms: the implementations themselves lose as much.
        (_, "PKT") | ("passalis+probabilistic_kt", _) => Tolerances {
            value_f32: 2e-5,
            ..USUAL
        },
        // Its soft labels are f32 also where everything else is f64.
        ("dichotomies+proxy-nca", _) => Tolerances {
            value: 1e-7,
            gradient: 1e-7,
            ..USUAL
        },
        _ => USUAL,
    }
}

/// Compares a number; an error says by how much it is off.
pub(super) fn value(what: &str, found: f64, expected: f64, tolerance: f64) -> Result<(), String> {
    let relative = (found - expected).abs() / expected.abs().max(f64::MIN_POSITIVE);
    if found == expected || relative <= tolerance {
        return Ok(());
    }
    Err(format!(
        "{what} {found} is off by {relative:.1e} of {expected}, at most {tolerance:.0e} is allowed"
    ))
}

/// Compares an array; the difference is relative to the largest expected component. Where
/// NaN is expected, NaN must be found.
pub(super) fn array(
    what: &str,
    found: &Tensor,
    expected: &Tensor,
    tolerance: f64,
) -> Result<(), String> {
    if !found.defined() {
        return Err(format!("{what}: nothing flows there"));
    }
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    if found.numel() != expected.numel() {
        let (found, expected) = (found.size(), expected.size());
        return Err(format!(
            "{what} has shape {found:?}, expected is {expected:?}"
        ));
    }
    let found = found.reshape(expected.size());
    let both_nan = found.isnan().logical_and(&expected.isnan());
    let difference = (&found - &expected).abs().masked_fill(&both_nan, 0.0);
    let largest = expected
        .abs()
        .nan_to_num(0.0, 0.0, 0.0)
        .max()
        .double_value(&[]);
    let off = difference.max().double_value(&[]) / largest.max(f64::MIN_POSITIVE);
    if difference.max().double_value(&[]) == 0.0 || off <= tolerance {
        return Ok(());
    }
    Err(format!(
        "{what} is off by {off:.1e} of its largest component, at most {tolerance:.0e} is allowed"
    ))
}
