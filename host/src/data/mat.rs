//! MATLAB's level 5 `.mat` files: numbers, text, cells and structures, as far as lists of
//! images need them.
//!
//! Every length is checked against the bytes that are left, nesting and inflated bytes are
//! bounded. Complex parts, sparse matrices, objects and functions are passed over.

use std::io::Read;

use flate2::read::ZlibDecoder;
use thiserror::Error;

/// Most bytes that one compressed variable may become.
const MAX_INFLATED: u64 = 1 << 29;
/// Cells and structures within each other.
const MAX_DEPTH: usize = 16;
/// Bytes before the first variable.
const HEADER: usize = 128;

// Types of elements.
const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const SINGLE: u32 = 7;
const DOUBLE: u32 = 9;
const INT64: u32 = 12;
const UINT64: u32 = 13;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
const UTF8: u32 = 16;
const UTF16: u32 = 17;

// Classes of arrays.
const CELL: u8 = 1;
const STRUCTURE: u8 = 2;
const TEXT: u8 = 4;
const NUMBERS: std::ops::RangeInclusive<u8> = 6..=15;

/// Why a file gives no variables.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum MatFault {
    /// Another kind of file.
    #[error("it is no MATLAB level 5 file: {what}")]
    Form {
        /// What it is, as far as one can tell.
        what: &'static str,
    },
    /// A length that leads out of its surroundings.
    #[error("the MATLAB file is damaged: {what} does not fit into its element")]
    Outside {
        /// Of what.
        what: &'static str,
    },
    /// An element of another type than belongs there.
    #[error("the MATLAB file is damaged: {what} is of type {found}")]
    Type {
        /// Which.
        what: &'static str,
        /// Its type's number.
        found: u32,
    },
    /// Compressed bytes that are none.
    #[error("a variable of the MATLAB file can not be inflated: {why}")]
    Inflate {
        /// What the decoder says.
        why: String,
    },
    /// Cells within cells.
    #[error("the MATLAB file nests more than {MAX_DEPTH} cells and structures")]
    TooDeep,
    /// Whole, but not what is looked for.
    #[error("the MATLAB file has no {what}")]
    Content {
        /// Which variable or field, and its form.
        what: String,
    },
}

/// What a variable, cell or field holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// In MATLAB's order, columns first.
    Numbers(Vec<f64>),
    Text(String),
    Cells(Vec<Value>),
    /// Elements one after the other, each with all fields in order.
    Structures {
        fields: Vec<String>,
        values: Vec<Value>,
    },
    /// Nothing, or a class that is passed over.
    Other,
}

impl Value {
    /// The elements of a structure array, each as (field, value).
    pub(super) fn elements(&self) -> Option<impl Iterator<Item = Element<'_>>> {
        let Self::Structures { fields, values } = self else {
            return None;
        };
        let chunks = values.chunks_exact(fields.len().max(1));
        Some(chunks.map(|values| Element { fields, values }))
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A single whole number that is not negative.
    pub(super) fn whole(&self) -> Option<usize> {
        match self {
            Self::Numbers(numbers) => match numbers[..] {
                [x] if x >= 0.0 && x.fract() == 0.0 && x < 1e15 => Some(x as usize),
                _ => None,
            },
            _ => None,
        }
    }
}

/// One element of a structure array.
pub(super) struct Element<'v> {
    fields: &'v [String],
    values: &'v [Value],
}

impl<'v> Element<'v> {
    pub(super) fn get(&self, field: &str) -> Option<&'v Value> {
        let at = self.fields.iter().position(|name| name == field)?;
        self.values.get(at)
    }
}

/// All variables by name, in the order of the file.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<(String, Value)>, MatFault> {
    let form = |what| Err(MatFault::Form { what });
    let Some((header, mut rest)) = bytes.split_at_checked(HEADER) else {
        return form("it is too short");
    };
    match &header[124..] {
        [0, 1, b'I', b'M'] => {}
        [_, _, b'M', b'I'] => return form("its bytes are big-endian"),
        [0, 2, b'I', b'M'] => {
            return form("it is of version 7.3, which is HDF5; save it as version 7");
        }
        _ => return form("its header has no version"),
    }
    let mut variables = Vec::new();
    while !rest.is_empty() {
        let element = Element5::take(&mut rest)?;
        match element.kind {
            MATRIX => variables.extend(matrix(element.data, 0)?),
            COMPRESSED => {
                let inflated = inflate(element.data)?;
                let mut inner = inflated.as_slice();
                let element = Element5::take(&mut inner)?;
                if element.kind == MATRIX {
                    variables.extend(matrix(element.data, 0)?);
                }
            }
            _ => {}
        }
    }
    Ok(variables)
}

fn inflate(data: &[u8]) -> Result<Vec<u8>, MatFault> {
    let mut inflated = Vec::new();
    let n_bytes = ZlibDecoder::new(data)
        .take(MAX_INFLATED + 1)
        .read_to_end(&mut inflated)
        .map_err(|err| MatFault::Inflate {
            why: err.to_string(),
        })?;
    if n_bytes as u64 > MAX_INFLATED {
        return Err(MatFault::Inflate {
            why: format!("it is larger than {MAX_INFLATED} bytes"),
        });
    }
    Ok(inflated)
}

/// A tagged piece of a file.
struct Element5<'b> {
    kind: u32,
    data: &'b [u8],
}

