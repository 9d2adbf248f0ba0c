//! 64 bytes at a time: codes of 8 and of 2 bits, and f16.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GE_OQ, _mm256_add_epi16, _mm256_loadu_si256, _mm256_permute2x128_si256,
    _mm256_unpackhi_epi16, _mm256_unpacklo_epi16, _mm512_add_epi8, _mm512_add_epi16,
    _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_si256, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_dpbusd_epi32,
    _mm512_extracti64x4_epi64, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_maskz_mov_epi8,
    _mm512_min_ps, _mm512_mul_ps, _mm512_reduce_add_epi32, _mm512_set1_epi8, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_slli_epi16,
    _mm512_slli_epi32, _mm512_srli_epi16, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_epi16,
    _mm512_sub_epi32, _mm512_zextsi256_si512,
};

use eyas_shared::gallery::codes::INT2_BLOCK;

use super::int8::Int8Unit;
use super::{
    HighLook, Int2Query, Int2Unit, Int8Blocks, Int8Query, Int8Tile, MAX_QUERIES, MAX_U16_COLUMNS,
    Seen, Tables, asks_ahead, low_rows_of, prefetch_ahead, scalar,
};

/// Numbers of 32 bits in a register.
const GROUP: usize = 16;

#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes are there, and any alignment will do.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn load_floats(values: &[f32; 16]) -> __m512 {
    // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
fn store_floats(to: &mut [f32; 16], values: __m512) {
    // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), values) };
}

#[target_feature(enable = "avx512f")]
fn load_sums(sums: &[i32; 16]) -> __m512i {
    // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
    unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn int8_high(blocks: &Int8Blocks<'_>, queries: &[Int8Query], tiles: &mut [Int8Tile]) {
    // A query alone waits for the memory, which is quickest to read in one stream. Many wait for
    // products, and a word of theirs that was loaded serves two blocks.
    if queries.len() == 1 {
        int8_tile::<1, 1, 4>(blocks, queries, tiles);
    } else {
        int8_tile::<MAX_QUERIES, 2, 1>(blocks, queries, tiles);
    }
}

/// A look at high halves for up to `Q` queries, `B` blocks and `C` columns at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int8_tile<const Q: usize, const B: usize, const C: usize>(
    blocks: &Int8Blocks<'_>,
    queries: &[Int8Query],
    tiles: &mut [Int8Tile],
) {
    // Missing queries repeat the first, so that one loop serves every number of them.
    let word = |column: usize, part: usize, q: usize| {
        let word = queries.get(q).unwrap_or(&queries[0]).words[column][part];
        i32::from_le_bytes(word.map(i8::cast_unsigned))
    };
    let words: Vec<[[i32; Q]; 2]> = (0..blocks.columns)
        .map(|column| [0, 1].map(|part| std::array::from_fn(|q| word(column, part, q))))
        .collect();
    // Two blocks at a time are two streams, which no hardware foresees as well as one.
    let asks_ahead = B > 1 || asks_ahead();
    let n_blocks = blocks.scales.len();
    for first in (0..n_blocks).step_by(B) {
        // A last block alone is its own neighbor.
        let at: [usize; B] = std::array::from_fn(|i| (first + i).min(n_blocks - 1));
        let units = at.map(|b| &blocks.units[b * blocks.columns..][..blocks.columns]);
        if asks_ahead {
            for units in units {
                prefetch_ahead(units.as_flattened());
            }
        } else {
            blocks.touch(first);
        }
        let sums = int8_sums::<Q, B, C>(units, &words);
        for (b, sums) in at.into_iter().zip(sums) {
            // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
            let scales = unsafe { _mm512_loadu_ps(blocks.scales[b].as_ptr().cast()) };
            for ((sum, query), tile) in sums.into_iter().zip(queries).zip(&mut *tiles) {
                set_products(sum, scales, query, b, tile);
            }
        }
    }
}

/// Sets what the sums of query codes times high halves imply for block `b`.
#[target_feature(enable = "avx512f")]
fn set_products(sums: __m512i, scales: __m512, query: &Int8Query, b: usize, tile: &mut Int8Tile) {
    let offset = _mm512_set1_epi32(query.offset());
    let products = _mm512_add_epi32(_mm512_slli_epi32::<4>(sums), offset);
    let margin = _mm512_set1_ps(query.margin);
    let bounds = _mm512_mul_ps(
        _mm512_add_ps(_mm512_cvtepi32_ps(products), margin),
        _mm512_mul_ps(_mm512_set1_ps(query.scale), scales),
    );
    let threshold = _mm512_set1_ps(tile.threshold);
    tile.hits[b] = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(bounds, threshold);
    // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
    unsafe { _mm512_storeu_si512(tile.products[b].as_mut_ptr().cast(), products) };
}

