//! 32 bytes at a time.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm256_abs_epi8, _mm256_add_epi8, _mm256_add_epi16,
    _mm256_add_epi32, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sign_epi8,
    _mm256_slli_epi16, _mm256_srli_epi16, _mm256_storeu_si256, _mm256_sub_epi16,
};

use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};

use super::{INT8_UNIT, MAX_U16_COLUMNS, Tables};

#[target_feature(enable = "avx2")]
pub(super) fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes are there, and any alignment will do.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn load_table(table: &[u8; 16]) -> __m256i {
    // SAFETY: 16 bytes are there, and any alignment will do.
    let table: __m128i = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
    _mm256_broadcastsi128_si256(table)
}

#[target_feature(enable = "avx2")]
pub(super) fn int8(
    units: &[[u8; INT8_UNIT]],
    columns: usize,
    queries: &[&[[i8; 4]]],
    sums: &mut [Vec<[i32; INT8_BLOCK]>],
) {
    for (b, block) in units.chunks_exact(columns).enumerate() {
        // Pairs of queries: more would not leave registers for the codes.
        for (queries, sums) in queries.chunks(2).zip(sums.chunks_mut(2)) {
            match (queries, sums) {
                ([one], [sums]) => [sums[b]] = int8_block(block, [one]),
                ([one, two], [sums, more]) => [sums[b], more[b]] = int8_block(block, [one, two]),
                _ => unreachable!("chunks of at most two"),
            }
        }
    }
}

/// The products of one block with some queries.
///
/// The sign of a code goes to the query's byte, so that `maddubs` sees one unsigned factor;
/// 127 * 127 * 2 fits its 16 bits.
#[target_feature(enable = "avx2")]
fn int8_block<const Q: usize>(
    block: &[[u8; INT8_UNIT]],
    queries: [&[[i8; 4]]; Q],
) -> [[i32; INT8_BLOCK]; Q] {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); 2]; Q];
    for (column, unit) in block.iter().enumerate() {
        let (halves, _) = unit.as_chunks::<32>();
        let codes = [load(&halves[0]), load(&halves[1])];
        let sizes = [_mm256_abs_epi8(codes[0]), _mm256_abs_epi8(codes[1])];
        for (query, sums) in queries.iter().zip(&mut sums) {
            let bytes = query[column].map(i8::cast_unsigned);
            let query = _mm256_set1_epi32(i32::from_le_bytes(bytes));
            for half in 0..2 {
                let signed = _mm256_sign_epi8(query, codes[half]);
                let pairs = _mm256_maddubs_epi16(sizes[half], signed);
                let products = _mm256_madd_epi16(pairs, ones);
                sums[half] = _mm256_add_epi32(sums[half], products);
            }
        }
    }
    sums.map(|sums| {
        let mut out = [0_i32; INT8_BLOCK];
        let (halves, _) = out.as_chunks_mut::<8>();
        for (half, sum) in halves.iter_mut().zip(sums) {
            // SAFETY: 8 sums of 4 bytes are there, and any alignment will do.
            unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), sum) };
        }
        out
    })
}

#[target_feature(enable = "avx2")]
pub(super) fn int2(units: &[[u8; INT2_BLOCK]], tables: &[Tables], sums: &mut [[i32; INT2_BLOCK]]) {
    for (block, sums) in units.chunks_exact(tables.len()).zip(sums) {
        *sums = [0; INT2_BLOCK];
        let pieces = block.chunks(MAX_U16_COLUMNS);
        for (units, tables) in pieces.zip(tables.chunks(MAX_U16_COLUMNS)) {
            let mut both = _mm256_setzero_si256();
            let mut odd = _mm256_setzero_si256();
            for (unit, tables) in units.iter().zip(tables) {
                let entries = int2_unit(unit, tables);
                both = _mm256_add_epi16(both, entries);
                odd = _mm256_add_epi16(odd, _mm256_srli_epi16::<8>(entries));
            }
            add_rows(both, odd, sums);
        }
    }
}

/// Both entries of every row, added: at most 240.
#[target_feature(enable = "avx2")]
fn int2_unit(unit: &[u8; INT2_BLOCK], [low, high]: &Tables) -> __m256i {
    let nibble = _mm256_set1_epi8(15);
    let codes = load(unit);
    let low_codes = _mm256_and_si256(codes, nibble);
    let high_codes = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble);
    _mm256_add_epi8(
        _mm256_shuffle_epi8(load_table(low), low_codes),
        _mm256_shuffle_epi8(load_table(high), high_codes),
    )
}

/// Adds what gathered in 16 bits: `odd` the sums of odd rows, `both` those of even rows
/// plus 256 times those of odd ones, modulo 2^16.
#[target_feature(enable = "avx2")]
pub(super) fn add_rows(both: __m256i, odd: __m256i, sums: &mut [i32; INT2_BLOCK]) {
    let even = _mm256_sub_epi16(both, _mm256_slli_epi16::<8>(odd));
    let (mut even_sums, mut odd_sums) = ([0_u16; 16], [0_u16; 16]);
    // SAFETY: 16 sums of 2 bytes are there in each, and any alignment will do.
    unsafe {
        _mm256_storeu_si256(even_sums.as_mut_ptr().cast(), even);
        _mm256_storeu_si256(odd_sums.as_mut_ptr().cast(), odd);
    }
    let (pairs, _) = sums.as_chunks_mut::<2>();
    for ((pair, even), odd) in pairs.iter_mut().zip(even_sums).zip(odd_sums) {
        pair[0] += i32::from(even);
        pair[1] += i32::from(odd);
    }
}
