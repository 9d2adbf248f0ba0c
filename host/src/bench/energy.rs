//! What a power meter said, joined with windows by time.

use std::path::Path;

use eyas_shared::files::{self, FileError};
use thiserror::Error;

/// Name of the readings in a session's folder.
pub const READINGS_FILE: &str = "energy.csv";

const MAX_BYTES: u64 = 1 << 30;

/// Readings of a power meter, in the order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Readings {
    /// Seconds since 1970 by the host's clock, and watts.
    points: Vec<(f64, f64)>,
}

/// Why readings can not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadingsError {
    /// The system refuses the file.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is no such CSV.
    #[error("`{}`: {what}", path.display())]
    Content {
        /// Where.
        path: std::path::PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl Readings {
    /// Reads a CSV file with the columns `unix_s` and `watts`, or `unix_s`, `volts` and
    /// `amperes`; others are passed over. `offset_s` is added to the meter's clock.
    ///
    /// # Errors
    /// If a column is missing, or a line holds no numbers or steps back in time.
    pub fn read(path: &Path, offset_s: f64) -> Result<Self, ReadingsError> {
        let bytes = files::read(path, MAX_BYTES)?;
        Self::parse(&bytes, offset_s).map_err(|what| ReadingsError::Content {
            path: path.to_owned(),
            what,
        })
    }

    fn parse(bytes: &[u8], offset_s: f64) -> Result<Self, String> {
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(bytes);
        let header = reader.headers().map_err(|err| err.to_string())?.clone();
        let column = |name: &str| header.iter().position(|column| column == name);
        let time = column("unix_s").ok_or("it has no column `unix_s`")?;
        let power = match (column("watts"), column("volts"), column("amperes")) {
            (Some(watts), ..) => vec![watts],
            (None, Some(volts), Some(amperes)) => vec![volts, amperes],
            _ => return Err("it has neither a column `watts` nor `volts` and `amperes`".into()),
        };
        let mut points: Vec<(f64, f64)> = Vec::new();
        for (line, record) in (2..).zip(reader.records()) {
            let record = record.map_err(|err| err.to_string())?;
            let number = |column: usize| -> Result<f64, String> {
                let text = record.get(column).unwrap_or("");
                let number: Option<f64> = text.parse().ok().filter(|it: &f64| it.is_finite());
                number.ok_or_else(|| format!("line {line}: `{text}` is no number"))
            };
            let at = number(time)? + offset_s;
            let mut watts = 1.0;
            for column in &power {
                watts *= number(*column)?;
            }
            if points.last().is_some_and(|(before, _)| *before > at) {
                return Err(format!(
                    "line {line}: the time is before that of the line above"
                ));
            }
            points.push((at, watts));
        }
        Ok(Self { points })
    }

    /// Energy from one time to another, both in seconds since 1970, by the trapezoid rule
    /// with the power at both ends in between readings. None if readings do not reach over
    /// the whole time, or fewer than two lie within.
    #[must_use]
    pub fn joules(&self, from: f64, to: f64) -> Option<f64> {
        let first = self.points.partition_point(|(at, _)| *at < from);
        let end = self.points.partition_point(|(at, _)| *at <= to);
        if first == 0 || end == self.points.len() || end < first + 2 {
            return None;
        }
        let between = |before: (f64, f64), after: (f64, f64), at: f64| {
            let share = (at - before.0) / (after.0 - before.0).max(f64::MIN_POSITIVE);
            (at, before.1 + share * (after.1 - before.1))
        };
        let mut points = vec![between(self.points[first - 1], self.points[first], from)];
        points.extend(&self.points[first..end]);
        points.push(between(self.points[end - 1], self.points[end], to));
        let areas = points.windows(2);
        Some(
            areas
                .map(|it| (it[1].0 - it[0].0) * (it[0].1 + it[1].1) / 2.0)
                .sum(),
        )
    }
}

/// Copies readings into a session, in the place of older ones.
///
/// # Errors
/// If they can not be used, or the system refuses.
pub fn keep(readings: &Path, session: &Path) -> Result<(), ReadingsError> {
    Readings::read(readings, 0.0)?;
    let bytes = files::read(readings, MAX_BYTES)?;
    Ok(files::replace(&session.join(READINGS_FILE), &bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn energy_is_the_area_under_the_power() {
        let ramp: String = (0..=10).map(|s| format!("{s},{}\n", 2 * s)).collect();
        let readings = Readings::parse(format!("unix_s,watts\n{ramp}").as_bytes(), 0.0).unwrap();
        // The integral of 2 t from 2.5 to 7.5.
        let joules = readings.joules(2.5, 7.5).unwrap();
        assert!((joules - 50.0).abs() < 1e-9, "{joules}");
        assert_eq!(readings.joules(-1.0, 3.0), None, "nobody read before");
        assert_eq!(readings.joules(8.0, 11.0), None, "nor after");
        assert_eq!(readings.joules(2.1, 2.9), None, "nor within");
    }

    #[test]
    fn volts_and_amperes_make_watts_and_clocks_are_moved() {
        let text =
            "unix_s, volts, amperes, note\n100,5,0.5,a\n101,5,0.5,b\n102,5,0.5,c\n103,5,0.5,d\n";
        let readings = Readings::parse(text.as_bytes(), -100.0).unwrap();
        assert!((readings.joules(0.5, 2.5).unwrap() - 5.0).abs() < 1e-9);
    }

    #[test]
    fn faults_name_their_line() {
        let fault = |text: &str| Readings::parse(text.as_bytes(), 0.0).unwrap_err();
        assert!(fault("time,watts\n1,2\n").contains("unix_s"));
        assert!(fault("unix_s,volts\n1,2\n").contains("amperes"));
        assert!(fault("unix_s,watts\n1,2\n2,x\n").contains("line 3: `x`"));
        assert!(fault("unix_s,watts\n2,2\n1,2\n").contains("line 3"));
    }
}
