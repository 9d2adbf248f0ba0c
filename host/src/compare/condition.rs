//! What a comparison must not show: conditions such as `recall_at_1 drops 0.01`.
//!
//! A condition is decided from a finished comparison. It can hold, not hold, or stay open
//! where one of the cells lacks the number; an open condition is no good news.

use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

use super::{Compared, Interval, Pair};
use crate::bench::measures::Measure;

/// Part of a threshold that rounding may take: 0.94 - 0.93 is less than 0.01 in binary.
const ROUNDING: f64 = 1e-9;

/// Which way a number goes from the first cell to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Drops,
    Rises,
}

/// How far.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Distance {
    /// In the measure's unit.
    Absolute(f64),
    /// Share of the first cell's number.
    Relative(f64),
}

/// A condition: `METRIC drops X`, `METRIC rises X`, either with `surely` at its end.
///
/// It holds if the number differs by at least `X` that way, and with `X` of 0 if it differs at
/// all. `X%` is a percentage of the first cell's number. `surely` asks for the whole 95 %
/// interval of the difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    measure: &'static str,
    way: Way,
    distance: Distance,
    is_sure: bool,
}

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConditionError {
    /// It has other words.
    #[error(
        "expected `METRIC drops X` or `METRIC rises X`, X a number or a percentage such as \
         `5%`, and `surely` behind it if the whole interval has to be beyond"
    )]
    Form,
    /// No such measure.
    #[error("`{name}` is no measure; {}", known(*suggestion))]
    Unknown {
        /// What was written.
        name: String,
        /// What was probably meant.
        suggestion: Option<&'static str>,
    },
    /// It is not a distance.
    #[error("`{0}` is no number that is 0 or greater")]
    Number(String),
}

fn known(suggestion: Option<&'static str>) -> String {
    match suggestion {
        Some(name) => format!("did you mean `{name}`?"),
        None => {
            let names: Vec<&str> = Measure::ALL.iter().map(|measure| measure.name).collect();
            format!("there are {}", names.join(", "))
        }
    }
}

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (name, way, far, is_sure) = match words[..] {
            [name, way, far] => (name, way, far, false),
            [name, way, far, "surely"] => (name, way, far, true),
            _ => return Err(ConditionError::Form),
        };
        let way = match way {
            "drops" => Way::Drops,
            "rises" => Way::Rises,
            _ => return Err(ConditionError::Form),
        };
        let Some(measure) = Measure::by_name(name) else {
            let suggestion = Measure::suggestion(name);
            let name = name.to_owned();
            return Err(ConditionError::Unknown { name, suggestion });
        };
        let number = |text: &str| match text.parse::<f64>() {
            Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
            _ => Err(ConditionError::Number(far.to_owned())),
        };
        let distance = match far.strip_suffix('%') {
            Some(percent) => Distance::Relative(number(percent)? / 100.0),
            None => Distance::Absolute(number(far)?),
        };
        Ok(Self {
            text: words.join(" "),
            measure: measure.name,
            way,
            distance,
            is_sure,
        })
    }
}

/// A condition and a pair of cells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// The condition.
    pub condition: String,
    /// Key of the first cell.
    pub a: String,
    /// Key of the second one.
    pub b: String,
    /// Whether the comparison shows what it must not show; none if a number is missing.
    pub holds: Option<bool>,
    /// The numbers that decided, or what is missing.
    pub why: String,
}

impl Judged {
    /// The cell or cells.
    #[must_use]
    pub fn cells(&self) -> String {
        if self.a == self.b || self.b == "-" {
            self.a.clone()
        } else {
            format!("{} and {}", self.a, self.b)
        }
    }

    /// `holds`, `does not hold` or `is open`.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.holds {
            Some(true) => "holds",
            Some(false) => "does not hold",
            None => "is open",
        }
    }
}

impl Condition {
    /// Decides about a pair of cells.
    #[must_use]
    pub fn judge(&self, pair: &Pair) -> Judged {
        let mut measures = pair.measures.iter();
        let (holds, why) = match measures.find(|found| found.name == self.measure) {
            Some(compared) => self.decide(compared),
            None => (None, format!("neither cell has {}", self.measure)),
        };
        self.judged(&pair.a, &pair.b, holds, why)
    }

    /// Says that a cell of the first session has no partner, which leaves the condition open.
    #[must_use]
    pub fn without_partner(&self, cell: &str) -> Judged {
        let why = "the second session has no such cell".to_owned();
        self.judged(cell, "-", None, why)
    }

    fn judged(&self, a: &str, b: &str, holds: Option<bool>, why: String) -> Judged {
        Judged {
            condition: self.text.clone(),
            a: a.to_owned(),
            b: b.to_owned(),
            holds,
            why,
        }
    }

    fn decide(&self, compared: &Compared) -> (Option<bool>, String) {
        let name = self.measure;
        let (a, b, difference) = match (compared.a, compared.b, compared.difference) {
            (Some(a), Some(b), Some(difference)) => (a, b, difference),
            (None, ..) => return (None, format!("the first cell has no {name}")),
            (_, None, _) => return (None, format!("the second cell has no {name}")),
            _ => return (None, "the cells have no query in common".to_owned()),
        };
        if compared.is_disturbed {
            return (
                None,
                format!("all windows of a cell are flagged, so {name} says nothing"),
            );
        }
        let limit = match self.distance {
            Distance::Absolute(far) => far,
            Distance::Relative(share) => share * a.abs(),
        };
        let sign = match self.way {
            Way::Drops => -1.0,
            Way::Rises => 1.0,
        };
        let interval = compared.interval;
        // The end of the interval that went least far.
        let least = interval.map(|found| match self.way {
            Way::Drops => -found.high,
            Way::Rises => found.low,
        });
        let far = match (self.is_sure, least) {
            (true, Some(least)) => least,
            (true, None) if !compared.is_exact => {
                return (None, format!("{name} has no interval here"));
            }
            _ => sign * difference,
        };
        let holds = far > 0.0 && far >= limit * (1.0 - ROUNDING);
        let shown = |value: f64| compared.shown(value);
        let signed = |value: f64| compared.signed(value);
        let mut why = format!(
            "{name} {} -> {} ({}",
            shown(a),
            shown(b),
            signed(difference)
        );
        if let Some(Interval { low, high, .. }) = interval {
            why += &format!(", {} to {}", signed(low), signed(high));
        }
        (
            Some(holds),
            why + &format!("), limit {}", signed(sign * limit)),
        )
    }
}
