//! What each loss is: formula, source, published settings.

use super::WeightedLoss;

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

impl Description {
    /// The example as a recipe reads it.
    ///
    /// # Panics
    /// Never: a test reads every example.
    #[must_use]
    pub fn term(&self) -> WeightedLoss {
        #[derive(serde::Deserialize)]
        struct Line {
            loss: WeightedLoss,
        }
        let line: Line = toml::from_str(&format!("loss = {}", self.example))
            .expect("every example is a weighted loss");
        line.loss
    }
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
    Description {
        kind: "relaxed-multi-similarity",
        summary: "relaxed contrastive through log-sum-exp, so that hard pairs weigh more; views of an image are fully related",
        formula: "1/N sum_i [1/alpha log(1 + sum_{j != i} w_ij exp(alpha d_ij)) + 1/beta log(1 + sum_{j != i} (1 - w_ij) exp(beta (delta - d_ij)))], d_ij = D_ij / mean_j D_ij, w_ij = exp(-|t_i - t_j|^2 / sigma), 1 for two views",
        source: "Kim et al., CVPR 2021; settings of the authors' code",
        example: r#"{ kind = "relaxed-multi-similarity", weight = 1.0, sigma = 1.0, delta = 1.0, alpha = 1.0, beta = 2.0 }"#,
    },
    Description {
        kind: "rkd-distance",
        summary: "distances between rows, in units of their mean, as the teacher's (RKD-D)",
        formula: "1/N^2 sum_ij h(D_ij / mean D - D^t_ij / mean D^t), h smooth L1; student raw",
        source: "Park et al., CVPR 2019; weight 1 beside 2 of rkd-angle, RepDistiller takes 25 and 50",
        example: r#"{ kind = "rkd-distance", weight = 1.0 }"#,
    },
    Description {
        kind: "rkd-angle",
        summary: "angles between triples of rows as the teacher's (RKD-A)",
        formula: "1/N^3 sum_ijk h(<e_ij, e_ik> - <e^t_ij, e^t_ik>), e_ij = (s_j - s_i) / |s_j - s_i|, h smooth L1; student raw",
        source: "Park et al., CVPR 2019; weight 2 beside 1 of rkd-distance",
        example: r#"{ kind = "rkd-angle", weight = 1.0 }"#,
    },
    Description {
        kind: "dark-rank",
        summary: "the teacher's nearest rows ranked in its order (hard DarkRank)",
        formula: "-1/N sum_i log prod_k exp(S_{i,k}) / sum_{l >= k} exp(S_{i,l}), S = -alpha D^beta of unit rows, k over the teacher's n_ranked nearest in order",
        source: "Chen et al., AAAI 2018; settings of RC's authors, who add a triplet loss; RKD's code takes alpha = 2",
        example: r#"{ kind = "dark-rank", weight = 1.0, alpha = 3.0, beta = 3.0, n_ranked = 4 }"#,
    },
    Description {
        kind: "probabilistic-transfer",
        summary: "neighbor probabilities as the teacher's (PKT)",
        formula: "1/N^2 sum_ij p^t_ij log(p^t_ij / p_ij), p_ij = (c_ij + 1) / sum_k (c_ik + 1)",
        source: "Passalis and Tefas, ECCV 2018; values are near 1e-4: RepDistiller weighs it 30000",
        example: r#"{ kind = "probabilistic-transfer", weight = 1.0 }"#,
    },
    Description {
        kind: "relative-teacher",
        summary: "distances between unit rows as the teacher's (LMT, relative)",
        formula: "sqrt(sum_ij (D_ij - D^t_ij)^2)",
        source: "Yu et al., CVPR 2019",
        example: r#"{ kind = "relative-teacher", weight = 1.0 }"#,
    },
    Description {
        kind: "similarity-preserving",
        summary: "similarities between rows, scaled per row, as the teacher's (SP)",
        formula: "1/N^2 sum_ij (G_ij / |G_i| - G^t_ij / |G^t_i|)^2, G = S S'",
        source: "Tung and Mori, ICCV 2019; RepDistiller weighs it 3000",
        example: r#"{ kind = "similarity-preserving", weight = 1.0 }"#,
    },
    Description {
        kind: "correlation-congruence",
        summary: "Gaussian kernels of unit rows as the teacher's (CC)",
        formula: "1/N^2 sum_ij (k(s_i, s_j) - k(t_i, t_j))^2, k = exp(-2 gamma) sum_{p <= order} (2 gamma c)^p / p!",
        source: "Peng et al., ICCV 2019",
        example: r#"{ kind = "correlation-congruence", weight = 1.0, gamma = 0.4, order = 2 }"#,
    },
    Description {
        kind: "absolute-teacher",
        summary: "distance to the teacher's embedding, both of unit length, not squared (LMT, absolute)",
        formula: "1/N sum_i |s_i - t_i + 1e-6|",
        source: "Yu et al., CVPR 2019",
        example: r#"{ kind = "absolute-teacher", weight = 1.0 }"#,
    },
    Description {
        kind: "hint",
        summary: "squared error of the raw embedding (FitNets' hint)",
        formula: "1/(N D) sum_i |s_i - t_i|^2",
        source: "Romero et al., ICLR 2015; RepDistiller weighs it 100",
        example: r#"{ kind = "hint", weight = 1.0 }"#,
    },
    Description {
        kind: "successive-differences",
        summary: "what RepDistiller runs as correlation congruence: products of the errors of successive rows",
        formula: "1/(N - 1) sum_i <|s_i - t_i|, |s_{i+1} - t_{i+1}|>, absolute values by component",
        source: "RepDistiller's Correlation, after Peng et al., ICCV 2019; it weighs it 0.02",
        example: r#"{ kind = "successive-differences", weight = 1.0 }"#,
    },
    Description {
        kind: "second-order",
        summary: "first and second order similarities at once (RAML)",
        formula: "mean_i (1 - <s_i, t_i>)^2 + student_teacher mean_{i != j} (<s_i, t_j> - <t_i, t_j>)^2 + student_student mean_{i != j} (<s_i, s_j> - <t_i, t_j>)^2",
        source: "Suma and Tolias, WACV 2023; settings of D3still's port for CUB",
        example: r#"{ kind = "second-order", weight = 1.0, student_teacher = 0.7482, student_student = 0.6778 }"#,
    },
    Description {
        kind: "contextual-similarity",
        summary: "softmax over the teacher's nearest references as the teacher's (CSD)",
        formula: "1/N sum_i KL(softmax(c(t_i, G) / teacher_temperature) | softmax(c(s_i, G) / student_temperature)), G the n_neighbors nearest of t_i in the batch or the teacher's gallery",
        source: "Wu et al., CVPR 2022; settings of D3still's port, which takes the batch; equal temperatures near 0.05 did better in our trials",
        example: r#"{ kind = "contextual-similarity", weight = 1.0, references = "batch", n_neighbors = 96, student_temperature = 1.0, teacher_temperature = 0.01 }"#,
    },
    Description {
        kind: "rank-order",
        summary: "soft ranks of the teacher's nearest rows as the teacher's (ROP)",
        formula: "1/(N K) sum_i sum_jl w_ij (sigm((c(t_i, t_l) - c(t_i, t_j)) / 1e-6) - sigm((c(s_i, t_l) - c(t_i, t_j)) / temperature))^2, w_ij = j softmax_j(rank_weight c(t_i, t_j)), j and l over the teacher's n_neighbors = K nearest",
        source: "A general rank preserving framework for asymmetric image retrieval, ICLR 2023",
        example: r#"{ kind = "rank-order", weight = 1.0, n_neighbors = 96, temperature = 0.1, rank_weight = 0.2 }"#,
    },
    Description {
        kind: "decoupled-differential",
        summary: "differences between similarities to the teacher's nearest rows, reversed ones apart (D3)",
        formula: "alpha/N sqrt(sum_i (1 - c(s_i, t_i))^2) + mean_i [beta |E_i reversed| + gamma |E_i ordered|] / (n_neighbors - 1), E_ijl = (Ds - Dt) / (0.1 + |Dt|), Dx = c(x_i, t_j) - c(x_i, t_l)",
        source: "Xie et al., CVPR 2024",
        example: r#"{ kind = "decoupled-differential", weight = 1.0, n_neighbors = 10, alpha = 50.0, beta = 2.0, gamma = 1.0 }"#,
    },
    Description {
        kind: "structure-similarity",
        summary: "softmax over the centroids of a product quantizer of the teacher's gallery as the teacher's (SSP)",
        formula: "1/(N M) sum_i sum_m KL(softmax(scale c(t_im, C_m)) | softmax(scale c(s_im, C_m)))",
        source: "Wu et al., arXiv 2403.00648",
        example: r#"{ kind = "structure-similarity", weight = 1.0, sub_spaces = 32, centroids = 256, scale = 10.0, iterations = 10 }"#,
    },
    Description {
        kind: "knowledge-distillation",
        summary: "softmax over the labels as the teacher's (KD); logits are cosines with the teacher's mean embedding of each label",
        formula: "T^2/N sum_i KL(softmax(z^t_i / T) | softmax(z_i / T)), z_iy = scale c(s_i, C_y), C_y = mean of the teacher's embeddings of label y",
        source: "Hinton et al., 2015, T of RepDistiller; its logits come from trained classifiers, the scale is ours",
        example: r#"{ kind = "knowledge-distillation", weight = 1.0, temperature = 4.0, scale = 32.0 }"#,
    },
    Description {
        kind: "contrastive-representation",
        summary: "a projected student finds its image among remembered projected teachers, and the other way round (CRD)",
        formula: "-1/N sum_i [log(o_i0 / (o_i0 + K/n)) + sum_k log((K/n) / (o_ik + K/n))], o = exp(<p(s_i), m_k> / T) / Z, and the same for the teacher among students; Z of the first step",
        source: "Tian et al., ICLR 2020; negatives of RC's authors, RepDistiller takes 16384; weight 0.8 there",
        example: r#"{ kind = "contrastive-representation", weight = 1.0, features = 128, negatives = 4096, temperature = 0.07, momentum = 0.5, rate_factor = 1.0 }"#,
    },
    Description {
        kind: "map-hint",
        summary: "a map of the student, through a trained 1x1 convolution, as the teacher's (FitNets)",
        formula: "1/(N C H W) sum |W F - F^t|^2",
        source: "Romero et al., ICLR 2015; RepDistiller weighs it 100",
        example: r#"{ kind = "map-hint", weight = 1.0, student = "body.3.relu", teacher = "layer4.1.add.relu", rate_factor = 1.0 }"#,
    },
    Description {
        kind: "attention-transfer",
        summary: "where a map is strong as in the teacher's (AT)",
        formula: "1/(N H W) sum |a - a^t|^2, a = mean_c F^power as a unit vector of H x W",
        source: "Zagoruyko and Komodakis, ICLR 2017; RepDistiller weighs it 1000",
        example: r#"{ kind = "attention-transfer", weight = 1.0, student = "body.3.relu", teacher = "layer4.1.add.relu", power = 2 }"#,
    },
    Description {
        kind: "factor-transfer",
        summary: "the same with another norm (FT, without factor extractors)",
        formula: "1/(N H W) sum |a - a^t|^outer_power, a = mean_c F^power as a unit vector of H x W",
        source: "Kim et al., NeurIPS 2018, as RepDistiller runs it with weight 200",
        example: r#"{ kind = "factor-transfer", weight = 1.0, student = "body.3.relu", teacher = "layer4.1.add.relu", power = 2, outer_power = 1 }"#,
    },
    Description {
        kind: "neuron-selectivity",
        summary: "channels distributed over places as the teacher's (NST)",
        formula: "mean k(f, f) + mean k(f^t, f^t) - 2 mean k(f, f^t), k = <a, b>^2, f channels as unit vectors of H x W",
        source: "Huang and Wang, 2017; RepDistiller weighs it 50",
        example: r#"{ kind = "neuron-selectivity", weight = 1.0, student = "body.3.relu", teacher = "layer4.1.add.relu" }"#,
    },
    Description {
        kind: "solution-flow",
        summary: "products of the channels of two stages as the teacher's (FSP)",
        formula: "mean (G - G^t)^2, G = 1/(H W) sum_hw F1 F2'",
        source: "Yim et al., CVPR 2017, who train with it alone first; RepDistiller weighs it 50",
        example: r#"{ kind = "solution-flow", weight = 1.0, student = ["body.0.relu", "body.3.relu"], teacher = ["layer2.0.add.relu", "layer2.1.add.relu"] }"#,
    },
    Description {
        kind: "variational-information",
        summary: "the teacher's map likely around a trained regression from the student's (VID)",
        formula: "mean 1/2 [(r(F) - F^t)^2 / v_c + log v_c], r three 1x1 convolutions, v_c a trained variance per channel",
        source: "Ahn et al., CVPR 2019; settings of RepDistiller",
        example: r#"{ kind = "variational-information", weight = 1.0, student = "body.3.relu", teacher = "layer4.1.add.relu", variance = 5.0, rate_factor = 1.0 }"#,
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
        summary: "query of the student, one positive and the hardest negatives of the teacher's gallery (Contr; with own_teacher Contr+), or the tuples of the batch",
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
