//! Numbers as people read them in tables and sentences.

use crate::bench::results::Cell;

/// A share with three decimals.
pub(super) fn share(value: f64) -> String {
    format!("{value:.3}")
}

/// A share in percent with one decimal.
pub(super) fn percent(value: f64) -> String {
    format!("{:.1} %", 100.0 * value)
}

/// A share with its interval.
pub(super) fn share_between(value: f64, [low, high]: [f64; 2]) -> String {
    format!("{value:.3} ({low:.3}–{high:.3})")
}

/// Three significant digits, but no fewer than the whole number.
pub(super) fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        size if !size.is_finite() => return "–".to_owned(),
        0.0 => 0,
        size => (2 - size.log10().floor() as i32).clamp(0, 6) as usize,
    };
    format!("{value:.decimals$}")
}

/// 1234567 as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (idx, digit) in digits.char_indices() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 query`, `2 queries`.
pub(super) fn counted(n: usize, one: &str, many: &str) -> String {
    let word = if n == 1 { one } else { many };
    format!("{} {word}", thousands(n as u64))
}

/// `student int8`, with what else tells cells of a session apart.
pub(super) struct Naming {
    has_threads: bool,
    has_galleries: bool,
}

impl Naming {
    /// What differs between the cells of a session.
    pub(super) fn of(cells: &[Cell]) -> Self {
        let first = cells.first();
        let differs = |of: fn(&Cell, &Cell) -> bool| {
            first.is_some_and(|first| cells.iter().any(|cell| of(first, cell)))
        };
        Self {
            has_threads: differs(|a, b| a.threads != b.threads),
            has_galleries: differs(|a, b| a.gallery != b.gallery),
        }
    }

    /// All but the student.
    pub(super) fn variant(&self, cell: &Cell) -> String {
        let mut name = cell.precision.clone();
        if self.has_threads {
            name += &format!(" ×{}", cell.threads);
        }
        if self.has_galleries {
            name += &format!(" in {}", cell.gallery);
        }
        name
    }

    pub(super) fn name(&self, cell: &Cell) -> String {
        format!("{} {}", cell.student, self.variant(cell))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_count() {
        let cases = [
            (0.012_345, "0.0123"),
            (1.2345, "1.23"),
            (12.345, "12.3"),
            (1234.5, "1234"),
            (0.0, "0"),
        ];
        for (value, expected) in cases {
            assert_eq!(significant(value), expected);
        }
        assert_eq!(significant(f64::NAN), "–");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(counted(1, "query", "queries"), "1 query");
    }
}
