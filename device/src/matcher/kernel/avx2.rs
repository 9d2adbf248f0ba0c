//! 32 bytes at a time.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _CMP_GE_OQ, _mm_loadu_si128, _mm256_add_epi8, _mm256_add_epi16,
    _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_broadcastsi128_si256,
    _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32,
    _mm256_cvtph_ps, _mm256_extracti128_si256, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_movemask_ps, _mm256_mul_ps, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_srli_epi16, _mm256_storeu_ps,
    _mm256_storeu_si256, _mm256_sub_epi16, _mm256_sub_epi32, _mm256_unpackhi_epi16,
    _mm256_unpacklo_epi16,
};

use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};

use super::int8::{Int8Unit, number};
use super::{
    FIRST_CACHE, GROUP, Hits, Int2Query, Int2Unit, Int8Blocks, Int8Query, MAX_U16_COLUMNS, Tables,
    asks_ahead, prefetch_ahead, scalar,
};

#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
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
fn load_floats(values: &[f32; 8]) -> __m256 {
    // SAFETY: 8 numbers of 4 bytes are there, and any alignment will do.
    unsafe { _mm256_loadu_ps(values.as_ptr()) }
}

#[target_feature(enable = "avx2")]
fn store_floats(to: &mut [f32; 8], values: __m256) {
    // SAFETY: 8 numbers of 4 bytes are there, and any alignment will do.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), values) };
}

#[target_feature(enable = "avx2")]
pub(super) fn int8_high(blocks: &Int8Blocks<'_>, queries: &[Int8Query], hits: &mut [Hits]) {
    let asks_ahead = asks_ahead();
    for (b, (block, scales)) in blocks.each().enumerate() {
        if asks_ahead {
            prefetch_ahead::<FIRST_CACHE>(block.as_flattened());
        }
        // Pairs of queries: more would not leave registers for the codes.
        for (queries, hits) in queries.chunks(2).zip(hits.chunks_mut(2)) {
            if let [one, two] = queries {
                int8_block(block, scales, b, [one, two], hits);
            } else {
                int8_block(block, scales, b, [&queries[0]], hits);
            }
        }
    }
}

/// Columns whose products can be added up in 16 bits: two times two of 127 * 15 each.
const MAX_I16_COLUMNS: usize = 4;

/// A look at block `b` for some queries.
#[target_feature(enable = "avx2")]
fn int8_block<const Q: usize>(
    block: &[Int8Unit],
    scales: &[[u8; 4]; INT8_BLOCK],
    b: usize,
    queries: [&Int8Query; Q],
    hits: &mut [Hits],
) {
    let mut sums = [[_mm256_setzero_si256(); 2]; Q];
    let (groups, last) = block.as_chunks::<MAX_I16_COLUMNS>();
    for (i, units) in groups.iter().enumerate() {
        add_columns(&mut sums, units, i * MAX_I16_COLUMNS, &queries);
    }
    add_columns(&mut sums, last, groups.len() * MAX_I16_COLUMNS, &queries);
    let (scales, _) = scales.as_chunks::<8>();
    for ((query, sums), hits) in queries.iter().zip(sums).zip(hits) {
        let bounds = [
            int8_bounds(sums[0], &scales[0], query),
            int8_bounds(sums[1], &scales[1], query),
        ];
        add_hits(b * INT8_BLOCK, sums, bounds, hits);
    }
}

/// Adds the products of at most [`MAX_I16_COLUMNS`] columns to the sums of the first eight rows
/// and of the others.
#[inline]
#[target_feature(enable = "avx2")]
fn add_columns<const Q: usize>(
    sums: &mut [[__m256i; 2]; Q],
    units: &[Int8Unit],
    start: usize,
    queries: &[&Int8Query; Q],
) {
    let (ones, nibble) = (_mm256_set1_epi16(1), _mm256_set1_epi8(15));
    let mut pairs = [[_mm256_setzero_si256(); 2]; Q];
    for (column, unit) in (start..).zip(units) {
        let (parts, _) = unit.as_chunks::<32>();
        for half in 0..2 {
            let halves = load(&parts[half]);
            let lower = _mm256_and_si256(halves, nibble);
            let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(halves), nibble);
            for q in 0..Q {
                let words = &queries[q].words[column];
                let lower = _mm256_maddubs_epi16(lower, repeat(words[0]));
                let upper = _mm256_maddubs_epi16(upper, repeat(words[1]));
                let both = _mm256_add_epi16(lower, upper);
                pairs[q][half] = _mm256_add_epi16(pairs[q][half], both);
            }
        }
    }
    for q in 0..Q {
        for half in 0..2 {
            let added = _mm256_madd_epi16(pairs[q][half], ones);
            sums[q][half] = _mm256_add_epi32(sums[q][half], added);
        }
    }
}

