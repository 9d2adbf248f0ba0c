//! The stack machine: opcodes to values.

use super::{Memo, Name, NumberType, PickleFault, Value};

/// Opcodes that are refused, with Python's names for them.
const REFUSED: [(u8, &str); 15] = [
    (b'P', "PERSID"),
    (b'Q', "BINPERSID"),
    (b'i', "INST"),
    (b'o', "OBJ"),
    (0x81, "NEWOBJ"),
    (0x82, "EXT1"),
    (0x83, "EXT2"),
    (0x84, "EXT4"),
    (0x8f, "EMPTY_SET"),
    (0x90, "ADDITEMS"),
    (0x91, "FROZENSET"),
    (0x92, "NEWOBJ_EX"),
    (0x96, "BYTEARRAY8"),
    (0x97, "NEXT_BUFFER"),
    (0x98, "READONLY_BUFFER"),
];

pub(super) struct Machine<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Place of the opcode that runs.
    opcode_at: usize,
    values: Vec<Value>,
    stack: Vec<usize>,
    /// Heights of the stack at the marks.
    marks: Vec<usize>,
    memo: Memo,
}

type Step = Result<(), PickleFault>;

impl<'b> Machine<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            opcode_at: 0,
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Memo::new(),
        }
    }

    /// All values, and which is the outermost.
    pub(super) fn run(mut self) -> Result<(Vec<Value>, usize), PickleFault> {
        loop {
            self.opcode_at = self.at;
            let opcode = self.byte("an opcode")?;
            if opcode == b'.' {
                let top = self.pop()?;
                return Ok((self.values, top));
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Step {
        match opcode {
            0x80 => self.protocol(),
            0x95 => self.take(8, "a frame's length").map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.since_mark().map(drop),
            b'2' => {
                let top = self.peek()?;
                self.stack.push(top);
                Ok(())
            }
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'I' | b'J' | b'K' | b'L' | b'M' | 0x8a | 0x8b => self.whole_number(opcode),
            b'F' | b'G' => self.float(opcode),
            b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d => self.text(opcode),
            b'B' | b'C' | 0x8e => {
                let bytes = self.counted(opcode)?.to_vec();
                self.push(Value::Bytes(bytes))
            }
            b')' | b't' | 0x85..=0x87 => self.tuple(opcode),
            b']' | b'l' | b'a' | b'e' => self.list(opcode),
            b'}' | b'd' | b's' | b'u' => self.dictionary(opcode),
            b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.remember(opcode),
            b'c' | 0x93 => self.name(opcode),
            b'R' => self.call(),
            b'b' => self.build(),
            other => Err(self.refuse(other)),
        }
    }

    fn refuse(&self, opcode: u8) -> PickleFault {
        let known = REFUSED.iter().find(|(code, _)| *code == opcode);
        PickleFault::Opcode {
            name: known.map_or_else(|| format!("{opcode:#04x}"), |(_, name)| (*name).to_owned()),
            at: self.opcode_at,
        }
    }

    fn damaged(&self, what: &'static str) -> PickleFault {
        PickleFault::Damaged {
            at: self.opcode_at,
            what,
        }
    }

    fn protocol(&mut self) -> Step {
        match self.byte("the protocol's number")? {
            0..=4 => Ok(()),
            _ => Err(self.damaged("protocols up to 4 are read")),
        }
    }

    fn whole_number(&mut self, opcode: u8) -> Step {
        let value = match opcode {
            b'I' => match self.line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                text => self.decimal(text)?,
            },
            b'L' => {
                let text = self.line()?;
                self.decimal(text.strip_suffix('L').unwrap_or(text))?
            }
            b'J' => Value::Int(i32::from_le_bytes(self.array("a number")?).into()),
            b'K' => Value::Int(self.byte("a number")?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array("a number")?).into()),
            0x8a => {
                let n = self.byte("a length")?;
                self.long(n.into())?
            }
            _ => {
                let n = u32::from_le_bytes(self.array("a length")?);
                self.long(n as usize)?
            }
        };
        self.push(value)
    }

    fn decimal(&self, text: &str) -> Result<Value, PickleFault> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
            return Err(self.damaged("a number is not written in digits"));
        }
        Ok(text.parse().map_or(Value::BigInt, Value::Int))
    }

    /// Little-endian two's complement of any length.
    fn long(&mut self, n_bytes: usize) -> Result<Value, PickleFault> {
        let bytes = self.take(n_bytes, "a number")?;
        if bytes.len() > 8 {
            return Ok(Value::BigInt);
        }
        let is_negative = bytes.last().is_some_and(|last| *last >= 0x80);
        let mut wide = [if is_negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }

    fn float(&mut self, opcode: u8) -> Step {
        let value = if opcode == b'F' {
            let parsed = self.line()?.parse();
            parsed.map_err(|_| self.damaged("a number is not written in digits"))?
        } else {
            // The only big-endian number of the format.
            let mut bytes: [u8; 8] = self.array("a number")?;
            bytes.reverse();
            f64::from_le_bytes(bytes)
        };
        self.push(Value::Float(value))
    }

    fn text(&mut self, opcode: u8) -> Step {
        let value = match opcode {
            b'S' => {
                let line = self.line()?;
                let inner = { ['\'', '"'] }
                    .into_iter()
                    .find_map(|quote| line.strip_prefix(quote)?.strip_suffix(quote));
                match inner {
                    Some(text) if !text.contains('\\') => Value::Text(text.to_owned()),
                    _ => return Err(self.damaged("a text is not quoted, or holds escapes")),
                }
            }
            b'V' => match self.raw_line()? {
                text if text.contains(&b'\\') => {
                    return Err(self.damaged("a text holds escapes"));
                }
                latin_1 => Value::Text(latin_1.iter().map(|byte| char::from(*byte)).collect()),
            },
            // The strings of Python 2 are bytes without a declared encoding.
            b'T' | b'U' => {
                let bytes = self.counted(opcode)?;
                match str::from_utf8(bytes) {
                    Ok(text) => Value::Text(text.to_owned()),
                    Err(_) => Value::Bytes(bytes.to_vec()),
                }
            }
            _ => {
                let bytes = self.counted(opcode)?;
                match str::from_utf8(bytes) {
                    Ok(text) => Value::Text(text.to_owned()),
                    Err(_) => return Err(self.damaged("a text is not UTF-8")),
                }
            }
        };
        self.push(value)
    }

    /// Bytes after their length.
    fn counted(&mut self, opcode: u8) -> Result<&'b [u8], PickleFault> {
        let n_bytes = match opcode {
            b'C' | b'U' | 0x8c => self.byte("a length")?.into(),
            0x8d | 0x8e => u64::from_le_bytes(self.array("a length")?),
            _ => u32::from_le_bytes(self.array("a length")?).into(),
        };
        let n_bytes = usize::try_from(n_bytes).unwrap_or(usize::MAX);
        self.take(n_bytes, "a text's bytes")
    }

    fn tuple(&mut self, opcode: u8) -> Step {
        let items = match opcode {
            b')' => Vec::new(),
            b't' => self.since_mark()?,
            _ => {
                let n_items = usize::from(opcode - 0x84);
                let first = self.stack.len().checked_sub(n_items);
                let first = first.filter(|first| *first >= self.floor());
                let first = first.ok_or_else(|| self.damaged("the stack is too short"))?;
                self.stack.split_off(first)
            }
        };
        self.push(Value::Tuple(items))
    }

    fn list(&mut self, opcode: u8) -> Step {
        let items = match opcode {
            b']' => return self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.since_mark()?;
                return self.push(Value::List(items));
            }
            b'a' => vec![self.pop()?],
            _ => self.since_mark()?,
        };
        let list = self.peek()?;
        match &mut self.values[list] {
            Value::List(known) => {
                known.extend(items);
                Ok(())
            }
            _ => Err(self.damaged("something else than a list is appended to")),
        }
    }

    fn dictionary(&mut self, opcode: u8) -> Step {
        let items = match opcode {
            b'}' => Vec::new(),
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.since_mark()?,
        };
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.damaged("a key has no value"));
        }
        let pairs = pairs.iter().map(|[key, value]| (*key, *value));
        if matches!(opcode, b'}' | b'd') {
            return self.push(Value::Dict(pairs.collect()));
        }
        let dictionary = self.peek()?;
        match &mut self.values[dictionary] {
            Value::Dict(known) => {
                known.extend(pairs);
                Ok(())
            }
            _ => Err(self.damaged("something else than a dictionary is filled")),
        }
    }

    fn remember(&mut self, opcode: u8) -> Step {
        let number = match opcode {
            b'p' | b'g' => {
                let number = self.line()?.parse();
                number.map_err(|_| self.damaged("a memo's number is not written in digits"))?
            }
            b'q' | b'h' => self.byte("a memo's number")?.into(),
            b'r' | b'j' => u32::from_le_bytes(self.array("a memo's number")?).into(),
            _ => self.memo.len() as u64,
        };
        if matches!(opcode, b'g' | b'h' | b'j') {
            let known = self.memo.get(&number).copied();
            let known = known.ok_or_else(|| self.damaged("a memo is used before it is made"))?;
            self.stack.push(known);
        } else {
            let top = self.peek()?;
            self.memo.insert(number, top);
        }
        Ok(())
    }

    fn name(&mut self, opcode: u8) -> Step {
        let (module, name) = if opcode == b'c' {
            (self.line()?.to_owned(), self.line()?.to_owned())
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (&self.values[module], &self.values[name]) {
                (Value::Text(module), Value::Text(name)) => (module.clone(), name.clone()),
                _ => return Err(self.damaged("a name is not text")),
            }
        };
        match Name::of(&module, &name) {
            Some(name) => self.push(Value::Name(name)),
            None => Err(PickleFault::Name {
                name: format!("{module}.{name}"),
                at: self.opcode_at,
            }),
        }
    }

    /// What the few known names would give for these arguments.
    fn call(&mut self) -> Step {
        let (arguments, name) = (self.pop()?, self.pop()?);
        let Value::Name(name) = self.values[name] else {
            return Err(self.damaged("something else than a name is called"));
        };
        let Value::Tuple(arguments) = &self.values[arguments] else {
            return Err(self.damaged("arguments are no tuple"));
        };
        let argument = |i: usize| arguments.get(i).map(|argument| &self.values[*argument]);
        let value = match (name, argument(0), argument(1)) {
            (Name::Reconstruct, Some(Value::Name(Name::Array)), _) => Some(Value::EmptyArray),
            (Name::Type, Some(Value::Text(text)), _) => NumberType::of(text).map(Value::Type),
            (Name::Scalar, Some(Value::Type(kind)), Some(content)) => {
                let numbers = content.raw().and_then(|bytes| kind.numbers(bytes));
                numbers.map(Value::Numbers)
            }
            // Each character of the text is one byte.
            (Name::Encode, Some(Value::Text(text)), _) => {
                let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
                bytes.map(Value::Bytes)
            }
            _ => None,
        };
        match value {
            Some(value) => self.push(value),
            None => Err(self.damaged("NumPy's names take other arguments")),
        }
    }

    /// The second half of an array or of its type.
    fn build(&mut self) -> Step {
        let (state, object) = (self.pop()?, self.peek()?);
        let Value::Tuple(state) = &self.values[state] else {
            return Err(self.damaged("a state is no tuple"));
        };
        let part = |i: usize| state.get(i).map(|part| &self.values[*part]);
        let built = match (&self.values[object], part(0), part(1)) {
            // Version, byte order, then what only structured types fill.
            (Value::Type(kind), Some(Value::Int(_)), Some(Value::Text(order))) => {
                Some(Value::Type(NumberType {
                    is_big_endian: order == ">",
                    ..*kind
                }))
            }
            // Version, shape, type, whether Fortran-ordered, bytes.
            (Value::EmptyArray, _, Some(Value::Tuple(shape))) => {
                let is_one_row = shape.len() <= 1;
                match (part(2), part(3), part(4)) {
                    (Some(Value::Type(kind)), Some(order), Some(content))
                        if is_one_row || *order == Value::Bool(false) =>
                    {
                        let numbers = content.raw().and_then(|bytes| kind.numbers(bytes));
                        numbers.map(Value::Numbers)
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        match built {
            Some(built) => {
                self.values[object] = built;
                Ok(())
            }
            None => Err(self.damaged("an array is not one of plain numbers")),
        }
    }

    fn push(&mut self, value: Value) -> Step {
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    /// Height below which the last mark forbids to take.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn peek(&self) -> Result<usize, PickleFault> {
        let top = self.stack.last().copied();
        top.ok_or_else(|| self.damaged("the stack is empty"))
    }

    fn pop(&mut self) -> Result<usize, PickleFault> {
        if self.stack.len() <= self.floor() {
            return Err(self.damaged("the stack is too short"));
        }
        let top = self.stack.pop();
        top.ok_or_else(|| self.damaged("the stack is empty"))
    }

    fn since_mark(&mut self) -> Result<Vec<usize>, PickleFault> {
        let mark = self.marks.pop();
        let mark = mark.ok_or_else(|| self.damaged("there is no mark"))?;
        if mark > self.stack.len() {
            return Err(self.damaged("the stack is too short"));
        }
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, n_bytes: usize, needed: &'static str) -> Result<&'b [u8], PickleFault> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..n_bytes).ok_or(PickleFault::Truncated {
            at: self.at,
            needed,
        })?;
        self.at += n_bytes;
        Ok(taken)
    }

    fn byte(&mut self, needed: &'static str) -> Result<u8, PickleFault> {
        self.take(1, needed).map(|bytes| bytes[0])
    }

    fn array<const N: usize>(&mut self, needed: &'static str) -> Result<[u8; N], PickleFault> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, needed)?);
        Ok(out)
    }

    /// Text up to the end of the line.
    fn line(&mut self) -> Result<&'b str, PickleFault> {
        let line = str::from_utf8(self.raw_line()?).map(|line| line.trim_end_matches('\r'));
        line.map_err(|_| self.damaged("a line is not UTF-8"))
    }

    fn raw_line(&mut self) -> Result<&'b [u8], PickleFault> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or(PickleFault::Truncated {
            at: self.at,
            needed: "a line",
        })?;
        self.at += end + 1;
        Ok(&rest[..end])
    }
}
