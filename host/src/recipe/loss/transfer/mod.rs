//! Settings of losses that compare with a teacher.

mod absolute;
mod maps;
mod neighbors;
mod relational;

pub use absolute::*;
pub use maps::*;
pub use neighbors::*;
pub use relational::*;

/// Settings of a loss that has none.
macro_rules! without_settings {
    ($(#[$doc:meta])* $name:ident, aligns: $aligns:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {}

        impl crate::recipe::loss::Settings for $name {
            fn fault(&self) -> Option<&'static str> {
                None
            }

            fn needs_teacher(&self) -> bool {
                true
            }

            fn aligns(&self) -> bool {
                $aligns
            }
        }
    };
}
use without_settings;

/// What is the same for all settings of a family: they need the teacher, and align or not.
macro_rules! settings {
    ($name:ident, aligns: $aligns:literal, |$settings:ident| $conditions:expr) => {
        impl crate::recipe::loss::Settings for $name {
            fn fault(&self) -> Option<&'static str> {
                let $settings = self;
                crate::recipe::loss::first_fault(&$conditions)
            }

            fn needs_teacher(&self) -> bool {
                true
            }

            fn aligns(&self) -> bool {
                $aligns
            }
        }
    };
}
use settings;
