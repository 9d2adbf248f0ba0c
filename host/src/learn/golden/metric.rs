//! Entries of losses that learn from labels.

use super::{Case, Evaluated};
use crate::learn::loss::proxy_anchor;
use crate::recipe::loss::ProxyAnchor;

pub(super) fn evaluate(case: &Case<'_>) -> Evaluated {
    let loss = match &*case.entry.cls {
        "DML_losses.Proxy_Anchor" | "losses.Proxy_Anchor" => {
            let settings = ProxyAnchor {
                alpha: case.number("alpha")?,
                margin: case.number("mrg")?,
                proxy_rate_factor: 1.0,
            };
            let (student, labels) = (case.tensor("student")?, case.tensor("labels")?);
            proxy_anchor(student, labels, case.tensor("proxies")?, settings)
        }
        _ => return Ok(None),
    };
    Ok(Some(loss.into()))
}
