//! Settings of losses that compare maps within the student with maps within a teacher's
//! network. They shape what a student sees, not where its embeddings lie: none aligns.

use serde::{Deserialize, Serialize};

use crate::recipe::is_positive;
use crate::recipe::loss::{ComparedNodes, Settings, first_fault};

/// What is the same for all: the nodes, and the conditions on the other values.
macro_rules! map_settings {
    ($name:ident, channels: $channels:ident, |$loss:ident| $student:expr, $teacher:expr, $conditions:expr) => {
        impl Settings for $name {
            fn fault(&self) -> Option<&'static str> {
                let $loss = self;
                // A loss without other values does not look at itself.
                let _ = $loss;
                first_fault(&$conditions)
            }

            fn needs_teacher(&self) -> bool {
                true
            }

            fn aligns(&self) -> bool {
                false
            }

            fn nodes(&self) -> Option<ComparedNodes<'_>> {
                let $loss = self;
                Some(ComparedNodes {
                    student: $student,
                    teacher: $teacher,
                    as_many_channels: stringify!($channels) == "equal",
                })
            }
        }
    };
}

/// FitNets' hint (Romero et al., ICLR 2015).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapHint {
    /// Node of the student.
    pub student: String,
    /// Node of the teacher's network.
    pub teacher: String,
    /// Rate of the layer between, in multiples of the network's.
    pub rate_factor: f64,
}

map_settings!(MapHint, channels: any, |loss| vec![&loss.student], vec![&loss.teacher], [
    (is_positive(loss.rate_factor), "rate_factor is not positive"),
]);

/// Attention transfer (Zagoruyko and Komodakis, ICLR 2017).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionTransfer {
    /// Node of the student.
    pub student: String,
    /// Node of the teacher's network.
    pub teacher: String,
    /// Power of an activation in the attention; a whole number.
    pub power: u32,
}

map_settings!(AttentionTransfer, channels: any, |loss| vec![&loss.student], vec![&loss.teacher], [
    ((1..=16).contains(&loss.power), "power is not in 1..=16"),
]);

/// Factor transfer without factor extractors, as RepDistiller runs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactorTransfer {
    /// Node of the student.
    pub student: String,
    /// Node of the teacher's network.
    pub teacher: String,
    /// Power of an activation in the factor; a whole number.
    pub power: u32,
    /// Power of the difference of two factors; a whole number.
    pub outer_power: u32,
}

map_settings!(FactorTransfer, channels: any, |loss| vec![&loss.student], vec![&loss.teacher], [
    ((1..=16).contains(&loss.power), "power is not in 1..=16"),
    ((1..=16).contains(&loss.outer_power), "outer_power is not in 1..=16"),
]);

/// Neuron selectivity transfer (Huang and Wang, 2017).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeuronSelectivity {
    /// Node of the student.
    pub student: String,
    /// Node of the teacher's network.
    pub teacher: String,
}

map_settings!(NeuronSelectivity, channels: any, |loss| vec![&loss.student], vec![&loss.teacher], []);

/// Flow of solution procedure (Yim et al., CVPR 2017).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SolutionFlow {
    /// Nodes of the student where a stage begins and ends.
    pub student: [String; 2],
    /// Nodes of the teacher's network with as many channels.
    pub teacher: [String; 2],
}

map_settings!(
    SolutionFlow, channels: equal,
    |loss| loss.student.iter().map(String::as_str).collect(),
    loss.teacher.iter().map(String::as_str).collect(), []
);

/// Variational information distillation (Ahn et al., CVPR 2019).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariationalInformation {
    /// Node of the student.
    pub student: String,
    /// Node of the teacher's network.
    pub teacher: String,
    /// First variance of every channel.
    pub variance: f64,
    /// Rate of the regressor, in multiples of the network's.
    pub rate_factor: f64,
}

map_settings!(VariationalInformation, channels: any, |loss| vec![&loss.student], vec![&loss.teacher], [
    // The variance is a small constant plus something positive.
    ((1e-4..=100.0).contains(&loss.variance), "variance is not in 0.0001..=100"),
    (is_positive(loss.rate_factor), "rate_factor is not positive"),
]);
