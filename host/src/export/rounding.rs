//! Which way of rounding a student's weights costs it the least: measured, not assumed.
//!
//! Every way is written, run by the device encoder and compared on a part of the reference
//! images; the largest mean cosine wins, the first of equals. What wins must still pass the
//! gate, on all images.
//!
//! For full-int8 the way of rounding weights is found without rounding activations, and that
//! of rounding activations then with these weights: what rounding weights costs is the same
//! whatever comes on top of it, and trying all pairs would take twice as long.

use eyas_shared::bundle::Precision;
use eyas_shared::preprocess::Pixels;

use super::activations::{Activations, Ranges};
use super::bias::{self, InputMeans};
use super::stored::{Data, Rounding, ScaleRule, StoredWeight, StoredWeights};
use super::verify::{self, Agreement, Sample};
use super::{ExportError, Writer, equalize};
use crate::weights::Weights;
use crate::zoo::Node;

/// Images on which ways of rounding are compared.
const N_COMPARED: usize = 64;

/// Share of an int8 file's layers, by their bytes, that may be kept in f16: beyond, the file
/// is no int8 file any more.
const MAX_KEPT: f64 = 0.5;

/// Weights as they are stored, grids of activations if those are rounded, and how both came
/// to be so.
#[derive(Clone)]
pub(super) struct Rounded {
    pub(super) stored: StoredWeights,
    pub(super) activations: Option<Activations>,
    pub(super) rounding: Rounding,
}

/// A folded network that is to be rounded.
pub(super) struct Subject<'a> {
    pub(super) writer: &'a Writer<'a>,
    pub(super) weights: &'a Weights,
    pub(super) precision: Precision,
}

/// Exact weights of the same function, with the mean inputs of its layers, and the ranges of
/// its activations if those are to be rounded.
struct Start {
    weights: Weights,
    means: InputMeans,
    ranges: Option<Ranges>,
    equalized: bool,
}

/// A way of rounding that was measured.
#[derive(Clone, Debug)]
pub struct Tried {
    /// What was done.
    pub rounding: Rounding,
    /// What came of it, on some of the images.
    pub agreement: Agreement,
}

/// What [`choose`] found.
pub(super) struct Choice {
    /// The way of rounding with the largest mean cosine.
    pub(super) rounded: Rounded,
    /// The exact weights that were rounded, whose channels may be scaled.
    pub(super) weights: Weights,
    /// All ways in the order in which they were measured.
    pub(super) tried: Vec<Tried>,
}

/// Tries the ways of rounding.
///
/// # Errors
/// If weights can not be held in the precision, or the device encoder fails.
pub(super) fn choose(subject: &Subject<'_>, samples: &[Sample<'_>]) -> Result<Choice, ExportError> {
    let compared = spread(samples, N_COMPARED);
    // Every second: the others show whether what was learned from these holds.
    let calibrating: Vec<&Pixels> = compared.iter().step_by(2).map(|it| it.pixels).collect();
    let mut starts = vec![subject.start(subject.weights.clone(), false, &calibrating)?];
    let scales_channels = matches!(subject.precision, Precision::Int8 | Precision::FullInt8);
    if scales_channels
        && let Some(scaled) = equalize::equalized(subject.writer.folded, subject.weights)
    {
        starts.push(subject.start(scaled, true, &calibrating)?);
    }
    let mut tried = Vec::new();
    let mut best: Option<(Agreement, Rounded, &Start)> = None;
    for start in &starts {
        let ways = subject.ways(start)?;
        let mut found = subject.best(ways, &compared, &mut tried)?;
        if let Some(ranges) = &start.ranges {
            let ways = subject.with_activations(&found.1, ranges);
            found = subject.best(ways, &compared, &mut tried)?;
        }
        let (agreement, rounded) = found;
        let is_best = |(best, ..): &(Agreement, _, _)| is_better(&agreement, best);
        if best.as_ref().is_none_or(is_best) {
            best = Some((agreement, rounded, start));
        }
    }
    let (agreement, mut rounded, start) = best.expect("every precision has a way of rounding");
    let is_enough = agreement.meets(verify::bounds(subject.precision));
    if subject.precision == Precision::Int8 && !is_enough {
        rounded = subject.keep_layers(start, rounded, &compared)?;
    }
    Ok(Choice {
        rounded,
        weights: start.weights.clone(),
        tried,
    })
}

