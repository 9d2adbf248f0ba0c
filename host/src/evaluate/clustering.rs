//! How well clusters agree with labels: mutual information in three normalizations, and
//! the k-means that makes clusters of embeddings.
//!
//! Labels and clusters are numbers without order; renaming them changes nothing.

use std::collections::BTreeMap;

use eyas_shared::embedding::{self, Embeddings};
use eyas_shared::random::Random;

/// Rounds of k-means; it stops earlier once no image changes its cluster.
const MAX_ROUNDS: usize = 100;

/// Mutual information divided by the arithmetic mean of the entropies: the NMI of the
/// metric-learning literature. 1 if both are one single group.
///
/// # Panics
/// If the two do not describe the same number of images.
#[must_use]
pub fn nmi_arithmetic(labels: &[u32], clusters: &[u32]) -> f64 {
    nmi(labels, clusters, f64::midpoint)
}

/// Mutual information divided by the geometric mean of the entropies.
///
/// # Panics
/// If the two do not describe the same number of images.
#[must_use]
pub fn nmi_geometric(labels: &[u32], clusters: &[u32]) -> f64 {
    nmi(labels, clusters, |a, b| (a * b).sqrt())
}

/// Mutual information above that of random clusters of the same sizes, divided by what the
/// arithmetic mean of the entropies leaves above it: about 0 for random clusters, 1 for
/// equal ones (Vinh et al., JMLR 2010).
///
/// # Panics
/// If the two do not describe the same number of images.
#[must_use]
pub fn adjusted_mutual_information(labels: &[u32], clusters: &[u32]) -> f64 {
    let table = Table::of(labels, clusters);
    if table.is_trivial() {
        return 1.0;
    }
    let expected = table.expected_information();
    let mean = f64::midpoint(
        entropy(&table.rows, table.n),
        entropy(&table.columns, table.n),
    );
    let span = mean - expected;
    // Away from zero, on the side that it is on.
    let span = if span < 0.0 {
        span.min(-f64::EPSILON)
    } else {
        span.max(f64::EPSILON)
    };
    (table.information() - expected) / span
}

fn nmi(labels: &[u32], clusters: &[u32], mean: fn(f64, f64) -> f64) -> f64 {
    let table = Table::of(labels, clusters);
    if table.is_trivial() {
        return 1.0;
    }
    let information = table.information();
    if information <= f64::EPSILON {
        return 0.0;
    }
    let of_labels = entropy(&table.rows, table.n);
    information / mean(of_labels, entropy(&table.columns, table.n)).max(f64::EPSILON)
}

/// How often each label meets each cluster.
struct Table {
    n: usize,
    rows: Vec<usize>,
    columns: Vec<usize>,
    /// (row, column, number), each at least 1.
    cells: Vec<(usize, usize, usize)>,
}

impl Table {
    fn of(labels: &[u32], clusters: &[u32]) -> Self {
        assert_eq!(labels.len(), clusters.len(), "labels and clusters");
        let (label_of, rows) = numbered(labels);
        let (cluster_of, columns) = numbered(clusters);
        let mut cells: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for at in label_of.into_iter().zip(cluster_of) {
            *cells.entry(at).or_default() += 1;
        }
        let cells = cells.into_iter();
        Self {
            n: labels.len(),
            rows,
            columns,
            cells: cells.map(|((row, column), n)| (row, column, n)).collect(),
        }
    }

    /// One group on both sides, or nothing at all.
    fn is_trivial(&self) -> bool {
        self.rows.len() == self.columns.len() && self.rows.len() <= 1
    }

    /// In nats, not below 0.
    fn information(&self) -> f64 {
        let n = self.n as f64;
        let term = |&(row, column, both): &(usize, usize, usize)| {
            let product = self.rows[row] as f64 * self.columns[column] as f64;
            both as f64 / n * (n * both as f64 / product).ln()
        };
        self.cells.iter().map(term).sum::<f64>().max(0.0)
    }