/// Sums of the high halves of some blocks times the codes of each query.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int8_sums<const Q: usize, const B: usize, const C: usize>(
    blocks: [&[Int8Unit]; B],
    words: &[[[i32; Q]; 2]],
) -> [[__m512i; Q]; B] {
    let mut sums = [[[_mm512_setzero_si512(); Q]; B]; C];
    let (whole_words, last_words) = words.as_chunks::<C>();
    for (start, words) in (0..).step_by(C).zip(whole_words) {
        for c in 0..C {
            add_column(&mut sums[c], &blocks, start + c, &words[c]);
        }
    }
    for (column, words) in (C * whole_words.len()..).zip(last_words) {
        add_column(&mut sums[0], &blocks, column, words);
    }
    let mut totals = sums[0];
    for sums in &sums[1..] {
        for (total, sum) in totals
            .as_flattened_mut()
            .iter_mut()
            .zip(sums.as_flattened())
        {
            *total = _mm512_add_epi32(*total, *sum);
        }
    }
    totals
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_column<const Q: usize, const B: usize>(
    sums: &mut [[__m512i; Q]; B],
    blocks: &[&[Int8Unit]; B],
    column: usize,
    words: &[[i32; Q]; 2],
) {
    let nibble = _mm512_set1_epi8(15);
    let (mut lower, mut upper) = ([nibble; B], [nibble; B]);
    for b in 0..B {
        let halves = load(&blocks[b][column]);
        lower[b] = _mm512_and_si512(halves, nibble);
        upper[b] = _mm512_and_si512(_mm512_srli_epi16::<4>(halves), nibble);
    }
    for (part, halves) in [lower, upper].into_iter().enumerate() {
        for q in 0..Q {
            let word = _mm512_set1_epi32(words[part][q]);
            for b in 0..B {
                sums[b][q] = _mm512_dpbusd_epi32(sums[b][q], halves[b], word);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn int8_low(row: &[u8], lower: &[i8], upper: &[i8]) -> i32 {
    let nibble = _mm512_set1_epi8(15);
    let ((blocks, rest), (lower, lower_rest), (upper, upper_rest)) =
        (row.as_chunks(), lower.as_chunks(), upper.as_chunks());
    let mut sums = _mm512_setzero_si512();
    for (halves, (lower, upper)) in blocks.iter().zip(lower.iter().zip(upper)) {
        let halves = load(halves);
        let low = _mm512_and_si512(halves, nibble);
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(halves), nibble);
        sums = _mm512_dpbusd_epi32(sums, low, load_codes(lower));
        sums = _mm512_dpbusd_epi32(sums, high, load_codes(upper));
    }
    _mm512_reduce_add_epi32(sums) + scalar::int8_low(rest, lower_rest, upper_rest)
}

#[target_feature(enable = "avx512f")]
fn load_codes(codes: &[i8; 64]) -> __m512i {
    // SAFETY: 64 bytes are there, and any alignment will do.
    unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) }
}

/// Tables for two neighboring columns, in the quarters of a register: twice the first, twice
/// the second, as rows of a block lie. First those for low nibbles.
pub(super) type TablePair = [[u8; 64]; 2];

/// A last column alone gets a neighbor that adds nothing.
pub(super) fn pair_tables(columns: &[Tables]) -> TablePair {
    let mut pair = [[0; 64]; 2];
    for (nibble, quarters) in pair.iter_mut().enumerate() {
        let (quarters, _) = quarters.as_chunks_mut::<16>();
        for (column, tables) in columns.iter().enumerate() {
            quarters[2 * column..][..2].fill(tables[nibble]);
        }
    }
    pair
}

#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn int2_high(
    units: &[Int2Unit],
    factors: &[[[u8; 2]; INT2_BLOCK]],
    query: &Int2Query,
    look: &mut HighLook,
) {
    let threshold = _mm512_set1_ps(look.threshold);
    let blocks = units.chunks_exact(query.tables.len()).zip(factors);
    for ((block, factors), found) in blocks.zip(&mut look.blocks) {
        prefetch_ahead(block.as_flattened());
        let (factors, _) = factors.as_chunks::<GROUP>();
        let (sums, _) = found.sums.as_chunks_mut::<GROUP>();
        let (bounds, _) = found.bounds.as_chunks_mut::<GROUP>();
        found.hits = 0;
        for (half, totals) in int2_totals(block, &query.pairs).into_iter().enumerate() {
            let products = _mm512_sub_epi32(totals, _mm512_set1_epi32(query.bias));
            let bound = int2_bounds(0, products, &factors[half], query);
            // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
            unsafe { _mm512_storeu_si512(sums[half].as_mut_ptr().cast(), totals) };
            store_floats(&mut bounds[half], bound);
            let reached = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(bound, threshold);
            found.hits |= u32::from(reached) << (GROUP * half);
        }
    }
}

/// The codes of a query as bytes, continued with zeros, and their sum.
pub(super) fn code_blocks(codes: &[i8]) -> (Vec<[u8; 64]>, i32) {
    let block = |codes: &[i8]| {
        let mut block = [0; 64];
        for (byte, code) in block.iter_mut().zip(codes) {
            *byte = code.cast_unsigned();
        }
        block
    };
    let sum = codes.iter().map(|code| i32::from(*code)).sum();
    (codes.chunks(64).map(block).collect(), sum)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn int2_low(low_rows: &[u8], seen: &[Seen], query: &Int2Query, bounds: &mut Vec<f32>) {
    let mut rows = low_rows_of(low_rows, seen, query.tables.len());
    while bounds.len() < seen.len() {
        let (mut high, mut low) = ([0; GROUP], [0; GROUP]);
        let (mut of_high, mut factors) = ([0.0; GROUP], [[0; 2]; GROUP]);
        for (i, (seen, bits, factor)) in rows.by_ref().take(GROUP).enumerate() {
            (high[i], of_high[i]) = (seen.sum, seen.bound);
            (low[i], factors[i]) = (low_product(bits, query), factor);
        }
        let high = _mm512_sub_epi32(load_sums(&high), _mm512_set1_epi32(query.bias));
        let both = _mm512_add_epi32(_mm512_slli_epi32::<1>(high), load_sums(&low));
        // The second where the first is not lower.
        let lower = _mm512_min_ps(int2_bounds(1, both, &factors, query), load_floats(&of_high));
        let mut stored = [0.0; GROUP];
        store_floats(&mut stored, lower);
        let n_left = seen.len() - bounds.len();
        bounds.extend_from_slice(&stored[..n_left.min(GROUP)]);
    }
}

/// The product of a query with the low bits of a row: twice the codes where a bit is set,
/// less all codes.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn low_product(bits: &[u8], query: &Int2Query) -> i32 {
    let (codes, all) = &query.codes;
    let ones = _mm512_set1_epi8(1);
    let mut sums = _mm512_setzero_si512();
    let mut add = |bits: [u8; 8], codes: &[u8; 64]| {
        let set = _mm512_maskz_mov_epi8(u64::from_le_bytes(bits), ones);
        sums = _mm512_dpbusd_epi32(sums, set, load(codes));
    };
    let (words, rest) = bits.as_chunks::<8>();
    for (bits, codes) in words.iter().zip(codes) {
        add(*bits, codes);
    }
    if let (false, Some(codes)) = (rest.is_empty(), codes.get(words.len())) {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        add(word, codes);
    }
    2 * _mm512_reduce_add_epi32(sums) - all
}

/// Bounds of sixteen rows by their products with the high bits (0) or both planes (1).
#[target_feature(enable = "avx512f")]
fn int2_bounds(
    planes: usize,
    products: __m512i,
    factors: &[[u8; 2]; GROUP],
    query: &Int2Query,
) -> __m512 {
    let margin = _mm512_set1_ps(query.margins[planes]);
    _mm512_mul_ps(
        _mm512_add_ps(_mm512_cvtepi32_ps(products), margin),
        _mm512_mul_ps(_mm512_set1_ps(query.scale), widen(factors)),
    )
}

/// Sums of the table entries of one plane of a block, of any number of columns.
#[target_feature(enable = "avx512f,avx512bw")]
fn int2_totals(block: &[Int2Unit], pairs: &[TablePair]) -> [__m512i; 2] {
    if block.len() <= MAX_U16_COLUMNS {
        return int2_sums(block, pairs);
    }
    let mut totals = [_mm512_setzero_si512(); 2];
    let chunks = block.chunks(MAX_U16_COLUMNS);
    for (units, pairs) in chunks.zip(pairs.chunks(MAX_U16_COLUMNS / 2)) {
        for (total, sums) in totals.iter_mut().zip(int2_sums(units, pairs)) {
            *total = _mm512_add_epi32(*total, sums);
        }
    }
    totals
}

/// Sums of the table entries of 32 rows, in order.
#[target_feature(enable = "avx512f,avx512bw")]
fn int2_sums(units: &[Int2Unit], pairs: &[TablePair]) -> [__m512i; 2] {
    let nibble = _mm512_set1_epi8(15);
    // Sums of even rows plus 256 times those of odd ones, modulo 2^16, and of odd rows: of
    // even columns in the low half, of odd ones in the high half.
    let mut both = _mm512_setzero_si512();
    let mut odd = _mm512_setzero_si512();
    let mut add = |codes: __m512i, [low, high]: &TablePair| {
        let low_codes = _mm512_and_si512(codes, nibble);
        let high_codes = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble);
        let entries = _mm512_add_epi8(
            _mm512_shuffle_epi8(load(low), low_codes),
            _mm512_shuffle_epi8(load(high), high_codes),
        );
        both = _mm512_add_epi16(both, entries);
        odd = _mm512_add_epi16(odd, _mm512_srli_epi16::<8>(entries));
    };
    let (unit_pairs, last) = units.as_chunks::<2>();
    for (unit_pair, tables) in unit_pairs.iter().zip(pairs) {
        add(
            load(unit_pair.as_flattened().as_array().expect("64 bytes")),
            tables,
        );
    }
    if let ([unit], Some(tables)) = (last, pairs.last()) {
        // SAFETY: 32 bytes are there, and any alignment will do.
        let codes = unsafe { _mm256_loadu_si256(unit.as_ptr().cast()) };
        add(_mm512_zextsi256_si512(codes), tables);
    }
    let even = _mm512_sub_epi16(both, _mm512_slli_epi16::<8>(odd));
    let fold = |sums: __m512i| {
        let high = _mm512_extracti64x4_epi64::<1>(sums);
        _mm256_add_epi16(_mm512_castsi512_si256(sums), high)
    };
    let (even, odd) = (fold(even), fold(odd));
    let (low, high) = (
        _mm256_unpacklo_epi16(even, odd),
        _mm256_unpackhi_epi16(even, odd),
    );
    // Each half of `low` and `high` holds 8 rows; they alternate.
    [
        _mm512_cvtepu16_epi32(_mm256_permute2x128_si256::<0x20>(low, high)),
        _mm512_cvtepu16_epi32(_mm256_permute2x128_si256::<0x31>(low, high)),
    ]
}

