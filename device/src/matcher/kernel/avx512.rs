//! 64 bytes at a time: codes of 8 and of 2 bits, and f16.

use std::arch::x86_64::{
    __m512, __m512i, _CMP_GE_OQ, _mm256_add_epi16, _mm256_loadu_si256, _mm256_permute2x128_si256,
    _mm256_unpackhi_epi16, _mm256_unpacklo_epi16, _mm512_add_epi8, _mm512_add_epi16,
    _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_si256, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_dpbusd_epi32,
    _mm512_extracti64x4_epi64, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_maskz_compress_epi32, _mm512_maskz_compress_ps, _mm512_maskz_mov_epi8, _mm512_min_ps,
    _mm512_mul_ps, _mm512_reduce_add_epi32, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_slli_epi16, _mm512_slli_epi32,
    _mm512_srli_epi16, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_epi16, _mm512_sub_epi32,
    _mm512_zextsi256_si512,
};

use eyas_shared::gallery::codes::{INT2_BLOCK, INT8_BLOCK};

use super::int8::{Int8Unit, number};
use super::{
    FIRST_CACHE, GROUP, Hits, Int2Query, Int2Unit, Int8Blocks, Int8Query, MAX_QUERIES,
    MAX_U16_COLUMNS, SECOND_CACHE, Seen, Tables, asks_ahead, low_rows_of, prefetch_ahead, scalar,
};

/// The rows of a group.
const IN_GROUP: [i32; GROUP] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

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

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,popcnt")]
pub(super) fn int8_high(blocks: &Int8Blocks<'_>, queries: &[Int8Query], hits: &mut [Hits]) {
    match (queries, hits) {
        ([query], [hits]) if asks_ahead() => int8_alone::<true>(blocks, query, hits),
        ([query], [hits]) => int8_alone::<false>(blocks, query, hits),
        (queries, hits) => int8_together(blocks, queries, hits),
    }
}

/// A query alone waits for the memory; `AHEAD` if that is asked for later blocks meanwhile.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,popcnt")]
fn int8_alone<const AHEAD: bool>(blocks: &Int8Blocks<'_>, query: &Int8Query, hits: &mut Hits) {
    let words: Vec<[i32; 2]> = query.words.iter().map(|words| words.map(number)).collect();
    let threshold = _mm512_set1_ps(hits.threshold);
    for (b, (block, scales)) in blocks.each().enumerate() {
        // More sums than one, so that none waits for the one before it.
        let mut sums = [_mm512_setzero_si512(); 4];
        let (fours, last) = block.as_chunks::<4>();
        let (word_fours, last_words) = words.as_chunks::<4>();
        for (units, words) in fours.iter().zip(word_fours) {
            for i in 0..4 {
                sums[i] = add_unit::<AHEAD>(sums[i], &units[i], &words[i]);
            }
        }
        for (unit, words) in last.iter().zip(last_words) {
            sums[0] = add_unit::<AHEAD>(sums[0], unit, words);
        }
        let sums = _mm512_add_epi32(
            _mm512_add_epi32(sums[0], sums[1]),
            _mm512_add_epi32(sums[2], sums[3]),
        );
        let bounds = int8_bounds(sums, load_scales(scales), query.to_bound);
        let reached = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(bounds, threshold);
        if reached != 0 {
            add_hits(reached, b * INT8_BLOCK, sums, bounds, hits);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_unit<const AHEAD: bool>(sums: __m512i, unit: &Int8Unit, words: &[i32; 2]) -> __m512i {
    if AHEAD {
        prefetch_ahead::<FIRST_CACHE>(unit);
    }
    let [lower, upper] = split_halves(unit);
    let sums = _mm512_dpbusd_epi32(sums, lower, _mm512_set1_epi32(words[0]));
    _mm512_dpbusd_epi32(sums, upper, _mm512_set1_epi32(words[1]))
}

/// The halves in the lower bits of a unit, and those in the upper ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn split_halves(unit: &Int8Unit) -> [__m512i; 2] {
    let nibble = _mm512_set1_epi8(15);
    let halves = load(unit);
    let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(halves), nibble);
    [_mm512_and_si512(halves, nibble), upper]
}

/// Several queries wait for products, and a word of theirs that was loaded serves two blocks:
/// two streams, which no hardware foresees as well as one.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,popcnt")]
fn int8_together(blocks: &Int8Blocks<'_>, queries: &[Int8Query], hits: &mut [Hits]) {
    // Missing queries multiply zeros and find nothing: one loop serves every number of them.
    let mut words = vec![[[0; MAX_QUERIES]; 2]; blocks.columns];
    let mut limits = [Limit::NEVER; MAX_QUERIES];
    for (q, (query, hits)) in queries.iter().zip(&*hits).enumerate() {
        for (words, numbers) in words.iter_mut().zip(&query.words) {
            (words[0][q], words[1][q]) = (number(numbers[0]), number(numbers[1]));
        }
        limits[q] = Limit {
            to_bound: query.to_bound,
            threshold: hits.threshold,
        };
    }
    let n_blocks = blocks.scales.len();
    for first in (0..n_blocks).step_by(2) {
        let units = &blocks.units[first * blocks.columns..];
        let (one, rest) = units.split_at(blocks.columns);
        // A last block alone is its own neighbor.
        let other = if rest.is_empty() { one } else { rest };
        let mut sums = [[_mm512_setzero_si512(); MAX_QUERIES]; 2];
        for ((one, other), words) in one.iter().zip(other).zip(&words) {
            prefetch_ahead::<SECOND_CACHE>(one);
            prefetch_ahead::<SECOND_CACHE>(other);
            let (one, other) = (split_halves(one), split_halves(other));
            for part in 0..2 {
                for q in 0..MAX_QUERIES {
                    let word = _mm512_set1_epi32(words[part][q]);
                    sums[0][q] = _mm512_dpbusd_epi32(sums[0][q], one[part], word);
                    sums[1][q] = _mm512_dpbusd_epi32(sums[1][q], other[part], word);
                }
            }
        }
        let [sums, other_sums] = sums;
        find_hits(sums, blocks, &limits, first, hits);
        if first + 1 < n_blocks {
            find_hits(other_sums, blocks, &limits, first + 1, hits);
        }
    }
}

/// Adds the hits of all queries in block `b`.
#[inline]
#[target_feature(enable = "avx512f,popcnt")]
fn find_hits(
    sums: [__m512i; MAX_QUERIES],
    blocks: &Int8Blocks<'_>,
    limits: &[Limit; MAX_QUERIES],
    b: usize,
    hits: &mut [Hits],
) {
    let scales = load_scales(&blocks.scales[b]);
    let (mut reached, mut any) = ([0; MAX_QUERIES], 0);
    for q in 0..MAX_QUERIES {
        let bounds = int8_bounds(sums[q], scales, limits[q].to_bound);
        let threshold = _mm512_set1_ps(limits[q].threshold);
        reached[q] = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(bounds, threshold);
        any |= reached[q];
    }
    if any != 0 {
        add_all_hits(reached, sums, scales, limits, b, hits);
    }
}

/// Adds the hits of some queries. Apart, so that sums without hits stay in registers.
#[inline(never)]
#[target_feature(enable = "avx512f,popcnt")]
fn add_all_hits(
    reached: [u16; MAX_QUERIES],
    sums: [__m512i; MAX_QUERIES],
    scales: __m512,
    limits: &[Limit; MAX_QUERIES],
    b: usize,
    hits: &mut [Hits],
) {
    for (q, hits) in hits.iter_mut().enumerate() {
        if reached[q] != 0 {
            let bounds = int8_bounds(sums[q], scales, limits[q].to_bound);
            add_hits(reached[q], b * INT8_BLOCK, sums[q], bounds, hits);
        }
    }
}

/// What a row has to reach to be a hit.
#[derive(Clone, Copy)]
struct Limit {
    to_bound: f32,
    threshold: f32,
}

impl Limit {
    const NEVER: Self = Self {
        to_bound: 0.0,
        threshold: f32::INFINITY,
    };
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_scales(scales: &[[u8; 4]; INT8_BLOCK]) -> __m512 {
    // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
    unsafe { _mm512_loadu_ps(scales.as_ptr().cast()) }
}

/// Bounds of a block's rows by their sums.
#[inline]
#[target_feature(enable = "avx512f")]
fn int8_bounds(sums: __m512i, scales: __m512, to_bound: f32) -> __m512 {
    let (sixteen, to_bound) = (_mm512_set1_ps(16.0), _mm512_set1_ps(to_bound));
    let above = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), sixteen, to_bound);
    _mm512_mul_ps(above, scales)
}

