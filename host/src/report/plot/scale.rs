//! From values to places along an axis, and the values that are written there.

/// Share of the data's range that stays free at both ends of an axis.
const MARGIN: f64 = 0.06;

/// A range of values laid along a range of places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
    from: f64,
    to: f64,
}

impl Scale {
    /// Exactly from `low` to `high`; if that is no range, one around it.
    pub(super) fn exact(low: f64, high: f64, is_log: bool) -> Self {
        let is_range = low.is_finite() && high.is_finite() && low < high && (!is_log || low > 0.0);
        let (low, high) = match (is_range, is_log) {
            (true, _) => (low, high),
            (false, true) if low.is_finite() && low > 0.0 => (low / 2.0, low * 2.0),
            (false, true) => (1.0, 10.0),
            (false, false) if low.is_finite() => {
                let half = if low == 0.0 { 1.0 } else { low.abs() / 2.0 };
                (low - half, low + half)
            }
            (false, false) => (0.0, 1.0),
        };
        let (from, to) = (0.0, 1.0);
        Self {
            low,
            high,
            is_log,
            from,
            to,
        }
    }

    /// Around the values, with a margin; those that an axis of this kind can not show are
    /// left out.
    pub(super) fn around(values: impl IntoIterator<Item = f64>, is_log: bool) -> Self {
        let shown = |value: &f64| value.is_finite() && (!is_log || *value > 0.0);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.into_iter().filter(shown) {
            low = low.min(value);
            high = high.max(value);
        }
        let exact = Self::exact(low, high, is_log);
        if is_log {
            let ratio = (exact.high / exact.low).powf(MARGIN).max(1.05);
            Self::exact(exact.low / ratio, exact.high * ratio, true)
        } else {
            let margin = MARGIN * (exact.high - exact.low);
            Self::exact(exact.low - margin, exact.high + margin, false)
        }
    }

    /// [`around`](Self::around), within what a share can be.
    pub(super) fn around_shares(values: impl IntoIterator<Item = f64>) -> Self {
        let around = Self::around(values, false);
        Self::exact(around.low.max(0.0), around.high.min(1.0), false)
    }

    /// [`around`](Self::around) but from 0.
    pub(super) fn from_zero(values: impl IntoIterator<Item = f64>) -> Self {
        let around = Self::around(values.into_iter().chain([0.0]), false);
        Self::exact(0.0, around.high, false)
    }

    /// The same values on another place.
    pub(super) fn over(self, from: f64, to: f64) -> Self {
        Self { from, to, ..self }
    }

    /// Place of a value; none if there is no such place.
    pub(super) fn at(&self, value: f64) -> Option<f64> {
        let by = |value: f64| if self.is_log { value.ln() } else { value };
        let share = (by(value) - by(self.low)) / (by(self.high) - by(self.low));
        let place = self.from + share * (self.to - self.from);
        share.is_finite().then_some(place)
    }

    /// Place of a value, or the nearest end.
    pub(super) fn at_or_end(&self, value: f64) -> f64 {
        self.at(value.clamp(self.low, self.high))
            .unwrap_or(self.from)
    }

    /// Place of the lowest value.
    pub(super) fn start(&self) -> f64 {
        self.from
    }

    /// Place of the highest value.
    pub(super) fn end(&self) -> f64 {
        self.to
    }

    /// At most about `n` round values within the range, ascending, with their text.
    pub(super) fn ticks(&self, n: usize) -> Vec<(f64, String)> {
        let n = n.max(2);
        if !self.is_log {
            return self.even_ticks(n);
        }
        for mantissas in [&[1.0, 2.0, 5.0][..], &[1.0, 3.0], &[1.0]] {
            let ticks = self.log_ticks(mantissas, 1);
            if (2..=n).contains(&ticks.len()) {
                return ticks;
            }
            // Too narrow for round powers: even steps say more.
            if ticks.len() < 2 {
                return self.even_ticks(n);
            }
        }
        let n_decades = (self.high / self.low).log10().ceil() as i32;
        self.log_ticks(&[1.0], n_decades / n as i32 + 1)
    }