/// Sixteen little-endian f16 numbers.
#[target_feature(enable = "avx512f")]
fn widen(halves: &[[u8; 2]; 16]) -> __m512 {
    // SAFETY: 32 bytes are there, and any alignment will do.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
}

/// The product in 16 lanes, as `dot` has them.
#[target_feature(enable = "avx512f")]
pub(super) fn dot_f16(query: &[f32], row: &[[u8; 2]]) -> f32 {
    let mut lanes = _mm512_set1_ps(0.0);
    let (blocks, rest) = query.as_chunks::<16>();
    let (row_blocks, row_rest) = row.as_chunks::<16>();
    for (query, row) in blocks.iter().zip(row_blocks) {
        lanes = _mm512_add_ps(lanes, _mm512_mul_ps(load_floats(query), widen(row)));
    }
    let mut sums = [0.0; 16];
    store_floats(&mut sums, lanes);
    super::finish_dot(
        sums,
        rest.iter().zip(row_rest.iter().copied().map(super::half)),
    )
}

/// Rows that are multiplied side by side: as many as leave no sum waiting for the one before
/// it.
const ROWS_TOGETHER: usize = 8;

#[target_feature(enable = "avx512f")]
pub(super) fn dots(query: &[f32], rows: &[f32], scores: &mut [f32]) {
    let together = |rows: &[f32]| dots_of::<ROWS_TOGETHER>(query, rows);
    let alone = |row: &[f32]| dots_of(query, row);
    super::rows_together(query.len(), rows, scores, together, alone);
}

#[target_feature(enable = "avx512f")]
fn dots_of<const N: usize>(query: &[f32], rows: &[f32]) -> [f32; N] {
    let (blocks, rest) = query.as_chunks::<16>();
    let rows: [&[f32]; N] = std::array::from_fn(|n| &rows[n * query.len()..][..query.len()]);
    let row_blocks = rows.map(|row| &row.as_chunks::<16>().0[..blocks.len()]);
    let mut lanes = [_mm512_set1_ps(0.0); N];
    for (i, query) in blocks.iter().enumerate() {
        let query = load_floats(query);
        for (lanes, row) in lanes.iter_mut().zip(&row_blocks) {
            *lanes = _mm512_add_ps(*lanes, _mm512_mul_ps(query, load_floats(&row[i])));
        }
    }
    std::array::from_fn(|n| {
        let mut sums = [0.0; 16];
        store_floats(&mut sums, lanes[n]);
        let row_rest = rows[n][16 * blocks.len()..].iter().copied();
        super::finish_dot(sums, rest.iter().zip(row_rest))
    })
}
