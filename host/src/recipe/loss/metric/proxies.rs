//! Settings of losses with trained points for each class.

use serde::{Deserialize, Serialize};

use crate::recipe::loss::{Settings, first_fault};
use crate::recipe::{is_positive, is_zero_or_more};

const BAD_RATE: &str = "proxy_rate_factor is not positive";

/// Proxy Anchor (Kim et al., CVPR 2020).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyAnchor {
    /// Scale of the cosines.
    pub alpha: f64,
    /// Margin of the cosines.
    pub margin: f64,
    /// The proxies' rate in multiples of the network's.
    pub proxy_rate_factor: f64,
}

impl Settings for ProxyAnchor {
    fn fault(&self) -> Option<&'static str> {
        first_fault(&[
            (is_positive(self.alpha), "alpha is not positive"),
            (self.margin.is_finite(), "margin is not finite"),
            (is_positive(self.proxy_rate_factor), BAD_RATE),
        ])
    }

    fn needs_teacher(&self) -> bool {
        false
    }

    fn aligns(&self) -> bool {
        false
    }
}

/// Proxy NCA (Movshovitz-Attias et al., ICCV 2017), the own proxy in the denominator.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyNca {
    /// Factor of the squared distances.
    pub softmax_scale: f64,
    /// Length of the embeddings.
    pub embedding_length: f64,
    /// Length of the proxies.
    pub proxy_length: f64,
    /// Probability, 0 to below 1, that the target spreads over the other classes.
    pub smoothing: f64,
    /// The proxies' rate in multiples of the network's.
    pub proxy_rate_factor: f64,
}

impl Settings for ProxyNca {
    fn fault(&self) -> Option<&'static str> {
        first_fault(&[
            (
                is_positive(self.softmax_scale),
                "softmax_scale is not positive",
            ),
            (
                is_positive(self.embedding_length),
                "embedding_length is not positive",
            ),
            (
                is_positive(self.proxy_length),
                "proxy_length is not positive",
            ),
            (
                (0.0..1.0).contains(&self.smoothing),
                "smoothing is not 0 to below 1",
            ),
            (is_positive(self.proxy_rate_factor), BAD_RATE),
        ])
    }

    fn needs_teacher(&self) -> bool {
        false
    }

    fn aligns(&self) -> bool {
        false
    }
}

/// SoftTriple (Qian et al., ICCV 2019): several centers for each class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftTriple {
    /// Centers of a class, 1 to 1024.
    pub centers: usize,
    /// Factor of the similarities.
    pub lambda: f64,
    /// Temperature of the softmax over the centers of a class.
    pub gamma: f64,
    /// Taken from the similarity to the own class.
    pub margin: f64,
    /// Weight of the term that draws the centers of a class together.
    pub tau: f64,
    /// The centers' rate in multiples of the network's.
    pub proxy_rate_factor: f64,
}

impl Settings for SoftTriple {
    fn fault(&self) -> Option<&'static str> {
        first_fault(&[
            (
                (1..=1024).contains(&self.centers),
                "centers is not 1 to 1024",
            ),
            (is_positive(self.lambda), "lambda is not positive"),
            (is_positive(self.gamma), "gamma is not positive"),
            (self.margin.is_finite(), "margin is not finite"),
            (is_zero_or_more(self.tau), "tau is below 0"),
            (is_positive(self.proxy_rate_factor), BAD_RATE),
        ])
    }

    fn needs_teacher(&self) -> bool {
        false
    }

    fn aligns(&self) -> bool {
        false
    }
}