fn is_better(found: &Agreement, best: &Agreement) -> bool {
    found.mean_cosine > best.mean_cosine || best.mean_cosine.is_nan()
}

/// So many of the items, evenly spread, the first among them.
fn spread<'s, 'a>(samples: &'s [Sample<'a>], n: usize) -> Vec<Sample<'a>>
where
    'a: 's,
{
    let n = n.min(samples.len());
    (0..n).map(|at| samples[at * samples.len() / n]).collect()
}

impl Subject<'_> {
    fn start(
        &self,
        weights: Weights,
        equalized: bool,
        calibrating: &[&Pixels],
    ) -> Result<Start, ExportError> {
        let network = self.writer.folded;
        let rounding = Rounding::default();
        let stored = self.stored(&weights, Precision::F32, &rounding)?;
        let exact = Rounded {
            stored,
            activations: None,
            rounding,
        };
        let file = self.writer.onnx(Precision::F32, &exact, None)?;
        let side = self.writer.side();
        let means = InputMeans::measure(network, &file, side, calibrating)?;
        let ranges = match self.precision {
            Precision::FullInt8 => Some(Ranges::measure(network, &file, side, calibrating)?),
            _ => None,
        };
        Ok(Start {
            weights,
            means,
            ranges,
            equalized,
        })
    }

    fn stored(
        &self,
        weights: &Weights,
        precision: Precision,
        rounding: &Rounding,
    ) -> Result<StoredWeights, ExportError> {
        StoredWeights::of(self.writer.folded, weights, precision, rounding)
    }

    /// The best of some ways, the first of equals; all are noted.
    fn best(
        &self,
        ways: Vec<Rounded>,
        samples: &[Sample<'_>],
        tried: &mut Vec<Tried>,
    ) -> Result<(Agreement, Rounded), ExportError> {
        let mut best: Option<(Agreement, Rounded)> = None;
        for rounded in ways {
            let agreement = self.agreement(&rounded, samples)?;
            tried.push(Tried {
                rounding: rounded.rounding.clone(),
                agreement: agreement.clone(),
            });
            if best
                .as_ref()
                .is_none_or(|(best, _)| is_better(&agreement, best))
            {
                best = Some((agreement, rounded));
            }
        }
        Ok(best.expect("every precision has a way of rounding"))
    }

    /// The same weights with activations rounded too, by every rule.
    fn with_activations(&self, rounded: &Rounded, ranges: &Ranges) -> Vec<Rounded> {
        let way = |rule: ScaleRule| {
            let activations = ranges.grids(rule);
            let mut rounded = rounded.clone();
            activations.round_biases(self.writer.folded, &mut rounded.stored);
            rounded.activations = Some(activations);
            rounded.rounding.activations = Some(rule);
            rounded
        };
        ScaleRule::ALL.into_iter().map(way).collect()
    }

    /// Ways of rounding weights, the plainest first.
    fn ways(&self, start: &Start) -> Result<Vec<Rounded>, ExportError> {
        let rules: &[ScaleRule] = match self.precision {
            Precision::Int8 | Precision::FullInt8 => &ScaleRule::ALL,
            Precision::F32 | Precision::F16 => &[ScaleRule::MinMax],
        };
        let mut ways = Vec::new();
        for &scales in rules {
            let rounding = Rounding {
                scales,
                equalized: start.equalized,
                ..Rounding::default()
            };
            let stored = self.stored(&start.weights, self.precision, &rounding)?;
            let plain = Rounded {
                stored,
                activations: None,
                rounding,
            };
            let mut corrected = plain.clone();
            ways.push(plain);
            // What is not rounded needs no correction.
            if self.precision != Precision::F32 {
                corrected.rounding.bias_corrected = true;
                ways.push(self.corrected(start, corrected));
            }
        }
        Ok(ways)
    }

    fn corrected(&self, start: &Start, mut rounded: Rounded) -> Rounded {
        if rounded.rounding.bias_corrected {
            let (network, stored) = (self.writer.folded, &mut rounded.stored);
            start.means.correct(network, &start.weights, stored);
        }
        rounded
    }

    fn agreement(
        &self,
        rounded: &Rounded,
        samples: &[Sample<'_>],
    ) -> Result<Agreement, ExportError> {
        // Weights of full-int8 are those of int8 until activations are rounded.
        let precision = match (self.precision, &rounded.activations) {
            (Precision::FullInt8, None) => Precision::Int8,
            (precision, _) => precision,
        };
        let file = self.writer.onnx(precision, rounded, None)?;
        let draft = self.writer.draft(&file, precision);
        Ok(verify::agreement_of(&draft, samples)?)
    }

    /// Keeps layers in f16 until the gate's bounds are met on these samples: those first
    /// whose rounding costs the most for a byte, each measured alone. Ends with what it was
    /// given if half of the bytes do not suffice.
    fn keep_layers(
        &self,
        start: &Start,
        rounded: Rounded,
        samples: &[Sample<'_>],
    ) -> Result<Rounded, ExportError> {
        let plain = self.agreement(&rounded, samples)?;
        let mut gains = Vec::new();
        for node in self
            .writer
            .folded
            .nodes
            .iter()
            .filter(|it| bias::is_layer(it))
        {
            let (kept, n_bytes) = self.kept(start, &rounded, &[node]);
            let agreement = self.agreement(&kept, samples)?;
            let gain = f64::from(agreement.mean_cosine) - f64::from(plain.mean_cosine);
            gains.push((gain / n_bytes.max(1) as f64, n_bytes, node));
        }
        // Equal gains stay in the network's order.
        gains.sort_by(|a, b| b.0.total_cmp(&a.0));
        let all: usize = gains.iter().map(|(_, n_bytes, _)| n_bytes).sum();
        let mut n_kept = 1;
        while n_kept <= gains.len() {
            let first = &gains[..n_kept];
            let n_bytes: usize = first.iter().map(|(_, n_bytes, _)| n_bytes).sum();
            if n_bytes as f64 > MAX_KEPT * all as f64 {
                break;
            }
            let nodes: Vec<&Node> = first.iter().map(|(.., node)| *node).collect();
            let (kept, _) = self.kept(start, &rounded, &nodes);
            let agreement = self.agreement(&kept, samples)?;
            if agreement.meets(verify::bounds(self.precision)) {
                return Ok(kept);
            }
            // A step of an eighth: few trials, and few layers more than needed.
            n_kept += 1 + n_kept / 8;
        }
        Ok(rounded)
    }

    /// The same with some layers in f16, and the bytes that this costs.
    fn kept(&self, start: &Start, rounded: &Rounded, nodes: &[&Node]) -> (Rounded, usize) {
        let mut kept = rounded.clone();
        let mut n_bytes = 0;
        for node in nodes {
            let name = format!("{}.weight", node.name);
            let exact = start.weights.0.get(&name);
            let (Some(exact), Some(stored)) = (exact, kept.stored.0.get_mut(&name)) else {
                continue;
            };
            let in_f16 = StoredWeight::in_f16(exact);
            n_bytes += in_f16.n_bytes().saturating_sub(stored.n_bytes());
            *stored = in_f16;
            kept.rounding.f16_layers.push(node.name.clone());
        }
        // Biases that were corrected for another rounding are taken anew.
        for node in &self.writer.folded.nodes {
            let name = format!("{}.bias", node.name);
            let exact = start.weights.0.get(&name);
            if let (Some(exact), Some(stored)) = (exact, kept.stored.0.get_mut(&name)) {
                stored.data = Data::F32(exact.values.clone());
            }
        }
        (self.corrected(start, kept), n_bytes)
    }
}
