//! How rows are stored: which codes a gallery has, and the layout of each.
//!
//! | code | bytes a row | serves |
//! |---|---|---|
//! | `f32` | 4 d | exact scores |
//! | `f16` | 2 d | scores within 2^-11 |
//! | `int8` | d + 4 | a scan of an eighth of the bytes, and scores within about 0.01 |
//! | `int2` | d / 4 + 4 | a scan of a twenty-eighth of the bytes, before one of the others |
//!
//! `int8` is symmetric with one scale a row. `int2` has two bits a component after a
//! rotation ([`super::rotation`]), with the factor that makes a row's score unbiased
//! (Gao and Long, RaBitQ, SIGMOD 2024: `|x|^2 / <x, code>`).
//!
//! Scan codes lie in blocks of rows, so that one vector register holds the same
//! components of many rows and no sum runs across its lanes:
//!
//! - `int8`: the high halves of codes, in blocks of [`INT8_BLOCK`] rows; low halves are read
//!   of few rows and lie row by row ([`super::int8`]).
//! - `int2`: a component is `4 high + 2 low - 3`, one of -3, -1, 1, 3. The plane of high bits
//!   lies in blocks of [`INT2_BLOCK`] rows: `d / 8` units of 32 bytes, one byte a row, whose
//!   bits are 8 components, the first in the lowest. Low bits are read of few rows, so they
//!   lie row by row, each before the factor that belongs to them.

use std::fmt;
use std::str::FromStr;

use half::f16;
use serde::{Deserialize, Serialize};

use super::int8::int8_columns;
use super::rotation;
use crate::quant;

/// Rows in a block of `int8` codes.
pub const INT8_BLOCK: usize = 16;
/// Rows in a block of `int2` codes.
pub const INT2_BLOCK: usize = 32;

/// How rows that are read one by one are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowEncoding {
    /// 4 bytes a component.
    F32,
    /// 2 bytes a component, rounded to the nearest.
    F16,
}

impl RowEncoding {
    /// Bytes of one component.
    #[must_use]
    pub fn component_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

impl fmt::Display for RowEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        })
    }
}

/// Which codes a gallery has: rows, `int8`, or both, and `int2` before either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codes {
    /// Two bits a component, to scan.
    pub int2: bool,
    /// Eight bits a component, to scan or to score what `int2` found.
    pub int8: bool,
    /// Whole rows, to score what a scan found.
    pub rows: Option<RowEncoding>,
}

impl Codes {
    /// Rows of 4 bytes a component, nothing else.
    pub const F32: Self = Self::of_rows(RowEncoding::F32);
    /// Rows of 2 bytes a component, nothing else.
    pub const F16: Self = Self::of_rows(RowEncoding::F16);
    /// The smallest gallery that answers alone.
    pub const INT8: Self = Self {
        int2: false,
        int8: true,
        rows: None,
    };
    /// 2-bit codes alone: for a part of a row, not for a gallery.
    pub(super) const INT2: Self = Self {
        int2: true,
        int8: false,
        rows: None,
    };
    /// A scan of int8 codes, scores of f16 rows.
    pub const INT8_F16: Self = Self {
        rows: Some(RowEncoding::F16),
        ..Self::INT8
    };
    /// A scan of 2-bit codes, scores of f16 rows.
    pub const INT2_F16: Self = Self {
        int2: true,
        int8: false,
        rows: Some(RowEncoding::F16),
    };
    /// A scan of 2-bit codes, scores of int8 codes.
    pub const INT2_INT8: Self = Self {
        int2: true,
        int8: true,
        rows: None,
    };

    const fn of_rows(rows: RowEncoding) -> Self {
        Self {
            int2: false,
            int8: false,
            rows: Some(rows),
        }
    }

    /// Whether scores can be computed: 2-bit codes alone are for finding only.
    #[must_use]
    pub fn can_score(self) -> bool {
        self.int8 || self.rows.is_some()
    }

    /// Name of the code that scores are computed from, whatever is scanned before.
    #[must_use]
    pub fn scoring(self) -> String {
        self.rows
            .map_or_else(|| "int8".to_owned(), |rows| rows.to_string())
    }

    /// Bytes that one more row of this many components takes, without its id and strings.
    #[must_use]
    pub fn row_bytes(self, dim: usize) -> usize {
        let int2 = if self.int2 {
            int2_columns(dim) * 2 + 4
        } else {
            0
        };
        let int8 = if self.int8 {
            int8_columns(dim) * 8 + 4
        } else {
            0
        };
        let rows = self.rows.map_or(0, |rows| dim * rows.component_bytes());
        int2 + int8 + rows
    }
}