    fn even_ticks(&self, n: usize) -> Vec<(f64, String)> {
        let step = round_step((self.high - self.low) / n as f64);
        let decimals = (-step.log10().floor()).clamp(0.0, 12.0) as usize;
        let first = (self.low / step - 1e-9).ceil();
        (0..=n + 1)
            .map(|idx| (first + idx as f64) * step)
            .take_while(|value| *value <= self.high + 1e-9 * step)
            .map(|value| (value, number(value, decimals)))
            .collect()
    }

    fn log_ticks(&self, mantissas: &[f64], every: i32) -> Vec<(f64, String)> {
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        let mut ticks = Vec::new();
        for power in (first..=last).filter(|power| power.rem_euclid(every) == 0) {
            for mantissa in mantissas {
                let value = mantissa * 10f64.powi(power);
                let decimals = (-power).max(0) as usize;
                if (self.low..=self.high).contains(&value) {
                    ticks.push((value, number(value, decimals)));
                }
            }
        }
        ticks
    }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let rounded = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let fits = |candidate: &&f64| **candidate >= step * (1.0 - 1e-9);
    rounded.iter().find(fits).copied().unwrap_or(step)
}

/// A number with so many decimals, thousands apart, and without a minus before nothing.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text
        .split_once('.')
        .map_or((&*text, None), |(a, b)| (a, Some(b)));
    let is_nothing = text.chars().all(|c| "-0.".contains(c));
    let digits = whole.trim_start_matches('-');
    let mut shown = if whole.starts_with('-') && !is_nothing {
        "−"
    } else {
        ""
    }
    .to_owned();
    for (idx, digit) in digits.char_indices() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) && digits.len() > 4 {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    match fraction {
        Some(fraction) => format!("{shown}.{fraction}"),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(scale: Scale, n: usize) -> Vec<String> {
        scale.ticks(n).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn even_ticks_are_round_and_within_the_range() {
        assert_eq!(
            texts(Scale::exact(0.0, 1.0, false), 5),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(
            texts(Scale::exact(13.0, 58.0, false), 5),
            ["20", "30", "40", "50"]
        );
        assert_eq!(
            texts(Scale::exact(-0.3, 0.3, false), 4),
            ["−0.2", "0.0", "0.2"]
        );
        assert_eq!(
            texts(Scale::exact(0.0, 30_000.0, false), 3),
            ["0", "10\u{202f}000", "20\u{202f}000", "30\u{202f}000"]
        );
    }

    #[test]
    fn log_ticks_are_few_and_round() {
        assert_eq!(
            texts(Scale::exact(3.0, 150.0, true), 6),
            ["5", "10", "20", "50", "100"]
        );
        assert_eq!(
            texts(Scale::exact(0.01, 900.0, true), 6),
            ["0.01", "0.1", "1", "10", "100"]
        );
        assert_eq!(
            texts(Scale::exact(41.0, 49.0, true), 5),
            ["42", "44", "46", "48"]
        );
        let wide = Scale::exact(1e-9, 1e9, true).ticks(5);
        assert!((3..=6).contains(&wide.len()), "{wide:?}");
    }

    #[test]
    fn any_values_give_a_scale_with_ticks() {
        let hostile = [
            &[][..],
            &[5.0],
            &[0.0],
            &[-3.0, -3.0],
            &[f64::NAN],
            &[f64::INFINITY, 1.0],
            &[1e-300, 1e300],
            &[-1.0, 0.0],
            &[1e18, 1e18 + 1.0],
            &[0.0, 5e-324],
        ];
        for values in hostile {
            for is_log in [false, true] {
                let scale = Scale::around(values.iter().copied(), is_log).over(10.0, 90.0);
                let ticks = scale.ticks(5);
                assert!(ticks.len() < 12, "{values:?} {ticks:?}");
                for (value, text) in ticks {
                    let at = scale.at(value).unwrap();
                    assert!((9.0..=91.0).contains(&at), "{values:?}: {text} at {at}");
                }
                assert!(
                    (10.0..=90.0)
                        .contains(&scale.at_or_end(values.first().copied().unwrap_or(0.0)))
                );
            }
        }
    }

    #[test]
    fn a_log_axis_has_no_place_for_nothing() {
        let scale = Scale::exact(1.0, 100.0, true).over(0.0, 2.0);
        assert_eq!(scale.at(10.0), Some(1.0));
        assert_eq!((scale.at(0.0), scale.at(-1.0)), (None, None));
    }
}
