//! Settings of losses that compare a row with its own teacher embedding.

use serde::{Deserialize, Serialize};

use super::{settings, without_settings};
use crate::recipe::is_zero_or_more;

without_settings!(
    /// Regression of the teacher's embedding (AML's Reg).
    Regression, aligns: true
);

without_settings!(
    /// Absolute teacher of "learning metrics from teachers" (Yu et al., CVPR 2019).
    AbsoluteTeacher, aligns: true
);

without_settings!(
    /// FitNets' hint on embeddings.
    Hint, aligns: true
);

without_settings!(
    /// RepDistiller's form of correlation congruence.
    SuccessiveDifferences, aligns: true
);

/// RAML's second-order loss (Suma and Tolias, WACV 2023).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondOrder {
    /// Weight of the similarities between student and teacher.
    pub student_teacher: f64,
    /// Weight of the similarities between students.
    pub student_student: f64,
}

settings!(SecondOrder, aligns: true, |loss| [
    (is_zero_or_more(loss.student_teacher), "student_teacher is negative"),
    (is_zero_or_more(loss.student_student), "student_student is negative"),
]);
