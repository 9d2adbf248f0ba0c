//! The entropy code of a baseline JPEG: Huffman tables, a reader of bits, one block.
//!
//! Whatever a well-made file does not hold gives `None`: the caller leaves such a file to
//! the general decoder, which says what is wrong with it.

use super::header::HuffmanSpec;

/// Bits that one look into a table decides. Most codes are shorter, and most coefficients fit
/// with their code.
const LOOK: u32 = 10;

/// Coefficients of DC differences have at most as many bits with samples of 8 bits.
const MAX_DC_BITS: u32 = 11;
/// As above, for the other coefficients.
const MAX_AC_BITS: u32 = 10;

/// Place in the block (row by row) of the coefficient that comes `i`-th in the file. A run of
/// zeros that leaves the block ends in the last 16 entries, and is noticed later.
const ZIGZAG: [u8; 128] = {
    let mut order = [63; 128];
    let (mut i, mut x, mut y) = (0, 0_u8, 0_u8);
    while i < 64 {
        order[i] = 8 * y + x;
        // Up and to the right on even diagonals, down and to the left on odd ones.
        if (x + y) % 2 == 0 {
            if x == 7 {
                y += 1;
            } else if y == 0 {
                x += 1;
            } else {
                (x, y) = (x + 1, y - 1);
            }
        } else if y == 7 {
            x += 1;
        } else if x == 0 {
            y += 1;
        } else {
            (x, y) = (x - 1, y + 1);
        }
        i += 1;
    }
    order
};

/// A Huffman table, ready to decode.
pub(super) struct Table {
    spec: HuffmanSpec,
    /// By the next [`LOOK`] bits. A coefficient that they hold as a whole: its value in the
    /// upper 16 bits, then the run of zeros before it, then how many bits it takes. A shorter
    /// code: 0, symbol, bits of the code. 0 otherwise.
    look: [u32; 1 << LOOK],
    /// The first code that is longer than `i` bits, on 16 bits.
    ends: [u32; 17],
    /// Index of the value of a code of `i` bits, less the code.
    offsets: [i32; 17],
}

impl Default for Table {
    fn default() -> Self {
        Self {
            spec: HuffmanSpec::default(),
            look: [0; 1 << LOOK],
            ends: [0; 17],
            offsets: [0; 17],
        }
    }
}

impl Table {
    /// Makes the table anew, unless it is the same as before. `None` if there is no such code.
    pub(super) fn set(&mut self, spec: &HuffmanSpec) -> Option<()> {
        if *spec == self.spec {
            return Some(());
        }
        self.spec = HuffmanSpec::default();
        self.look.fill(0);
        let (mut code, mut value) = (0_u32, 0_usize);
        for len in 1..=16 {
            let count = usize::from(spec.counts[len - 1]);
            self.offsets[len] = value as i32 - code as i32;
            for symbol in spec.values.get(value..value + count)? {
                // The code of ones alone belongs to nobody.
                if code + 1 >= 1 << len {
                    return None;
                }
                self.enter(code, len as u32, *symbol);
                code += 1;
            }
            value += count;
            self.ends[len] = code << (16 - len);
            code <<= 1;
        }
        self.spec = spec.clone();
        Some(())
    }

    /// The code that these 16 bits begin with: its bits, and its symbol.
    #[inline(never)]
    fn long_code(&self, bits: u32) -> Option<(u32, u32)> {
        let len = (1..=16).find(|&len| bits < self.ends[len])?;
        let index = (bits >> (16 - len)) as i32 + self.offsets[len];
        let symbol = self.spec.values.get(usize::try_from(index).ok()?)?;
        Some((len as u32, u32::from(*symbol)))
    }

    fn enter(&mut self, code: u32, len: u32, symbol: u8) {
        if len > LOOK {
            return;
        }
        let free = LOOK - len;
        let start = code << free;
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        for rest in 0..1 << free {
            self.look[(start + rest) as usize] = if size != 0 && size <= free {
                let value = extend(rest >> (free - size), size);
                (value as u32) << 16 | run << 8 | (len + size)
            } else {
                u32::from(symbol) << 8 | len
            };
        }
    }
}

/// The number that `size` bits stand for: those that begin with 0 are negative.
#[inline(always)]
fn extend(bits: u32, size: u32) -> i32 {
    let is_negative = bits >> (size - 1) == 0;
    bits as i32 - if is_negative { (1 << size) - 1 } else { 0 }
}