    /// Expectation over random pairings of the same group sizes (hypergeometric).
    fn expected_information(&self) -> f64 {
        let ln_factorial = ln_factorials(self.n);
        let n = self.n;
        let mut sum = 0.0;
        for &a in &self.rows {
            for &b in &self.columns {
                let fixed =
                    ln_factorial[a] + ln_factorial[b] + ln_factorial[n - a] + ln_factorial[n - b]
                        - ln_factorial[n];
                for both in (a + b).saturating_sub(n).max(1)..=a.min(b) {
                    let ways = ln_factorial[both]
                        + ln_factorial[a - both]
                        + ln_factorial[b - both]
                        + ln_factorial[n + both - a - b];
                    let share = both as f64 / n as f64;
                    let log = (n as f64 * both as f64 / (a as f64 * b as f64)).ln();
                    sum += share * log * (fixed - ways).exp();
                }
            }
        }
        sum
    }
}

/// Groups by number from 0, and their sizes.
fn numbered(names: &[u32]) -> (Vec<usize>, Vec<usize>) {
    let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
    for name in names {
        *sizes.entry(*name).or_default() += 1;
    }
    let number: BTreeMap<u32, usize> = sizes.keys().copied().zip(0..).collect();
    (
        names.iter().map(|name| number[name]).collect(),
        sizes.into_values().collect(),
    )
}

fn entropy(sizes: &[usize], n: usize) -> f64 {
    let term = |size: &usize| {
        let share = *size as f64 / n as f64;
        -share * share.ln()
    };
    sizes.iter().map(term).sum()
}

/// ln(0!) to ln(n!).
fn ln_factorials(n: usize) -> Vec<f64> {
    let mut logs = vec![0.0; n + 1];
    for i in 1..=n {
        logs[i] = logs[i - 1] + (i as f64).ln();
    }
    logs
}

/// Cluster of each row: k-means by Euclidean distance, started by k-means++ (Arthur and
/// Vassilvitskii, SODA 2007). A cluster that loses its last row starts again at the row that
/// is farthest from its own center. The same seed gives the same clusters.
#[must_use]
pub fn k_means(rows: &Embeddings, k: usize, seed: u64) -> Vec<u32> {
    let n = rows.n_rows();
    let k = k.min(n);
    if k == 0 {
        return vec![0; n];
    }
    let mut centers = first_centers(rows, k, &mut Random::new(seed).fork("k-means"));
    let mut nearest: Vec<(u32, f32)> = vec![(u32::MAX, 0.0); n];
    for _ in 0..MAX_ROUNDS {
        let found = assign(rows, &centers);
        let is_settled = found.iter().zip(&nearest).all(|(a, b)| a.0 == b.0);
        nearest = found;
        if is_settled {
            break;
        }
        centers = means(rows, &mut nearest, k);
    }
    nearest.into_iter().map(|(cluster, _)| cluster).collect()
}

/// Rows drawn with a chance proportional to the squared distance to the centers so far.
fn first_centers(rows: &Embeddings, k: usize, random: &mut Random) -> Embeddings {
    let mut centers = Embeddings::new(rows.dim());
    centers.push(rows.row(random.below(rows.n_rows())));
    let mut distances = vec![f64::INFINITY; rows.n_rows()];
    while centers.n_rows() < k {
        let newest = centers.row(centers.n_rows() - 1);
        for (distance, row) in distances.iter_mut().zip(rows.rows()) {
            *distance = distance.min(f64::from(squared_distance(row, newest)));
        }
        let mut left = random.unit() * distances.iter().sum::<f64>();
        let drawn = distances.iter().position(|distance| {
            left -= distance;
            left < 0.0
        });
        centers.push(rows.row(drawn.unwrap_or_else(|| random.below(rows.n_rows()))));
    }
    centers
}

fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

