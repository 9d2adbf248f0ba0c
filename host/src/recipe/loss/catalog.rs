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
    // Metric learning. P: pairs of a label, N: pairs of two labels, of an anchor i.
    Description {
        kind: "proxy-nca",
        summary: "each class has a trained proxy; its images pick it among all proxies",
        formula: "-1/N sum_i sum_p q_ip log softmax_p(-scale |a s_i - b p|^2), q_i = 1 - smoothing at y_i, the rest spread over the others",
        source: "Movshovitz-Attias et al., ICCV 2017; settings of the dichotomies/proxy-nca code",
        example: r#"{ kind = "proxy-nca", weight = 1.0, softmax_scale = 1.0, embedding_length = 1.0, proxy_length = 3.0, smoothing = 0.1, proxy_rate_factor = 100.0 }"#,
    },
    Description {
        kind: "soft-triple",
        summary: "several trained centers for each class; an image is drawn to a soft choice of its class's",
        formula: "CE(lambda (S_i - margin onehot)) + tau sum_c sum_{k<l} sqrt(2 - 2 w_ck.w_cl) / (C K (K - 1)), S_ic = sum_k softmax_k(c_ick / gamma) c_ick",
        source: "Qian et al., ICCV 2019",
        example: r#"{ kind = "soft-triple", weight = 1.0, centers = 10, lambda = 20.0, gamma = 0.1, margin = 0.01, tau = 0.2, proxy_rate_factor = 100.0 }"#,
    },
    Description {
        kind: "contrastive",
        summary: "positives within one margin, negatives beyond another",
        formula: "reduce_P max(D - positive_margin, 0) + reduce_N max(negative_margin - D, 0)",
        source: "Hadsell et al., CVPR 2006, distances not squared; settings of Kim et al., CVPR 2021",
        example: r#"{ kind = "contrastive", weight = 1.0, positive_margin = 0.0, negative_margin = 0.5, distance = "euclidean", pairs = { references = "batch", miner = "all", reducer = "mean-of-non-zero" } }"#,
    },
    Description {
        kind: "cosine-contrastive",
        summary: "contrastive on cosines, with a memory of the last steps",
        formula: "1/N [sum_P (1 - c) + sum_{N: c > margin} c]",
        source: "Wang et al., CVPR 2020 (cross-batch memory); beside a second term with references batch",
        example: r#"{ kind = "cosine-contrastive", weight = 1.0, margin = 0.5, references = { memory = { size = 8192, start_step = 2000 } } }"#,
    },
    Description {
        kind: "triplet",
        summary: "negatives farther than positives by a margin",
        formula: "reduce max(D_ap - D_an + margin, 0)",
        source: "Schroff et al., CVPR 2015 (FaceNet)",
        example: r#"{ kind = "triplet", weight = 1.0, margin = 0.2, distance = "squared-euclidean", pairs = { references = "batch", miner = { semi-hard = { margin = 0.2 } }, reducer = "mean" } }"#,
    },
    Description {
        kind: "margin",
        summary: "positives and negatives on their sides of a boundary, by a margin",
        formula: "sum [max(D_ap - boundary + margin, 0) + max(boundary - D_an + margin, 0)] / number above 0",
        source: "Wu et al., ICCV 2017, with a fixed boundary",
        example: r#"{ kind = "margin", weight = 1.0, margin = 0.2, boundary = 1.2, distance = "euclidean", pairs = { references = "batch", miner = { distance-weighted = { nearest = 0.5, farthest = 1.4 } }, reducer = "mean" } }"#,
    },
    Description {
        kind: "n-pair",
        summary: "the positive of each class's anchor against those of all other classes",
        formula: "mean over classes of CE(a_i . p_j)",
        source: "Sohn, NIPS 2016, without its term on the norms",
        example: r#"{ kind = "n-pair", weight = 1.0, similarity = "dot", references = "batch" }"#,
    },
    Description {
        kind: "lifted",
        summary: "each positive pair against all negatives of both its sides",
        formula: "reduce_P max(log sum_{n of i or j} exp(negative_margin - D_n) + D_ij - positive_margin, 0)^2 / 2",
        source: "Song et al., CVPR 2016",
        example: r#"{ kind = "lifted", weight = 1.0, positive_margin = 0.0, negative_margin = 1.0, distance = "euclidean", pairs = { references = "batch", miner = "all", reducer = "mean" } }"#,
    },
    Description {
        kind: "generalized-lifted",
        summary: "all positives of an anchor against all its negatives",
        formula: "reduce_i max(log sum_P exp(D - positive_margin) + log sum_N exp(negative_margin - D), 0)",
        source: "Hermans et al., 2017",
        example: r#"{ kind = "generalized-lifted", weight = 1.0, positive_margin = 0.0, negative_margin = 1.0, distance = "euclidean", pairs = { references = "batch", miner = "all", reducer = "mean" } }"#,
    },
    Description {
        kind: "tuplet-margin",
        summary: "each positive, with some angle of slack, against all negatives of its anchor",
        formula: "reduce_P log(1 + sum_N exp(scale (c_n - cos(angle_p - margin))))",
        source: "Yu and Tao, ICCV 2019",
        example: r#"{ kind = "tuplet-margin", weight = 1.0, margin_degrees = 5.73, scale = 64.0, pairs = { references = "batch", miner = "all", reducer = "mean" } }"#,
    },
    Description {
        kind: "multi-similarity",
        summary: "positives and negatives weighed by how hard they are among the others",
        formula: "reduce_i [1/alpha log(1 + sum_P exp(alpha (base - c))) + 1/beta log(1 + sum_N exp(beta (c - base)))]",
        source: "Wang et al., CVPR 2019",
        example: r#"{ kind = "multi-similarity", weight = 1.0, alpha = 2.0, beta = 40.0, base = 0.5, one_sided = "left-out", pairs = { references = "batch", miner = { multi-similarity = { epsilon = 0.1 } }, reducer = "mean" } }"#,
    },
    Description {
        kind: "nt-xent",
        summary: "each positive against all negatives of its anchor, by temperature",
        formula: "-reduce_P log(exp(c_p / T) / (exp(c_p / T) + sum_N exp(c_n / T)))",
        source: "Chen et al., ICML 2020, with labels",
        example: r#"{ kind = "nt-xent", weight = 1.0, temperature = 0.07, pairs = { references = "batch", miner = "all", reducer = "mean" } }"#,
    },
    Description {
        kind: "circle",
        summary: "pairs weighed by how far they are from where they should be",
        formula: "reduce_i log(1 + sum_P exp(-gamma [1 + m - c]+ (c - 1 + m)) sum_N exp(gamma [c + m]+ (c - m)))",
        source: "Sun et al., CVPR 2020",
        example: r#"{ kind = "circle", weight = 1.0, m = 0.4, gamma = 80.0, pairs = { references = "batch", miner = "all", reducer = "mean-of-non-zero" } }"#,
    },
    Description {
        kind: "tuple-contrastive",
        summary: "query of the student, one positive and the hardest negatives of the teacher's gallery (Contr; with own_teacher Contr+)",
        formula: "reduce_tuples [1/2 sum_pos D^2 + 1/2 sum_neg max(margin - D, 0)^2], D = |q - x + 1e-6|",
        source: "Budnik and Avrithis, CVPR 2021 (AML); their code sums over tuples",
        example: r#"{ kind = "tuple-contrastive", weight = 1.0, margin = 0.7, tuples = { references = { gallery = { pool = 20000 } }, positives = "label", mining = "hard", negatives = 5, own_teacher = true, reducer = "mean" } }"#,
    },
    Description {
        kind: "tuple-triplet",
        summary: "as tuple-contrastive, negatives farther than the positives by a margin",
        formula: "reduce_tuples sum_pos sum_neg max(|q - p|^2 - |q - n|^2 + margin, 0)",
        source: "Budnik and Avrithis, CVPR 2021 (AML)",
        example: r#"{ kind = "tuple-triplet", weight = 1.0, margin = 0.1, tuples = { references = { gallery = { pool = 20000 } }, positives = "label", mining = "hard", negatives = 5, own_teacher = false, reducer = "mean" } }"#,
    },
    Description {
        kind: "tuple-multi-similarity",
        summary: "as tuple-contrastive, multi-similarity of the query",
        formula: "reduce_tuples [1/alpha log(1 + sum_pos exp(alpha (base - c))) + 1/beta log(1 + sum_neg exp(beta (c - base)))]",
        source: "Budnik and Avrithis, CVPR 2021 (AML)",
        example: r#"{ kind = "tuple-multi-similarity", weight = 1.0, alpha = 2.0, beta = 40.0, base = 0.5, tuples = { references = { gallery = { pool = 20000 } }, positives = "label", mining = "hard", negatives = 5, own_teacher = false, reducer = "mean" } }"#,
    },
];