/// Reads bits of bytes from which the stuffing was taken.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte that is not in `window`.
    at: usize,
    /// The next bits, from the top. Those behind `count` are what follows, or zero.
    window: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    /// `bytes` may be read up to 8 bytes behind the last one that is asked for.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at,
            window: 0,
            count: 0,
        }
    }

    /// Bits that were read, counted from the start of `bytes`.
    pub(super) fn position(&self) -> usize {
        8 * self.at - self.count as usize
    }

    /// At least 32 bits are there afterwards, as many as a code and its coefficient take.
    #[inline(always)]
    #[expect(clippy::big_endian_bytes, reason = "the first bit is the top one")]
    fn refill(&mut self) -> Option<()> {
        if self.count < 32 {
            let next = u64::from_be_bytes(*self.bytes.get(self.at..)?.first_chunk()?);
            self.window |= next >> self.count;
            let taken = (63 - self.count) / 8;
            self.at += taken as usize;
            self.count += 8 * taken;
        }
        Some(())
    }

    #[inline(always)]
    fn skip(&mut self, count: u32) {
        self.window = self.window.wrapping_shl(count);
        self.count = self.count.wrapping_sub(count);
    }

    /// `count` is 1 to 16.
    #[inline(always)]
    fn take(&mut self, count: u32) -> u32 {
        let bits = (self.window >> (64 - count)) as u32;
        self.skip(count);
        bits
    }

    /// The symbol of the next code, which is no coefficient that the look holds as a whole.
    #[inline(always)]
    fn symbol(&mut self, table: &Table, entry: u32) -> Option<u32> {
        if entry != 0 {
            self.skip(entry & 0xff);
            return Some(entry >> 8 & 0xff);
        }
        self.long_symbol(table)
    }

    #[inline(always)]
    fn long_symbol(&mut self, table: &Table) -> Option<u32> {
        let (len, symbol) = table.long_code((self.window >> 48) as u32)?;
        self.skip(len);
        Some(symbol)
    }
    /// The difference of a DC coefficient to the one before.
    #[inline(always)]
    fn dc(&mut self, table: &Table) -> Option<i32> {
        self.refill()?;
        let entry = table.look[(self.window >> (64 - LOOK)) as usize];
        let value = entry as i32 >> 16;
        if value != 0 {
            self.skip(entry & 0xff);
            // The upper half of a symbol is a run, and there is none before a DC coefficient.
            return (entry >> 8 & 0xff == 0).then_some(value);
        }
        match self.symbol(table, entry)? {
            0 => Some(0),
            size @ 1..=MAX_DC_BITS => Some(extend(self.take(size), size)),
            _ => None,
        }
    }

    /// Reads a block into `coefficients` (row by row, all zero before), multiplied by `steps`
    /// (in the order of the file). Gives how many coefficients were written, counted in the
    /// order of the file up to the last one.
    #[inline(always)]
    pub(super) fn block(
        &mut self,
        dc: &Table,
        ac: &Table,
        steps: &[i32; 64],
        coefficients: &mut [i32; 64],
        last_dc: &mut i32,
    ) -> Option<usize> {
        *last_dc = last_dc.wrapping_add(self.dc(dc)?);
        let first = last_dc.wrapping_mul(steps[0]);
        // No picture has such a one; the shortcuts of the transform may rely on it.
        if first.unsigned_abs() >= 1 << 16 || last_dc.unsigned_abs() >= 1 << 15 {
            return None;
        }
        coefficients[0] = first;
        // A copy stays in registers.
        let mut bits = *self;
        let len = bits.rest_of_block(ac, steps, coefficients)?;
        *self = bits;
        Some(len)
    }

    /// All coefficients but the first.
    #[inline(always)]
    fn rest_of_block(
        &mut self,
        ac: &Table,
        steps: &[i32; 64],
        coefficients: &mut [i32; 64],
    ) -> Option<usize> {
        let mut next = 1;
        while next < 64 {
            self.refill()?;
            let entry = ac.look[(self.window >> (64 - LOOK)) as usize];
            let mut value = entry as i32 >> 16;
            if value != 0 {
                self.skip(entry & 0xff);
                next += (entry >> 8 & 0xff) as usize;
            } else {
                let symbol = self.symbol(ac, entry)?;
                match (symbol >> 4, symbol & 15) {
                    (0, 0) => return Some(next),
                    (15, 0) => {
                        next += 16;
                        continue;
                    }
                    (run, size @ 1..=MAX_AC_BITS) => {
                        value = extend(self.take(size), size);
                        next += run as usize;
                    }
                    _ => return None,
                }
            }
            let step = steps[next & 63];
            coefficients[usize::from(ZIGZAG[next & 127] & 63)] = value.wrapping_mul(step);
            next += 1;
        }
        (next == 64).then_some(64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zigzag_visits_every_place_once() {
        assert_eq!(ZIGZAG[..10], [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]);
        assert_eq!(ZIGZAG[60..64], [47, 55, 62, 63]);
        let mut places = ZIGZAG[..64].to_vec();
        places.sort_unstable();
        assert_eq!(places, (0..64).collect::<Vec<u8>>());
    }
}
