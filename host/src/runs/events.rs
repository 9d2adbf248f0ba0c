//! Event files that TensorBoard reads: scalars by step.
//!
//! An event file is a record file of `Event` messages (protocol buffers). Only the fields
//! that scalars need are written and read here:
//!
//! | message | field | what |
//! |---|---:|---|
//! | `Event` | 1 | wall time, seconds since 1970, f64 |
//! | `Event` | 2 | step, varint |
//! | `Event` | 3 | file version, of the first event |
//! | `Event` | 5 | `Summary` |
//! | `Summary` | 1 | `Value` |
//! | `Value` | 1 | tag |
//! | `Value` | 2 | value, f32 |

use super::record_file::{framed, records};

/// Name of the event file in a run directory; TensorBoard looks for `tfevents` in names.
pub const EVENT_FILE: &str = "events.out.tfevents.eyas";

const FILE_VERSION: &str = "brain.Event:2";

/// A number at a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// Seconds since 1970.
    pub wall_time: f64,
    /// Steps done.
    pub step: u64,
    /// What it is, such as `training/loss`.
    pub tag: String,
    /// Its value.
    pub value: f32,
}

/// The record that an event file begins with.
#[must_use]
pub fn first_record(wall_time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    write_f64(&mut event, 1, wall_time);
    write_bytes(&mut event, 3, FILE_VERSION.as_bytes());
    framed(&event)
}

impl Scalar {
    /// The record of this scalar.
    #[must_use]
    pub fn record(&self) -> Vec<u8> {
        let mut value = Vec::new();
        write_bytes(&mut value, 1, self.tag.as_bytes());
        write_key(&mut value, 2, Wire::Fixed32);
        value.extend(self.value.to_le_bytes());
        let mut summary = Vec::new();
        write_bytes(&mut summary, 1, &value);
        let mut event = Vec::new();
        write_f64(&mut event, 1, self.wall_time);
        write_key(&mut event, 2, Wire::Varint);
        write_varint(&mut event, self.step);
        write_bytes(&mut event, 5, &summary);
        framed(&event)
    }
}

/// The scalars of an event file, up to its end or the first damaged record.
#[must_use]
pub fn scalars(bytes: &[u8]) -> Vec<Scalar> {
    records(bytes).flat_map(scalars_of_event).collect()
}

/// The part of an event file up to `step`, without what a killed run left half-written: a
/// run that goes on at `step` writes the rest again. A file without a first record gets one.
#[must_use]
pub fn cut_after(bytes: &[u8], step: u64, wall_time: f64) -> Vec<u8> {
    let version = records(bytes).next().filter(|event| {
        let mut fields = fields(event);
        fields.any(|(number, field)| number == 3 && field == Field::Bytes(FILE_VERSION.as_bytes()))
    });
    let mut kept = version.map_or_else(|| first_record(wall_time), framed);
    let scalars = scalars(bytes).into_iter();
    for scalar in scalars.filter(|scalar| scalar.step <= step) {
        kept.extend(scalar.record());
    }
    kept
}

fn scalars_of_event(event: &[u8]) -> Vec<Scalar> {
    let (mut wall_time, mut step) = (0.0, 0);
    let mut summaries = Vec::new();
    for field in fields(event) {
        match field {
            (1, Field::Fixed64(bytes)) => wall_time = f64::from_le_bytes(bytes),
            (2, Field::Varint(value)) => step = value,
            (5, Field::Bytes(summary)) => summaries.push(summary),
            _ => {}
        }
    }
    let values = summaries.into_iter().flat_map(fields);
    values
        .filter_map(|field| match field {
            (1, Field::Bytes(value)) => scalar_of(value, wall_time, step),
            _ => None,
        })
        .collect()
}

fn scalar_of(value: &[u8], wall_time: f64, step: u64) -> Option<Scalar> {
    let (mut tag, mut number) = (None, None);
    for field in fields(value) {
        match field {
            (1, Field::Bytes(bytes)) => tag = String::from_utf8(bytes.to_vec()).ok(),
            (2, Field::Fixed32(bytes)) => number = Some(f32::from_le_bytes(bytes)),
            _ => {}
        }
    }
    Some(Scalar {
        wall_time,
        step,
        tag: tag?,
        value: number?,
    })
}

/// How a field's value is stored.
#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
    Fixed32 = 5,
}

#[derive(Debug, PartialEq)]
enum Field<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn write_key(out: &mut Vec<u8>, number: u64, wire: Wire) {
    write_varint(out, number << 3 | wire as u64);
}

fn write_f64(out: &mut Vec<u8>, number: u64, value: f64) {
    write_key(out, number, Wire::Fixed64);
    out.extend(value.to_le_bytes());
}

fn write_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    write_key(out, number, Wire::Bytes);
    write_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Number and value of the fields of a message, up to the first that makes no sense.
fn fields(message: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let (key, after) = varint(rest)?;
        let (field, after) = match key & 7 {
            0 => varint(after).map(|(value, after)| (Field::Varint(value), after))?,
            1 => {
                let (bytes, after) = after.split_first_chunk()?;
                (Field::Fixed64(*bytes), after)
            }
            2 => {
                let (length, after) = varint(after)?;
                let (bytes, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
                (Field::Bytes(bytes), after)
            }
            5 => {
                let (bytes, after) = after.split_first_chunk()?;
                (Field::Fixed32(*bytes), after)
            }
            _ => return None,
        };
        rest = after;
        Some((key >> 3, field))
    })
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (position, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[position + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(step: u64) -> Scalar {
        Scalar {
            wall_time: 1.5e9 + step as f64,
            step,
            tag: "training/loss".to_owned(),
            value: 0.25 * step as f32,
        }
    }

    fn file(steps: &[u64]) -> Vec<u8> {
        let records = steps.iter().map(|step| scalar(*step).record());
        std::iter::once(first_record(7.0))
            .chain(records)
            .flatten()
            .collect()
    }

    #[test]
    fn scalars_come_back() {
        let steps = [0, 10, 300, u64::MAX];
        assert_eq!(scalars(&file(&steps)), steps.map(scalar));
    }

    #[test]
    fn a_cut_file_ends_at_the_step_and_begins_with_its_version() {
        let mut torn = file(&[10, 20, 30]);
        torn.truncate(torn.len() - 3);
        assert_eq!(cut_after(&torn, 10, 9.0), file(&[10]));
        assert_eq!(cut_after(&torn, 99, 9.0), file(&[10, 20]));
        assert_eq!(cut_after(b"something else", 99, 7.0), file(&[]));
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        let whole = file(&[10, 20]);
        for position in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[position] ^= 1 << bit;
                assert!(scalars(&damaged).len() <= 2);
            }
        }
        // Messages whose frame is right and whose content is not.
        let content = records(&whole).nth(1).unwrap().to_vec();
        for position in 0..content.len() {
            for byte in [0x00, 0x7f, 0x80, 0xff] {
                let mut damaged = content.clone();
                damaged[position] = byte;
                assert!(scalars(&framed(&damaged)).len() <= 1);
            }
        }
    }
}
