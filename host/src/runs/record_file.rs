//! The framing of TensorFlow's record files: length, its checksum, content, its checksum.
//!
//! | bytes | what |
//! |---:|---|
//! | 8 | length of the content, little-endian |
//! | 4 | masked CRC-32C of these 8 bytes |
//! | length | content |
//! | 4 | masked CRC-32C of the content |

/// Bytes beside the content: length and two checksums.
const FRAME_BYTES: usize = 16;

/// CRC-32C (Castagnoli), reflected polynomial, for each byte.
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8)
    })
}

/// A checksum of bytes that hold checksums themselves would be weak: it is rotated and
/// shifted by a constant.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// One record as it stands in a file.
#[must_use]
pub fn framed(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(content.len() + FRAME_BYTES);
    bytes.extend(length);
    bytes.extend(masked(&length).to_le_bytes());
    bytes.extend(content);
    bytes.extend(masked(content).to_le_bytes());
    bytes
}

/// The records of a file up to its end or the first damaged one, such as one that was cut.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (content, after) = first(rest)?;
        rest = after;
        Some(content)
    })
}

fn first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (length_sum, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*length_sum) != masked(length) {
        return None;
    }
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (content, rest) = rest.split_at_checked(length)?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    (u32::from_le_bytes(*sum) == masked(content)).then_some((content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn a_damaged_tail_ends_the_records() {
        let whole = [framed(b"one"), framed(b""), framed(b"three")].concat();
        let read = |bytes: &[u8]| -> Vec<Vec<u8>> { records(bytes).map(<[u8]>::to_vec).collect() };
        assert_eq!(read(&whole), [&b"one"[..], b"", b"three"]);
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).len() < 3);
        }
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 0x10;
            assert!(read(&damaged).len() < 3, "byte {position}");
        }
    }
}
