//! What every kernel has of int8 codes: a query, the blocks that are read of every row, and
//! what high halves say of them.

use eyas_shared::gallery::codes::INT8_BLOCK;
use eyas_shared::gallery::int8::MIDDLE;
use eyas_shared::quant;

/// High halves of 8 components of each row of a block.
pub(super) type Int8Unit = [u8; 4 * INT8_BLOCK];

/// How far the bound of a product lies above what high halves say on average, for each unit of
/// the length of the query's codes.
///
/// What low halves add is a sum of query codes times `low - middle`, numbers from -8 to 7 that
/// are about uniform and know nothing of the query: the mean is minus half of the sum of
/// its codes, and the deviation 4.61 for each unit. These are 5 deviations, which one row of three
/// million exceeds. Where low halves are anything but uniform (codes that are 127, -127 and
/// nothing else), rows are ranked by high halves.
const INT8_MARGIN: f64 = 23.0;

/// A query in int8.
///
/// Its product with a row is `16 <q, high> + <q, low> - 128 <q, 1>`. With the middle instead of
/// low halves it is an integer as well, which high halves give.
pub(in crate::matcher) struct Int8Query {
    /// Codes of the 8 components of each column, all in -127..=127: those whose halves are in
    /// the lower bits, and those whose halves are in the upper ones.
    pub(super) words: Vec<[[i8; 4]; 2]>,
    /// Of the codes.
    pub(super) sum: i32,
    pub(super) scale: f32,
    /// What to add to a product with high halves for a bound.
    pub(super) margin: f32,
}

impl Int8Query {
    /// Quantizes an embedding, continued with zeros to whole columns.
    pub(in crate::matcher) fn new(embedding: &[f32]) -> Self {
        let scale = quant::symmetric_scale(embedding);
        let mut codes: Vec<i8> = embedding.iter().map(|x| quant::to_i8(*x, scale)).collect();
        codes.resize(codes.len().next_multiple_of(8), 0);
        Self::of_codes(&codes, scale)
    }

    /// From codes of whole columns.
    pub(super) fn of_codes(codes: &[i8], scale: f32) -> Self {
        let squares: f64 = codes.iter().map(|code| f64::from(*code).powi(2)).sum();
        let sum = codes.iter().map(|code| i32::from(*code)).sum();
        Self {
            words: codes.as_chunks::<4>().0.as_chunks::<2>().0.to_vec(),
            sum,
            scale,
            margin: (INT8_MARGIN * squares.sqrt() - 0.5 * f64::from(sum)) as f32,
        }
    }

    /// What the middle of all that low halves can be adds to a product, less what 128 adds.
    pub(super) fn offset(&self) -> i32 {
        (MIDDLE - 128) * self.sum
    }

    /// What turns products with a row of this scale into scores.
    pub(in crate::matcher) fn factor(&self, scale: [u8; 4]) -> f32 {
        self.scale * f32::from_le_bytes(scale)
    }

    /// What the estimate of a row's score is hardly above, by its product with high halves.
    pub(in crate::matcher) fn bound(&self, product: i32, factor: f32) -> f32 {
        (product as f32 + self.margin) * factor
    }

    /// The estimate, by the products with high halves and with low ones.
    pub(in crate::matcher) fn estimate(&self, of_high: i32, of_low: i32, factor: f32) -> f32 {
        (of_high + of_low - MIDDLE * self.sum) as f32 * factor
    }
}

/// About as much is touched at a time, in whole blocks or at most twice as much of one.
#[cfg(target_arch = "x86_64")]
const TOUCH_BYTES: usize = 2048;

/// Some blocks of int8 codes, as far as they are read of every row.
pub(super) struct Int8Blocks<'a> {
    /// Units in a block.
    pub(super) columns: usize,
    pub(super) units: &'a [Int8Unit],
    pub(super) scales: &'a [[[u8; 4]; INT8_BLOCK]],
}

impl<'a> Int8Blocks<'a> {
    /// Units and scales of each block.
    pub(super) fn each(&self) -> impl Iterator<Item = (&'a [Int8Unit], &'a [[u8; 4]; INT8_BLOCK])> {
        self.units.chunks_exact(self.columns).zip(self.scales)
    }

    /// Reads a byte of each line of some blocks' memory, if this is the first of them, before all
    /// of it is used: more lines are on their way at once than when each waits for the work on
    /// the one before. On a Zen 4 that saves a fifth of the time of codes that lie in the memory,
    /// and costs as much where they lie in the third-level cache; for more bytes at a time, or
    /// for what is not used at once, it saves nothing.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn touch(&self, block: usize) {
        let n_blocks = (TOUCH_BYTES / (self.columns * size_of::<Int8Unit>())).max(1);
        if block.is_multiple_of(n_blocks) {
            let end = self.units.len().min((block + n_blocks) * self.columns);
            let lines = &self.units[block * self.columns..end];
            for line in &lines[..lines.len().min(2 * TOUCH_BYTES / size_of::<Int8Unit>())] {
                std::hint::black_box(line[0]);
            }
        }
    }
}

/// What the high halves of the rows of a tile say to a query.
pub(in crate::matcher) struct Int8Tile {
    /// Bounds below this are of no interest.
    pub(in crate::matcher) threshold: f32,
    /// By row, in blocks.
    pub(super) products: Vec<[i32; INT8_BLOCK]>,
    /// Rows of a block whose bound reaches the threshold, the first in the lowest bit.
    pub(super) hits: Vec<u16>,
}

impl Int8Tile {
    pub(in crate::matcher) fn new() -> Self {
        Self {
            threshold: f32::NEG_INFINITY,
            products: Vec::new(),
            hits: Vec::new(),
        }
    }

    pub(super) fn reset(&mut self, n_blocks: usize) {
        self.products.resize(n_blocks, [0; INT8_BLOCK]);
        // Looked through four at a time.
        self.hits.resize(n_blocks.next_multiple_of(4), 0);
        self.hits[n_blocks..].fill(0);
    }

    /// Calls `found` with the row within the tile and the product of every hit, in order.
    pub(in crate::matcher) fn for_hits(&self, mut found: impl FnMut(usize, i32)) {
        let products = self.products.as_flattened();
        for (four, hits) in self.hits.as_chunks::<4>().0.iter().enumerate() {
            let [a, b, c, d] = hits.map(u64::from);
            let mut hits = a | b << 16 | c << 32 | d << 48;
            while hits != 0 {
                let row = 4 * INT8_BLOCK * four + hits.trailing_zeros() as usize;
                hits &= hits - 1;
                found(row, products[row]);
            }
        }
    }
}
