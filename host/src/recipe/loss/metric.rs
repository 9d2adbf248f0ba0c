//! Settings of losses that learn from labels.

use serde::{Deserialize, Serialize};

use super::{Settings, first_fault};
use crate::recipe::is_positive;

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
            (
                is_positive(self.proxy_rate_factor),
                "proxy_rate_factor is not positive",
            ),
        ])
    }

    fn needs_teacher(&self) -> bool {
        false
    }

    fn aligns(&self) -> bool {
        false
    }
}