impl<'b> Element5<'b> {
    /// Takes the element with which `bytes` begins, and its padding.
    fn take(bytes: &mut &'b [u8]) -> Result<Self, MatFault> {
        let tag = bytes.split_first_chunk::<8>();
        let (tag, rest) = tag.ok_or(MatFault::Outside { what: "a tag" })?;
        let [a, b, c, d, inner @ ..] = *tag;
        let first = u32::from_le_bytes([a, b, c, d]);
        // Up to four bytes may stand within the tag itself.
        if first >> 16 != 0 {
            let n_bytes = (first >> 16) as usize;
            let data = bytes[4..8].get(..n_bytes);
            let data = data.ok_or(MatFault::Outside {
                what: "a small element",
            })?;
            *bytes = rest;
            return Ok(Self {
                kind: first & 0xffff,
                data,
            });
        }
        let n_bytes = u32::from_le_bytes(inner) as usize;
        let data = rest
            .get(..n_bytes)
            .ok_or(MatFault::Outside { what: "an element" })?;
        // Compressed elements are not padded; at the end of a file padding may be missing.
        let padded = match first {
            COMPRESSED => n_bytes,
            _ => n_bytes.next_multiple_of(8),
        };
        *bytes = &rest[padded.min(rest.len())..];
        Ok(Self { kind: first, data })
    }

    fn of_kind(self, kind: u32, what: &'static str) -> Result<&'b [u8], MatFault> {
        if self.kind == kind {
            return Ok(self.data);
        }
        Err(MatFault::Type {
            what,
            found: self.kind,
        })
    }
}

/// Name and value of an array; `None` for an empty element.
fn matrix(mut data: &[u8], depth: usize) -> Result<Option<(String, Value)>, MatFault> {
    if data.is_empty() {
        return Ok(None);
    }
    if depth > MAX_DEPTH {
        return Err(MatFault::TooDeep);
    }
    let flags = Element5::take(&mut data)?.of_kind(UINT32, "an array's flags")?;
    let class = *flags.first().ok_or(MatFault::Outside {
        what: "an array's class",
    })?;
    let sides = Element5::take(&mut data)?.of_kind(INT32, "an array's shape")?;
    let sides = sides.as_chunks::<4>().0.iter();
    let n_values = sides
        .map(|side| i32::from_le_bytes(*side))
        .try_fold(1_usize, |n, side| {
            n.checked_mul(usize::try_from(side).ok()?)
        });
    let n_values = n_values.ok_or(MatFault::Outside {
        what: "an array's shape",
    })?;
    let name = Element5::take(&mut data)?.of_kind(INT8, "an array's name")?;
    let name = String::from_utf8_lossy(name).into_owned();
    let value = match class {
        CELL => Value::Cells(several(&mut data, n_values, depth)?),
        STRUCTURE => structures(&mut data, n_values, depth)?,
        TEXT => Value::Text(text(&Element5::take(&mut data)?)?),
        class if NUMBERS.contains(&class) => Value::Numbers(numbers(&Element5::take(&mut data)?)?),
        _ => Value::Other,
    };
    Ok(Some((name, value)))
}

/// As many arrays as that, one after the other.
fn several(data: &mut &[u8], n_values: usize, depth: usize) -> Result<Vec<Value>, MatFault> {
    // Each takes at least its tag.
    if n_values > data.len() / 8 {
        return Err(MatFault::Outside {
            what: "an array of cells",
        });
    }
    let mut values = Vec::with_capacity(n_values);
    for _ in 0..n_values {
        let inner = Element5::take(data)?.of_kind(MATRIX, "a cell or field")?;
        values.push(matrix(inner, depth + 1)?.map_or(Value::Other, |(_, value)| value));
    }
    Ok(values)
}

fn structures(data: &mut &[u8], n_elements: usize, depth: usize) -> Result<Value, MatFault> {
    let outside = MatFault::Outside {
        what: "a structure's field names",
    };
    let length = Element5::take(data)?.of_kind(INT32, "the length of field names")?;
    let length = length.first_chunk::<4>().copied().map(i32::from_le_bytes);
    let length = length.and_then(|length| usize::try_from(length).ok());
    let length = length.filter(|length| *length > 0).ok_or(outside.clone())?;
    let names = Element5::take(data)?.of_kind(INT8, "field names")?;
    let name = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0);
        String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
    };
    let fields: Vec<String> = names.chunks_exact(length).map(name).collect();
    let n_values = n_elements.checked_mul(fields.len()).ok_or(outside)?;
    let values = several(data, n_values, depth)?;
    Ok(Value::Structures { fields, values })
}

fn numbers(element: &Element5<'_>) -> Result<Vec<f64>, MatFault> {
    macro_rules! widened {
        ($number:ty) => {{
            let chunks = element.data.as_chunks::<{ size_of::<$number>() }>().0;
            let widen =
                |bytes: &[u8; size_of::<$number>()]| <$number>::from_le_bytes(*bytes) as f64;
            chunks.iter().map(widen).collect()
        }};
    }
    Ok(match element.kind {
        INT8 => widened!(i8),
        UINT8 => widened!(u8),
        INT16 => widened!(i16),
        UINT16 => widened!(u16),
        INT32 => widened!(i32),
        UINT32 => widened!(u32),
        SINGLE => widened!(f32),
        DOUBLE => widened!(f64),
        INT64 => widened!(i64),
        UINT64 => widened!(u64),
        found => {
            return Err(MatFault::Type {
                what: "an array of numbers",
                found,
            });
        }
    })
}

fn text(element: &Element5<'_>) -> Result<String, MatFault> {
    let text = match element.kind {
        UTF8 | UINT8 | INT8 => String::from_utf8_lossy(element.data).into_owned(),
        UTF16 | UINT16 => {
            let units = element.data.as_chunks::<2>().0.iter();
            let units: Vec<u16> = units.map(|unit| u16::from_le_bytes(*unit)).collect();
            String::from_utf16_lossy(&units)
        }
        found => {
            return Err(MatFault::Type {
                what: "a text",
                found,
            });
        }
    };
    Ok(text)
}