/// The nearest center of each row, the first of equals, and the squared distance to it.
fn assign(rows: &Embeddings, centers: &Embeddings) -> Vec<(u32, f32)> {
    let half_lengths: Vec<f32> = centers
        .rows()
        .map(|center| embedding::dot(center, center) / 2.0)
        .collect();
    let nearest = |row_idx: usize| {
        let row = rows.row(row_idx);
        let mut best = (0, f32::NEG_INFINITY);
        for (cluster, (center, half)) in (0..).zip(centers.rows().zip(&half_lengths)) {
            let nearness = embedding::dot(row, center) - half;
            if nearness > best.1 {
                best = (cluster, nearness);
            }
        }
        (best.0, embedding::dot(row, row) - 2.0 * best.1)
    };
    crate::data::parallel::map(rows.n_rows(), nearest, || {})
}

fn means(rows: &Embeddings, nearest: &mut [(u32, f32)], k: usize) -> Embeddings {
    let dim = rows.dim();
    let mut sums = vec![0.0_f64; k * dim];
    let mut sizes = vec![0_usize; k];
    for (row, (cluster, _)) in rows.rows().zip(nearest.iter()) {
        let cluster = *cluster as usize;
        sizes[cluster] += 1;
        for (sum, x) in sums[cluster * dim..][..dim].iter_mut().zip(row) {
            *sum += f64::from(*x);
        }
    }
    let mut centers = Embeddings::new(dim);
    for (size, sum) in sizes.iter().zip(sums.chunks_exact(dim)) {
        if *size > 0 {
            let mean: Vec<f32> = sum.iter().map(|x| (x / *size as f64) as f32).collect();
            centers.push(&mean);
            continue;
        }
        let farthest = (0..nearest.len()).max_by(|a, b| nearest[*a].1.total_cmp(&nearest[*b].1));
        let farthest = farthest.unwrap_or(0);
        nearest[farthest].1 = f32::NEG_INFINITY;
        centers.push(rows.row(farthest));
    }
    centers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of a few logarithms.
    const TOLERANCE: f64 = 1e-12;

    #[test]
    fn equal_groups_score_one_under_any_names() {
        let labels = [0, 0, 1, 1, 2, 2, 2];
        let renamed = [7, 7, 3, 3, 5, 5, 5];
        for measure in [nmi_arithmetic, nmi_geometric, adjusted_mutual_information] {
            assert!((measure(&labels, &renamed) - 1.0).abs() < TOLERANCE);
        }
    }

    #[test]
    fn degenerate_groups_have_a_value() {
        assert_eq!(nmi_arithmetic(&[1, 1], &[2, 2]), 1.0);
        assert_eq!(nmi_arithmetic(&[], &[]), 1.0);
        assert_eq!(nmi_arithmetic(&[1, 2], &[3, 3]), 0.0);
        assert_eq!(adjusted_mutual_information(&[1, 2], &[3, 3]), 0.0);
        assert_eq!(nmi_geometric(&[0, 0, 1, 1], &[0, 1, 0, 1]), 0.0);
    }

    #[test]
    fn k_means_finds_groups_that_are_far_apart() {
        let mut rows = Embeddings::new(2);
        let mut labels = Vec::new();
        let mut random = Random::new(5);
        for i in 0..120 {
            let label = i % 4;
            let center = [(label / 2) as f64 * 10.0, (label % 2) as f64 * 10.0];
            rows.push(&center.map(|x| (x + random.normal()) as f32));
            labels.push(label);
        }
        let clusters = k_means(&rows, 4, 1);
        assert!((nmi_arithmetic(&labels, &clusters) - 1.0).abs() < TOLERANCE);
        assert_eq!(k_means(&rows, 4, 1), clusters);
        assert_eq!(k_means(&rows, 1, 1), [0; 120]);
    }

    #[test]
    fn more_clusters_than_different_rows_still_end() {
        let mut rows = Embeddings::new(1);
        for _ in 0..6 {
            rows.push(&[1.0]);
        }
        assert_eq!(k_means(&rows, 3, 2).len(), 6);
        assert_eq!(k_means(&rows, 9, 2).len(), 6);
    }
}
