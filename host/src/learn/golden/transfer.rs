//! Entries of losses that compare with a teacher.

use super::{Case, Evaluated};
use crate::learn::loss::relaxed_contrastive;
use crate::recipe::loss::RelaxedContrastive;

pub(super) fn evaluate(case: &Case<'_>) -> Evaluated {
    let pair = || Ok::<_, String>((case.tensor("student")?, case.tensor("teacher")?));
    let loss = match &*case.entry.cls {
        "Relaxed_Contra" => {
            let (student, teacher) = pair()?;
            let settings = RelaxedContrastive {
                sigma: case.number("sigma")?,
                delta: case.number("delta")?,
            };
            relaxed_contrastive(student, teacher, settings)
        }
        _ => return Ok(None),
    };
    Ok(Some(loss.into()))
}
