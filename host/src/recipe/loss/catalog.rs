//! What each loss is: formula, source, published settings.

/// What `eyas losses list` tells of a loss.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Name in a recipe.
    pub kind: &'static str,
    /// One line in words.
    pub summary: &'static str,
    /// What is minimized; s student, t teacher, y label, D distance, c cosine, N batch.
    pub formula: &'static str,
    /// Paper, and whose settings the example has.
    pub source: &'static str,
    /// A term for a recipe with the published settings.
    pub example: &'static str,
}

/// Every loss, by family.
pub const CATALOG: &[Description] = &[
    Description {
        kind: "regression",
        summary: "regression of the teacher's embedding, both sides of unit length (Reg)",
        formula: "1/N sum_i |s_i - t_i + 1e-6|^2 / 2",
        source: "Budnik and Avrithis, CVPR 2021 (AML)",
        example: r#"{ kind = "regression", weight = 1.0 }"#,
    },
    Description {
        kind: "relaxed-contrastive",
        summary: "pairs pulled and pushed as softly as the teacher relates them (RC)",
        formula: "1/N sum_ij [w_ij d_ij^2 + (1 - w_ij) max(delta - d_ij, 0)^2], d_ij = D_ij / mean_j D_ij, w_ij = exp(-|t_i - t_j|^2 / sigma)",
        source: "Kim et al., CVPR 2021",
        example: r#"{ kind = "relaxed-contrastive", weight = 1.0, sigma = 1.0, delta = 1.0 }"#,
    },
    Description {
        kind: "memory-contrast",
        summary: "neighborhood components of the query in the teacher's whole training gallery, by label",
        formula: "-1/N sum_i log(sum_{j: y_j = y_i, j != i} exp(c(s_i, t_j) / T) / sum_{j != i} exp(c(s_i, t_j) / T))",
        source: "Goldberger et al., NIPS 2004, asked asymmetrically",
        example: r#"{ kind = "memory-contrast", weight = 1.0, temperature = 0.1 }"#,
    },
    Description {
        kind: "proxy-anchor",
        summary: "each class has a trained proxy that attracts its images and repels all others",
        formula: "1/|C+| sum_{p in C+} log(1 + sum_{x of p} exp(-alpha (c - margin))) + 1/C sum_p log(1 + sum_{x not of p} exp(alpha (c + margin)))",
        source: "Kim et al., CVPR 2020",
        example: r#"{ kind = "proxy-anchor", weight = 1.0, alpha = 32.0, margin = 0.1, proxy_rate_factor = 100.0 }"#,
    },
];