/// Adds the hits of a group.
#[target_feature(enable = "avx2")]
fn add_hits(first: usize, sums: [__m256i; 2], bounds: [__m256; 2], hits: &mut Hits) {
    let threshold = _mm256_set1_ps(hits.threshold);
    let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(bounds[0], threshold));
    let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(bounds[1], threshold));
    let reached = low | high << 8;
    if reached != 0 {
        let (mut stored_sums, mut stored_bounds) = ([0; GROUP], [0.0; GROUP]);
        let (sum_halves, _) = stored_sums.as_chunks_mut::<8>();
        let (bound_halves, _) = stored_bounds.as_chunks_mut::<8>();
        for half in 0..2 {
            // SAFETY: 8 numbers of 4 bytes are there, and any alignment will do.
            unsafe { _mm256_storeu_si256(sum_halves[half].as_mut_ptr().cast(), sums[half]) };
            store_floats(&mut bound_halves[half], bounds[half]);
        }
        hits.add(reached as u16, first, &stored_sums, &stored_bounds);
    }
}

/// Four codes, again and again.
#[target_feature(enable = "avx2")]
fn repeat(codes: [i8; 4]) -> __m256i {
    _mm256_set1_epi32(number(codes))
}

/// Bounds of eight rows by their sums.
#[target_feature(enable = "avx2")]
fn int8_bounds(sums: __m256i, scales: &[[u8; 4]; 8], query: &Int8Query) -> __m256 {
    let above = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(16.0));
    let above = _mm256_add_ps(above, _mm256_set1_ps(query.to_bound));
    // SAFETY: 8 numbers of 4 bytes are there, and any alignment will do.
    let scales = unsafe { _mm256_loadu_ps(scales.as_ptr().cast()) };
    _mm256_mul_ps(above, scales)
}

#[target_feature(enable = "avx2")]
pub(super) fn int8_low(row: &[u8], lower: &[i8], upper: &[i8]) -> i32 {
    let (ones, nibble) = (_mm256_set1_epi16(1), _mm256_set1_epi8(15));
    let ((blocks, rest), (lower, lower_rest), (upper, upper_rest)) =
        (row.as_chunks(), lower.as_chunks(), upper.as_chunks());
    let mut sums = _mm256_setzero_si256();
    for (halves, (lower, upper)) in blocks.iter().zip(lower.iter().zip(upper)) {
        let halves = load(halves);
        let low = _mm256_and_si256(halves, nibble);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(halves), nibble);
        let pairs = _mm256_add_epi16(
            _mm256_maddubs_epi16(low, load_codes(lower)),
            _mm256_maddubs_epi16(high, load_codes(upper)),
        );
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, ones));
    }
    let mut lanes = [0; 8];
    // SAFETY: 8 numbers of 4 bytes are there, and any alignment will do.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) };
    lanes.iter().sum::<i32>() + scalar::int8_low(rest, lower_rest, upper_rest)
}

#[target_feature(enable = "avx2")]
fn load_codes(codes: &[i8; 32]) -> __m256i {
    // SAFETY: 32 bytes are there, and any alignment will do.
    unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,f16c")]
pub(super) fn int2_high(
    units: &[Int2Unit],
    factors: &[[[u8; 2]; INT2_BLOCK]],
    query: &Int2Query,
    hits: &mut Hits,
) {
    let blocks = units.chunks_exact(query.tables.len()).zip(factors);
    for (b, (block, factors)) in blocks.enumerate() {
        prefetch_ahead::<FIRST_CACHE>(block.as_flattened());
        let (factors, _) = factors.as_chunks::<8>();
        let totals = int2_totals(block, &query.tables);
        for group in 0..INT2_BLOCK / GROUP {
            let sums = [totals[2 * group], totals[2 * group + 1]];
            let bounds = [
                high_bounds(sums[0], &factors[2 * group], query),
                high_bounds(sums[1], &factors[2 * group + 1], query),
            ];
            add_hits(b * INT2_BLOCK + group * GROUP, sums, bounds, hits);
        }
    }
}

/// Bounds of eight rows by the sums over their high bits.
#[target_feature(enable = "avx2,f16c")]
fn high_bounds(sums: __m256i, factors: &[[u8; 2]; 8], query: &Int2Query) -> __m256 {
    let sums = _mm256_sub_epi32(sums, _mm256_set1_epi32(query.bias));
    let margin = _mm256_set1_ps(query.margins[0]);
    _mm256_mul_ps(
        _mm256_add_ps(_mm256_cvtepi32_ps(sums), margin),
        _mm256_mul_ps(_mm256_set1_ps(query.scale), widen(factors)),
    )
}

/// Sums of the table entries of one plane of a block, of any number of columns.
#[target_feature(enable = "avx2")]
fn int2_totals(block: &[Int2Unit], tables: &[Tables]) -> [__m256i; 4] {
    let mut totals = [_mm256_setzero_si256(); 4];
    let chunks = block.chunks(MAX_U16_COLUMNS);
    for (units, tables) in chunks.zip(tables.chunks(MAX_U16_COLUMNS)) {
        for (total, sums) in totals.iter_mut().zip(int2_sums(units, tables)) {
            *total = _mm256_add_epi32(*total, sums);
        }
    }
    totals
}

/// Eight little-endian f16 numbers.
#[target_feature(enable = "avx2,f16c")]
fn widen(halves: &[[u8; 2]; 8]) -> __m256 {
    // SAFETY: 16 bytes are there, and any alignment will do.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(halves.as_ptr().cast()) })
}

/// The product in 16 lanes, as `dot` has them.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn dot_f16(query: &[f32], row: &[[u8; 2]]) -> f32 {
    let mut lanes = [_mm256_set1_ps(0.0); 2];
    let (blocks, rest) = query.as_chunks::<8>();
    let (row_blocks, row_rest) = row.as_chunks::<8>();
    let n_whole = blocks.len() / 2 * 2;
    for (i, (query, row)) in blocks[..n_whole].iter().zip(row_blocks).enumerate() {
        let products = _mm256_mul_ps(load_floats(query), widen(row));
        lanes[i % 2] = _mm256_add_ps(lanes[i % 2], products);
    }
    let mut sums = [0.0; 16];
    let (halves, _) = sums.as_chunks_mut::<8>();
    for (half, lanes) in halves.iter_mut().zip(lanes) {
        store_floats(half, lanes);
    }
    let query = blocks[n_whole..].as_flattened().iter().chain(rest);
    let row = row_blocks[n_whole..].as_flattened().iter().chain(row_rest);
    super::finish_dot(sums, query.zip(row.copied().map(super::half)))
}