impl From<RowEncoding> for Codes {
    fn from(rows: RowEncoding) -> Self {
        Self::of_rows(rows)
    }
}

impl fmt::Display for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows.map(|rows| rows.to_string());
        let names = [
            self.int2.then_some("int2"),
            self.int8.then_some("int8"),
            rows.as_deref(),
        ];
        f.write_str(&names.into_iter().flatten().collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Codes {
    type Err = String;

    /// Reads a list such as `int8,f16`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut codes = Self {
            int2: false,
            int8: false,
            rows: None,
        };
        for name in text.split(',') {
            match (name, codes.rows) {
                ("int2", _) => codes.int2 = true,
                ("int8", _) => codes.int8 = true,
                ("f16", None) => codes.rows = Some(RowEncoding::F16),
                ("f32", None) => codes.rows = Some(RowEncoding::F32),
                ("f16" | "f32", Some(other)) => {
                    return Err(format!("`{name}` beside `{other}`: one of them is enough"));
                }
                _ => {
                    return Err(format!(
                        "`{name}` is no code; a list of int2, int8, f16 or f32 is needed"
                    ));
                }
            }
        }
        if codes.can_score() {
            Ok(codes)
        } else {
            Err("2-bit codes only find; add int8, f16 or f32 to score with".to_owned())
        }
    }
}

/// Codes of an encoded row: a multiple of 4, those that are missing being 0. Contents are named
/// by these, so that a gallery keeps its name in every version.
pub(super) fn int8_codes(dim: usize) -> usize {
    dim.next_multiple_of(4)
}

/// Bytes of one plane of a row of int2 codes: units of 8 components.
#[must_use]
pub fn int2_columns(dim: usize) -> usize {
    dim.div_ceil(8)
}

/// Bytes of a row's low bits and of the factor that follows them.
pub(super) fn int2_low_bytes(columns: usize) -> usize {
    columns + 2
}

/// Where byte `column` of row `row` lies in a plane of int2 codes in blocks.
pub(super) fn int2_offset(columns: usize, row: usize, column: usize) -> usize {
    let (block, in_block) = (row / INT2_BLOCK, row % INT2_BLOCK);
    (block * columns + column) * INT2_BLOCK + in_block
}

/// One row as a gallery stores it, components in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncodedRow {
    /// The planes of high and of low bits; empty without `int2`.
    pub int2: [Vec<u8>; 2],
    /// Factors of the plane of high bits alone, and of both.
    pub factors: [f16; 2],
    /// Continued with 0 to a multiple of 4; empty without `int8`.
    pub int8: Vec<i8>,
    /// Of the int8 codes.
    pub scale: f32,
    /// Little-endian components; empty without rows.
    pub row: Vec<u8>,
}

impl EncodedRow {
    /// Encodes a unit vector.
    #[must_use]
    pub fn of(unit: &[f32], codes: Codes) -> Self {
        let mut encoded = Self::default();
        if codes.int2 {
            (encoded.int2, encoded.factors) = encode_int2(unit);
        }
        if codes.int8 {
            encoded.scale = quant::symmetric_scale(unit);
            let codes = unit.iter().map(|x| quant::to_i8(*x, encoded.scale));
            encoded.int8 = codes.collect();
            encoded.int8.resize(int8_codes(unit.len()), 0);
        }
        encoded.row = match codes.rows {
            Some(RowEncoding::F32) => quant::f32_bytes(unit),
            Some(RowEncoding::F16) => quant::f16_bytes(&quant::to_f16(unit)),
            None => Vec::new(),
        };
        encoded
    }

    /// Gives everything that is stored, for a fingerprint.
    pub(super) fn for_each_piece(&self, mut give: impl FnMut(&[u8])) {
        let int8: Vec<u8> = self.int8.iter().map(|code| code.cast_unsigned()).collect();
        let factors = self.factors.map(|factor| factor.to_bits().to_le_bytes());
        give(&self.int2[0]);
        give(&self.int2[1]);
        give(factors.as_flattened());
        give(&int8);
        give(&self.scale.to_le_bytes());
        give(&self.row);
    }
}

/// Levels lie at -3, -1, 1, 3 half steps; a step of about one standard deviation is the
/// best for normal components, and a few others are tried for each row.
const STEPS: [f32; 9] = [0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5];

