//! Weights for tests: as large as trained ones, and batch norm that does something.

/// Weights of a network drawn from one seed: convolutions and linear layers as He et al.
/// (ICCV 2015) start them, biases and batch norm off their neutral values.
pub(crate) fn random_weights(network: &crate::zoo::Network, seed: u64) -> crate::weights::Weights {
    let root = eyas_shared::random::Random::new(seed);
    let fill = |shape: &crate::zoo::WeightShape| {
        let mut random = root.fork(&shape.name);
        let n = shape.shape.iter().product::<usize>();
        let suffix = shape.name.rsplit('.').next().unwrap_or_default();
        let fan_in = n / shape.shape[0];
        let he = (2.0 / fan_in as f64).sqrt();
        let mut draw = || match (suffix, shape.shape.len()) {
            ("weight" | "gamma", 1) => random.range(0.5, 1.5),
            ("weight", _) => he * random.normal(),
            ("running_var", _) => random.range(0.3, 3.0),
            ("p", _) => random.range(2.0, 4.0),
            _ => 0.1 * random.normal(),
        };
        crate::weights::Weight {
            shape: shape.shape.clone(),
            values: (0..n).map(|_| draw() as f32).collect(),
        }
    };
    let shapes = network.weights();
    crate::weights::Weights(
        shapes
            .iter()
            .map(|shape| (shape.name.clone(), fill(shape)))
            .collect(),
    )
}
