//! From the coefficients of a block to its samples: the inverse cosine transform in fixed
//! point, columns first, then rows.
//!
//! Constants have 12 fractional bits. The first pass keeps 2 fractional bits of its result;
//! the second one takes away the rest, and the factor 8 of the two-dimensional transform.
//! All arithmetic wraps around: it is the same on every CPU whatever a file holds.

/// One pass over eight values or vectors of values, named by what adds, subtracts and
/// multiplies them. Products are those of C. Loeffler, A. Ligtenberg and G. Moschytz, "Practical
/// fast 1-D DCT algorithms with 11 multiplications", 1989.
macro_rules! pass {
    ($v:ident, $add:ident, $sub:ident, $mul:ident, $shl:ident, $half:expr, $shr:expr) => {{
        let even = $mul($add($v[2], $v[6]), 2217);
        let t2 = $add(even, $mul($v[6], -7567));
        let t3 = $add(even, $mul($v[2], 3135));
        let t0 = $add($shl($add($v[0], $v[4])), $half);
        let t1 = $add($shl($sub($v[0], $v[4])), $half);
        let x = [$add(t0, t3), $add(t1, t2), $sub(t1, t2), $sub(t0, t3)];

        let p3 = $add($v[7], $v[3]);
        let p4 = $add($v[5], $v[1]);
        let all = $mul($add(p3, p4), 4816);
        let p1 = $add(all, $mul($add($v[7], $v[1]), -3685));
        let p2 = $add(all, $mul($add($v[5], $v[3]), -10497));
        let p3 = $mul(p3, -8034);
        let p4 = $mul(p4, -1597);
        let odd = [
            $add($mul($v[1], 6149), $add(p1, p4)),
            $add($mul($v[3], 12586), $add(p2, p3)),
            $add($mul($v[5], 8410), $add(p2, p4)),
            $add($mul($v[7], 1223), $add(p1, p3)),
        ];
        [
            $shr($add(x[0], odd[0])),
            $shr($add(x[1], odd[1])),
            $shr($add(x[2], odd[2])),
            $shr($add(x[3], odd[3])),
            $shr($sub(x[3], odd[3])),
            $shr($sub(x[2], odd[2])),
            $shr($sub(x[1], odd[1])),
            $shr($sub(x[0], odd[0])),
        ]
    }};
}

#[cfg(target_arch = "x86_64")]
mod avx2;

#[cfg(target_arch = "x86_64")]
pub(super) use self::avx2::avx2;

/// Samples lie around zero in the file.
const LEVEL: i32 = 128;
/// Half of what the first pass cuts off.
const FIRST_HALF: i32 = 1 << 9;
const FIRST_SHIFT: i32 = 10;
/// Half of what the second pass cuts off, the level, and what the first half adds up to.
const SECOND_HALF: i32 = 512 + (1 << 16) + (LEVEL << 17);
const SECOND_SHIFT: i32 = 17;

/// The sample that all pixels of a block have that holds this coefficient alone.
pub(super) fn flat(first: i32) -> u8 {
    (first.wrapping_add((LEVEL << 3) + 4) >> 3).clamp(0, 255) as u8
}

/// As many coefficients, in the order of the file, lie in the first 4 rows and columns.
pub(super) const CORNER_LEN: usize = 10;

/// The samples of a block, row by row. Coefficients from the `len`-th one of the file's order
/// on are zero.
#[inline(always)]
pub(super) fn plain(coefficients: &[i32; 64], len: usize) -> [[u8; 8]; 8] {
    let columns = if len <= CORNER_LEN { 4 } else { 8 };
    let mut half_done = [[0; 8]; 8];
    for x in 0..columns {
        let v: [i32; 8] = std::array::from_fn(|y| coefficients[8 * y + x]);
        let v = pass!(v, add, sub, mul, shl, FIRST_HALF, first_shift);
        for (row, v) in half_done.iter_mut().zip(v) {
            row[x] = v;
        }
    }
    half_done.map(|v| {
        let sample = |v: i32| (v >> SECOND_SHIFT).clamp(0, 255) as u8;
        pass!(v, add, sub, mul, shl, SECOND_HALF, sample)
    })
}

fn add(a: i32, b: i32) -> i32 {
    a.wrapping_add(b)
}

fn sub(a: i32, b: i32) -> i32 {
    a.wrapping_sub(b)
}

fn mul(a: i32, b: i32) -> i32 {
    a.wrapping_mul(b)
}

fn shl(a: i32) -> i32 {
    a << 12
}

fn first_shift(a: i32) -> i32 {
    a >> FIRST_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn blocks() -> impl Iterator<Item = [i32; 64]> {
        let stream = Random::new(1).fork("blocks");
        (0..4000).map(move |trial| {
            let mut stream = stream.at(trial);
            // From a few small coefficients to what wraps around.
            let bits = stream.below(32) as u32;
            let kept = stream.below(64);
            std::array::from_fn(|i| {
                let value = stream.bits() as i32 >> (31 - bits);
                if i <= kept { value } else { 0 }
            })
        })
    }

    #[test]
    fn a_block_with_one_coefficient_is_flat() {
        for first in (-(1 << 16)..1 << 16).step_by(7) {
            let mut block = [0; 64];
            block[0] = first;
            assert_eq!(plain(&block, 64), [[flat(first); 8]; 8], "{first}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn vectors_give_the_same_samples() {
        if !is_x86_feature_detected!("avx2") {
            return;
        }
        for block in blocks() {
            // SAFETY: the feature was found.
            let found = unsafe { avx2(&block, 64) };
            assert_eq!(found, plain(&block, 64), "{block:?}");
        }
    }
}
