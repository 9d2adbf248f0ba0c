//! Python's pickle files as plain data, protocols 0 to 4: read, never executed.
//!
//! A pickle is a program for a small stack machine. The machine here knows None, truth
//! values, numbers, text, bytes, lists, tuples, dictionaries and NumPy's arrays and scalars;
//! an opcode or a name beyond that is refused by its name. Nothing is called, imported or
//! built otherwise. Every length is checked against the bytes that are left.

use std::collections::HashMap;

use thiserror::Error;

use machine::Machine;

mod machine;

/// Numbers that [`Pickle`]'s readers give out in total: a small file can refer to one long
/// list many times.
const MAX_NUMBERS: usize = 100_000_000;

/// Why a pickle gives no data.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PickleFault {
    /// It ends in the middle.
    #[error("the pickle ends at byte {at} where {needed} are needed")]
    Truncated {
        /// Where.
        at: usize,
        /// What was being read.
        needed: &'static str,
    },
    /// An opcode that could run code or that no data file needs.
    #[error(
        "the pickle uses opcode {name} at byte {at}, which is refused: only plain data and NumPy arrays are read"
    )]
    Opcode {
        /// Its name in Python, or its number.
        name: String,
        /// Where.
        at: usize,
    },
    /// A class or function that is not NumPy's.
    #[error(
        "the pickle names `{name}` at byte {at}, which is refused: only plain data and NumPy arrays are read"
    )]
    Name {
        /// Module and name.
        name: String,
        /// Where.
        at: usize,
    },
    /// An opcode that finds something else on the stack than it needs.
    #[error("the pickle is damaged at byte {at}: {what}")]
    Damaged {
        /// Where.
        at: usize,
        /// What does not fit.
        what: &'static str,
    },
    /// Whole, but not what is looked for.
    #[error("the pickle has no {what}")]
    Content {
        /// Key and form.
        what: String,
    },
}

/// What a pickle holds; values refer to each other by number, so shared and even circular
/// values cost nothing.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    top: usize,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number beyond 64 bits.
    BigInt,
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<usize>),
    Tuple(Vec<usize>),
    /// Key, value.
    Dict(Vec<(usize, usize)>),
    /// Numbers of an array in C order.
    Numbers(Vec<f64>),
    /// One of NumPy's names, not yet called.
    Name(Name),
    /// The type of an array's numbers.
    Type(NumberType),
    /// An array whose content comes later.
    EmptyArray,
}

impl Value {
    /// Bytes; those of Python 2 look like text where they happen to be UTF-8.
    fn raw(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Text(text) => Some(text.as_bytes()),
            _ => None,
        }
    }
}

/// The names that may stand in a pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Reconstruct,
    Array,
    Type,
    Scalar,
    /// `_codecs.encode`, which protocol 2 uses for bytes.
    Encode,
}

/// How NumPy names a number's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NumberType {
    /// `i`, `u`, `f` or `b`.
    kind: u8,
    n_bytes: usize,
    is_big_endian: bool,
}

impl Pickle {
    /// Runs the machine.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, PickleFault> {
        let (values, top) = Machine::new(bytes).run()?;
        Ok(Self { values, top })
    }

    /// The outermost value.
    pub(super) fn top(&self) -> Item<'_> {
        Item {
            pickle: self,
            value: &self.values[self.top],
            what: "the outermost value".to_owned(),
        }
    }
}

/// A value with its place in the pickle, for errors.
#[derive(Clone)]
pub(super) struct Item<'p> {
    pickle: &'p Pickle,
    value: &'p Value,
    what: String,
}

impl<'p> Item<'p> {
    fn at(&self, value: usize, what: String) -> Self {
        Self {
            pickle: self.pickle,
            value: &self.pickle.values[value],
            what,
        }
    }

    fn other(&self, needed: &str) -> PickleFault {
        PickleFault::Content {
            what: format!("{needed} as {}", self.what),
        }
    }

    /// The value of a dictionary's key, if it is there. Bytes count as text.
    pub(super) fn find(&self, key: &str) -> Option<Self> {
        let Value::Dict(pairs) = self.value else {
            return None;
        };
        // The last one counts, as in Python.
        let (_, value) = pairs
            .iter()
            .rev()
            .find(|(name, _)| match &self.pickle.values[*name] {
                Value::Text(text) => text == key,
                Value::Bytes(bytes) => bytes == key.as_bytes(),
                _ => false,
            })?;
        Some(self.at(*value, format!("`{key}` of {}", self.what)))
    }

    pub(super) fn get(&self, key: &str) -> Result<Self, PickleFault> {
        let found = self.find(key);
        found.ok_or_else(|| self.other(&format!("dictionary with the key `{key}`")))
    }

