//! The inverse transform with the vectors of AVX2: a row of the block in each.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32 as add, _mm256_extract_epi64, _mm256_mullo_epi32, _mm256_packs_epi32,
    _mm256_packus_epi16, _mm256_permute2x128_si256, _mm256_set1_epi32, _mm256_setr_epi8,
    _mm256_setr_epi32, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32,
    _mm256_srai_epi32, _mm256_sub_epi32 as sub, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};

use super::{CORNER_LEN, FIRST_HALF, FIRST_SHIFT, SECOND_HALF, SECOND_SHIFT};

/// As [`plain`](super::plain).
#[inline]
#[target_feature(enable = "avx2")]
pub(in super::super) fn avx2(coefficients: &[i32; 64], len: usize) -> [[u8; 8]; 8] {
    let [a, b, c, d, e, f, g, h] = coefficients.as_chunks::<8>().0 else {
        unreachable!("64 coefficients are 8 rows");
    };
    let (top, zero) = ([load(a), load(b), load(c), load(d)], _mm256_setzero_si256());
    let [a, b, c, d] = top;
    if len <= CORNER_LEN {
        // The compiler takes out what is added or multiplied with zero.
        let columns = transposed(first_pass([a, b, c, d, zero, zero, zero, zero]));
        let [a, b, c, d, ..] = columns;
        second_pass([a, b, c, d, zero, zero, zero, zero])
    } else {
        let rows = [a, b, c, d, load(e), load(f), load(g), load(h)];
        second_pass(transposed(first_pass(rows)))
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(&[a, b, c, d, e, f, g, h]: &[i32; 8]) -> __m256i {
    _mm256_setr_epi32(a, b, c, d, e, f, g, h)
}

#[inline]
#[target_feature(enable = "avx2")]
fn mul(a: __m256i, factor: i32) -> __m256i {
    _mm256_mullo_epi32(a, _mm256_set1_epi32(factor))
}

#[inline]
#[target_feature(enable = "avx2")]
fn shl(a: __m256i) -> __m256i {
    _mm256_slli_epi32::<12>(a)
}

#[inline]
#[target_feature(enable = "avx2")]
fn first_shift(a: __m256i) -> __m256i {
    _mm256_srai_epi32::<FIRST_SHIFT>(a)
}

#[inline]
#[target_feature(enable = "avx2")]
fn second_shift(a: __m256i) -> __m256i {
    _mm256_srai_epi32::<SECOND_SHIFT>(a)
}

#[inline]
#[target_feature(enable = "avx2")]
fn first_pass(v: [__m256i; 8]) -> [__m256i; 8] {
    let half = _mm256_set1_epi32(FIRST_HALF);
    pass!(v, add, sub, mul, shl, half, first_shift)
}

/// Rows become columns: by pairs, by fours, by halves.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(v: [__m256i; 8]) -> [__m256i; 8] {
    let [a, b, c, d] = transposed_halves([v[0], v[1], v[2], v[3]]);
    let [e, f, g, h] = transposed_halves([v[4], v[5], v[6], v[7]]);
    [
        _mm256_permute2x128_si256::<0x20>(a, e),
        _mm256_permute2x128_si256::<0x20>(b, f),
        _mm256_permute2x128_si256::<0x20>(c, g),
        _mm256_permute2x128_si256::<0x20>(d, h),
        _mm256_permute2x128_si256::<0x31>(a, e),
        _mm256_permute2x128_si256::<0x31>(b, f),
        _mm256_permute2x128_si256::<0x31>(c, g),
        _mm256_permute2x128_si256::<0x31>(d, h),
    ]
}

/// The same for each half of four vectors.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed_halves([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (low_ab, high_ab) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (low_cd, high_cd) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(low_ab, low_cd),
        _mm256_unpackhi_epi64(low_ab, low_cd),
        _mm256_unpacklo_epi64(high_ab, high_cd),
        _mm256_unpackhi_epi64(high_ab, high_cd),
    ]
}

/// Four samples of each row, from four columns of them.
#[inline]
#[target_feature(enable = "avx2")]
fn narrowed([a, b, c, d]: [__m256i; 4]) -> __m256i {
    // Saturating twice is clamping. Each half of a vector has four samples of each column.
    let samples = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    let by_row = _mm256_setr_epi8(
        0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, //
        0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,
    );
    _mm256_shuffle_epi8(samples, by_row)
}

/// Takes columns and gives rows of samples.
#[inline]
#[target_feature(enable = "avx2")]
fn second_pass(v: [__m256i; 8]) -> [[u8; 8]; 8] {
    let half = _mm256_set1_epi32(SECOND_HALF);
    let v = pass!(v, add, sub, mul, shl, half, second_shift);
    let left = narrowed([v[0], v[1], v[2], v[3]]);
    let right = narrowed([v[4], v[5], v[6], v[7]]);
    let a = _mm256_unpacklo_epi32(left, right);
    let b = _mm256_unpackhi_epi32(left, right);
    [
        _mm256_extract_epi64::<0>(a).to_le_bytes(),
        _mm256_extract_epi64::<1>(a).to_le_bytes(),
        _mm256_extract_epi64::<0>(b).to_le_bytes(),
        _mm256_extract_epi64::<1>(b).to_le_bytes(),
        _mm256_extract_epi64::<2>(a).to_le_bytes(),
        _mm256_extract_epi64::<3>(a).to_le_bytes(),
        _mm256_extract_epi64::<2>(b).to_le_bytes(),
        _mm256_extract_epi64::<3>(b).to_le_bytes(),
    ]
}