/// Rows that are multiplied side by side: as many as leave no sum waiting for the one before
/// it.
const ROWS_TOGETHER: usize = 4;

#[target_feature(enable = "avx2")]
pub(super) fn dots(query: &[f32], rows: &[f32], scores: &mut [f32]) {
    let together = |rows: &[f32]| dots_of::<ROWS_TOGETHER>(query, rows);
    let alone = |row: &[f32]| dots_of(query, row);
    super::rows_together(query.len(), rows, scores, together, alone);
}

#[target_feature(enable = "avx2")]
fn dots_of<const N: usize>(query: &[f32], rows: &[f32]) -> [f32; N] {
    let (blocks, rest) = query.as_chunks::<16>();
    let rows: [&[f32]; N] = std::array::from_fn(|n| &rows[n * query.len()..][..query.len()]);
    let row_blocks = rows.map(|row| &row.as_chunks::<16>().0[..blocks.len()]);
    let mut lanes = [[_mm256_set1_ps(0.0); 2]; N];
    for (i, query) in blocks.iter().enumerate() {
        let (query, _) = query.as_chunks::<8>();
        let query = [load_floats(&query[0]), load_floats(&query[1])];
        for (lanes, row) in lanes.iter_mut().zip(&row_blocks) {
            let (row, _) = row[i].as_chunks::<8>();
            for half in 0..2 {
                let products = _mm256_mul_ps(query[half], load_floats(&row[half]));
                lanes[half] = _mm256_add_ps(lanes[half], products);
            }
        }
    }
    let mut scores = [0.0; N];
    for ((score, lanes), row) in scores.iter_mut().zip(lanes).zip(rows) {
        let mut sums = [0.0; 16];
        let (halves, _) = sums.as_chunks_mut::<8>();
        for (half, lanes) in halves.iter_mut().zip(lanes) {
            store_floats(half, lanes);
        }
        let row_rest = row[16 * blocks.len()..].iter().copied();
        *score = super::finish_dot(sums, rest.iter().zip(row_rest));
    }
    scores
}

/// Sums of the table entries of 32 rows, in order.
#[target_feature(enable = "avx2")]
fn int2_sums(units: &[Int2Unit], tables: &[Tables]) -> [__m256i; 4] {
    let nibble = _mm256_set1_epi8(15);
    // Sums of even rows plus 256 times those of odd ones, modulo 2^16, and of odd rows.
    let mut both = _mm256_setzero_si256();
    let mut odd = _mm256_setzero_si256();
    for (unit, [low, high]) in units.iter().zip(tables) {
        let codes = load(unit);
        let low_codes = _mm256_and_si256(codes, nibble);
        let high_codes = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble);
        let entries = _mm256_add_epi8(
            _mm256_shuffle_epi8(load_table(low), low_codes),
            _mm256_shuffle_epi8(load_table(high), high_codes),
        );
        both = _mm256_add_epi16(both, entries);
        odd = _mm256_add_epi16(odd, _mm256_srli_epi16::<8>(entries));
    }
    let even = _mm256_sub_epi16(both, _mm256_slli_epi16::<8>(odd));
    let (low, high) = (
        _mm256_unpacklo_epi16(even, odd),
        _mm256_unpackhi_epi16(even, odd),
    );
    // Each half of `low` and `high` holds 8 rows; they alternate.
    [
        _mm256_cvtepu16_epi32(_mm256_castsi256_si128(low)),
        _mm256_cvtepu16_epi32(_mm256_castsi256_si128(high)),
        _mm256_cvtepu16_epi32(_mm256_extracti128_si256::<1>(low)),
        _mm256_cvtepu16_epi32(_mm256_extracti128_si256::<1>(high)),
    ]
}