    /// The items of a list or tuple.
    pub(super) fn items(&self) -> Result<Vec<Self>, PickleFault> {
        let (Value::List(items) | Value::Tuple(items)) = self.value else {
            return Err(self.other("list"));
        };
        let what = format!("an item of {}", self.what);
        Ok(items
            .iter()
            .map(|item| self.at(*item, what.clone()))
            .collect())
    }

    pub(super) fn text(&self) -> Result<String, PickleFault> {
        let text = match self.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bytes(bytes) => String::from_utf8(bytes.clone()).ok(),
            _ => None,
        };
        text.ok_or_else(|| self.other("text"))
    }

    /// A list of text.
    pub(super) fn texts(&self) -> Result<Vec<String>, PickleFault> {
        self.items()?.iter().map(Self::text).collect()
    }

    /// Numbers of a list, tuple or array. `budget` falls by as many.
    pub(super) fn numbers(&self, budget: &mut Budget) -> Result<Vec<f64>, PickleFault> {
        if let Value::Numbers(numbers) = self.value {
            budget.take(numbers.len())?;
            return Ok(numbers.clone());
        }
        let (Value::List(items) | Value::Tuple(items)) = self.value else {
            return Err(self.other("list or array of numbers"));
        };
        budget.take(items.len())?;
        let number = |item: &usize| match &self.pickle.values[*item] {
            Value::Int(x) => Some(*x as f64),
            Value::Float(x) => Some(*x),
            Value::Bool(x) => Some(f64::from(u8::from(*x))),
            Value::Numbers(one) if one.len() == 1 => Some(one[0]),
            _ => None,
        };
        let numbers: Option<Vec<f64>> = items.iter().map(number).collect();
        numbers.ok_or_else(|| self.other("list or array of numbers"))
    }

    /// Whole numbers below `end`.
    pub(super) fn indices(
        &self,
        end: usize,
        budget: &mut Budget,
    ) -> Result<Vec<usize>, PickleFault> {
        let is_index = |x: &f64| x.fract() == 0.0 && (0.0..end as f64).contains(x);
        let numbers = self.numbers(budget)?;
        if !numbers.iter().all(is_index) {
            return Err(self.other(&format!("list of whole numbers below {end}")));
        }
        Ok(numbers.iter().map(|x| *x as usize).collect())
    }
}

/// How many numbers may still be given out.
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn new() -> Self {
        Self(MAX_NUMBERS)
    }

    fn take(&mut self, n: usize) -> Result<(), PickleFault> {
        let left = self.0.checked_sub(n);
        self.0 = left.ok_or_else(|| PickleFault::Content {
            what: format!("fewer than {MAX_NUMBERS} numbers in its lists"),
        })?;
        Ok(())
    }
}

impl Name {
    fn of(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => {
                Some(Self::Reconstruct)
            }
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Some(Self::Scalar),
            ("numpy", "ndarray") => Some(Self::Array),
            ("numpy", "dtype") => Some(Self::Type),
            ("_codecs", "encode") => Some(Self::Encode),
            _ => None,
        }
    }
}

impl NumberType {
    /// Such as `i8`, `<f4`.
    fn of(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let (is_big_endian, text) = match text {
            [b'>', rest @ ..] => (true, rest),
            [b'<' | b'=' | b'|', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let [kind, size @ ..] = text else { return None };
        let n_bytes = str::from_utf8(size).ok()?.parse().ok()?;
        let is_known = match kind {
            b'i' | b'u' => [1, 2, 4, 8].contains(&n_bytes),
            b'f' => [4, 8].contains(&n_bytes),
            b'b' => n_bytes == 1,
            _ => false,
        };
        is_known.then_some(Self {
            kind: *kind,
            n_bytes,
            is_big_endian,
        })
    }

    /// The numbers that these bytes hold; `None` if one is cut.
    fn numbers(self, bytes: &[u8]) -> Option<Vec<f64>> {
        let number = |bytes: &[u8]| {
            let mut wide = [0; 8];
            for (i, byte) in bytes.iter().enumerate() {
                let place = if self.is_big_endian {
                    bytes.len() - 1 - i
                } else {
                    i
                };
                wide[place] = *byte;
            }
            let bits = u64::from_le_bytes(wide);
            match (self.kind, self.n_bytes) {
                (b'f', 4) => f64::from(f32::from_bits(bits as u32)),
                (b'f', _) => f64::from_bits(bits),
                (b'i', n) => {
                    let unused = 64 - 8 * n as u32;
                    ((bits << unused) as i64 >> unused) as f64
                }
                _ => bits as f64,
            }
        };
        let is_whole = bytes.len().is_multiple_of(self.n_bytes);
        is_whole.then(|| bytes.chunks_exact(self.n_bytes).map(number).collect())
    }
}

/// Numbered shortcuts to values.
type Memo = HashMap<u64, usize>;

#[cfg(test)]
mod tests;