/// Adds the hits of a group.
#[inline]
#[target_feature(enable = "avx512f,popcnt")]
fn add_hits(reached: u16, first: usize, sums: __m512i, bounds: __m512, hits: &mut Hits) {
    let first = first as i32 + hits.first_place as i32;
    let places = _mm512_add_epi32(load_sums(&IN_GROUP), _mm512_set1_epi32(first));
    let room = hits.room(reached.count_ones());
    // SAFETY: 16 numbers of 4 bytes are there, and any alignment will do.
    unsafe {
        _mm512_storeu_si512(
            room.places.as_mut_ptr().cast(),
            _mm512_maskz_compress_epi32(reached, places),
        );
        _mm512_storeu_si512(
            room.sums.as_mut_ptr().cast(),
            _mm512_maskz_compress_epi32(reached, sums),
        );
    }
    store_floats(room.bounds, _mm512_maskz_compress_ps(reached, bounds));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn int8_low(row: &[u8], lower: &[i8], upper: &[i8]) -> i32 {
    let ((blocks, rest), (lower, lower_rest), (upper, upper_rest)) =
        (row.as_chunks(), lower.as_chunks(), upper.as_chunks());
    let mut sums = _mm512_setzero_si512();
    for (halves, (lower, upper)) in blocks.iter().zip(lower.iter().zip(upper)) {
        let [low, high] = split_halves(halves);
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

#[target_feature(enable = "avx512f,avx512bw,popcnt")]
pub(super) fn int2_high(
    units: &[Int2Unit],
    factors: &[[[u8; 2]; INT2_BLOCK]],
    query: &Int2Query,
    hits: &mut Hits,
) {
    let threshold = _mm512_set1_ps(hits.threshold);
    let blocks = units.chunks_exact(query.tables.len()).zip(factors);
    for (b, (block, factors)) in blocks.enumerate() {
        let (factors, _) = factors.as_chunks::<GROUP>();
        for (half, totals) in int2_totals(block, &query.pairs).into_iter().enumerate() {
            let products = _mm512_sub_epi32(totals, _mm512_set1_epi32(query.bias));
            let bounds = int2_bounds(0, products, &factors[half], query);
            let reached = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(bounds, threshold);
            // Every other group has a hit: to look is dearer than to add none.
            add_hits(reached, b * INT2_BLOCK + half * GROUP, totals, bounds, hits);
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
        prefetch_ahead::<FIRST_CACHE>(unit_pair.as_flattened());
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
    let mut scores = [0.0; N];
    for ((score, lanes), row) in scores.iter_mut().zip(lanes).zip(rows) {
        let mut sums = [0.0; 16];
        store_floats(&mut sums, lanes);
        let row_rest = row[16 * blocks.len()..].iter().copied();
        *score = super::finish_dot(sums, rest.iter().zip(row_rest));
    }
    scores
}