/// Both planes of a unit vector's 2-bit codes, and the factors of the first plane alone and
/// of both.
fn encode_int2(unit: &[f32]) -> ([Vec<u8>; 2], [f16; 2]) {
    let mut rotated = unit.to_vec();
    rotated.resize(8 * int2_columns(unit.len()), 0.0);
    rotation::rotate(&mut rotated);
    let deviation = 1.0 / (rotated.len() as f32).sqrt();
    let level = |x: f32, step: f32| {
        let size = if x.abs() >= step { 3.0 } else { 1.0 };
        if x < 0.0 { -size } else { size }
    };
    // The best step gives the code that points most nearly where the row does.
    let cosine = |step: f32| {
        let (mut product, mut square) = (0.0, 0.0);
        for x in &rotated {
            let level = level(*x, step);
            product += x * level;
            square += level * level;
        }
        product / f32::sqrt(square)
    };
    let step = STEPS
        .map(|step| step * deviation)
        .into_iter()
        .max_by(|a, b| cosine(*a).total_cmp(&cosine(*b)))
        .expect("several steps");

    let mut planes = [const { Vec::new() }; 2];
    let (mut high_product, mut product) = (0.0_f32, 0.0_f32);
    for components in rotated.chunks_exact(8) {
        let (mut high, mut low) = (0, 0);
        for (bit, x) in components.iter().enumerate() {
            let level = level(*x, step);
            high |= u8::from(level > 0.0) << bit;
            low |= u8::from(level == -1.0 || level == 3.0) << bit;
            high_product += x.abs();
            product += x * level;
        }
        planes[0].push(high);
        planes[1].push(low);
    }
    (
        planes,
        [high_product, product].map(|sum| f16::from_f32(1.0 / sum)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedding::l2_normalize;
    use crate::random::Random;

    #[test]
    fn codes_are_read_as_they_are_written() {
        for text in [
            "f32",
            "f16",
            "int8",
            "int8,f16",
            "int2,f16",
            "int2,int8",
            "int2,int8,f32",
        ] {
            assert_eq!(text.parse::<Codes>().unwrap().to_string(), text);
        }
        for (text, problem) in [
            ("int2", "only find"),
            ("f16,f32", "one of them"),
            ("int4", "no code"),
            ("", "no code"),
        ] {
            let message = text.parse::<Codes>().unwrap_err();
            assert!(message.contains(problem), "{message}");
        }
    }

    /// What the two planes say that the score with a rotated query is.
    fn int2_score(query: &[f32], encoded: &EncodedRow) -> (f32, f32) {
        let (mut high_sum, mut sum) = (0.0, 0.0);
        for (i, x) in query.iter().enumerate() {
            let bit = |plane: &[u8]| f32::from(plane[i / 8] >> (i % 8) & 1);
            high_sum += x * (2.0 * bit(&encoded.int2[0]) - 1.0);
            sum += x * (4.0 * bit(&encoded.int2[0]) + 2.0 * bit(&encoded.int2[1]) - 3.0);
        }
        let [high, both] = encoded.factors.map(f32::from);
        (high_sum * high, sum * both)
    }

    #[test]
    fn two_bits_estimate_scores_and_one_bit_less_well() {
        let mut random = Random::new(5);
        for dim in [24, 100, 128, 200] {
            let unit = |random: &mut Random| {
                let mut x: Vec<f32> = (0..dim).map(|_| random.normal() as f32).collect();
                l2_normalize(&mut x);
                x
            };
            let (mut error_one, mut error_two) = (0.0_f32, 0.0_f32);
            for _ in 0..200 {
                let (row, query) = (unit(&mut random), unit(&mut random));
                let mut rotated = query.clone();
                rotated.resize(8 * int2_columns(dim), 0.0);
                rotation::rotate(&mut rotated);
                let exact: f32 = row.iter().zip(&query).map(|(a, b)| a * b).sum();
                let encoded = EncodedRow::of(&row, Codes::INT2_F16);
                let (one, two) = int2_score(&rotated, &encoded);
                error_one += (one - exact).powi(2) / 200.0;
                error_two += (two - exact).powi(2) / 200.0;
            }
            // 2-bit codes keep 88 % of a normal variable's variance, signs 64 %; the rest
            // spreads over the components.
            let padded = 8.0 * int2_columns(dim) as f32;
            assert!(error_two < 0.25 / padded, "{dim}: {error_two}");
            assert!(
                error_two < error_one && error_one < 0.9 / padded,
                "{dim}: {error_one}"
            );
        }
    }

    #[test]
    fn offsets_fill_a_block_without_gaps() {
        let columns = 3;
        let mut seen = vec![false; INT2_BLOCK * columns * 2];
        for row in 0..2 * INT2_BLOCK {
            for column in 0..columns {
                seen[int2_offset(columns, row, column)] = true;
            }
        }
        assert!(seen.iter().all(|seen| *seen));
    }
}
