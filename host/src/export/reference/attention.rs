//! Attention by its formula.

use super::dot;

/// softmax(q k^T / sqrt(d)) v in every head; `qkv` is tokens x 3 channels.
pub(super) fn attend(qkv: &[f64], channels: usize, heads: usize) -> Vec<f64> {
    let depth = channels / heads;
    let tokens: Vec<&[f64]> = qkv.chunks_exact(3 * channels).collect();
    // The part of a token's q, k or v that belongs to a head.
    let part = |token: &[f64], which: usize, head: usize| {
        let first = which * channels + head * depth;
        token[first..first + depth].to_vec()
    };
    let mut output = vec![0.0; tokens.len() * channels];
    for head in 0..heads {
        let of = |which| tokens.iter().map(move |token| part(token, which, head));
        let (keys, values): (Vec<_>, Vec<_>) = (of(1).collect(), of(2).collect());
        for (at, query) in of(0).enumerate() {
            let scores = keys
                .iter()
                .map(|key| dot(&query, key) / (depth as f64).sqrt());
            let shares = softmax(scores.collect());
            let row = &mut output[at * channels + head * depth..][..depth];
            for (share, value) in shares.iter().zip(&values) {
                for (sum, x) in row.iter_mut().zip(value) {
                    *sum += share * x;
                }
            }
        }
    }
    output
}

fn softmax(scores: Vec<f64>) -> Vec<f64> {
    let largest = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let powers: Vec<f64> = scores.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
