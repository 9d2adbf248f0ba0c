use eyas_shared::embedding::dot;
use prost::Message;

use super::*;
use crate::test_data::{
    CHANNELS, SIDE, bundle, bundle_around, embeddings, int, ints, model, node, onnx, onnx_with,
    pixels, raw_tensor, tensor, weights,
};

/// tract adds in another order than the loops here.
const SUMMATION: f32 = 1e-5;

fn message(onnx: &[u8]) -> String {
    Network::load(onnx, SIDE, None)
        .err()
        .expect("it must be refused")
        .to_string()
}

/// The test network in plain loops.
fn expected(pixels: &Pixels, dim: usize) -> Vec<f32> {
    let [conv_w, conv_b, head_w, head_b] = weights(dim as i64);
    let (side, channels) = (SIDE as usize, CHANNELS as usize);
    let mut pooled = vec![0.0; channels];
    for (c, pooled) in pooled.iter_mut().enumerate() {
        for (y, x) in (0..side / 2).flat_map(|y| (0..side / 2).map(move |x| (y, x))) {
            let mut sum = conv_b[c];
            for (i, ky, kx) in (0..27).map(|tap| (tap / 9, tap / 3 % 3, tap % 3)) {
                let (row, column) = (2 * y + ky, 2 * x + kx);
                if (1..=side).contains(&row) && (1..=side).contains(&column) {
                    let value = pixels.values_chw[(i * side + row - 1) * side + column - 1];
                    sum += value * conv_w[c * 27 + i * 9 + ky * 3 + kx];
                }
            }
            *pooled += sum.max(0.0) / (side * side / 4) as f32;
        }
    }
    (0..dim)
        .map(|d| head_b[d] + dot(&head_w[d * channels..][..channels], &pooled))
        .collect()
}

#[test]
fn a_network_computes_what_its_graph_says_and_counts_it() {
    let network = Network::load(&onnx(5), SIDE, None).unwrap();
    let pixels = pixels(1);
    let found = network.run(&pixels).unwrap();
    let expected = expected(&pixels, 5);
    assert_eq!((network.dim(), network.side(), found.len()), (5, SIDE, 5));
    for (a, b) in expected.iter().zip(&found) {
        assert!((a - b).abs() < SUMMATION, "{expected:?} and {found:?}");
    }
    let outputs = u64::from(SIDE * SIDE / 4);
    assert_eq!(
        network.multiply_adds(),
        outputs * 27 * CHANNELS as u64 + 5 * CHANNELS as u64
    );
    let operators: Vec<&str> = network.operators().keys().map(String::as_str).collect();
    assert_eq!(
        operators,
        ["Conv", "Flatten", "Gemm", "GlobalAveragePool", "Relu"]
    );
}

#[test]
fn the_same_pixels_give_the_same_bits() {
    let run = || {
        Network::load(&onnx(8), SIDE, None)
            .unwrap()
            .run(&pixels(2))
            .unwrap()
    };
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(run()), bits(run()));
    let network = Network::load(&onnx(8), SIDE, None).unwrap();
    assert_eq!(
        bits(network.run(&pixels(2)).unwrap()),
        bits(network.run(&pixels(2)).unwrap())
    );
}

#[test]
fn networks_and_encoders_are_shared_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<Network>();
    check::<Encoder>();
}

#[test]
fn an_output_is_chosen_by_name() {
    let bytes = onnx_with(5, |graph| {
        let mut second = graph.output[0].clone();
        second.name = "flat".to_owned();
        graph.output.push(second);
    });
    let load = |output| Network::load(&bytes, SIDE, output);
    assert_eq!(load(None).unwrap().dim(), 5);
    assert_eq!(load(Some("flat")).unwrap().dim(), CHANNELS as usize);
    let message = load(Some("logits")).err().unwrap().to_string();
    assert!(
        message.contains("no output `logits`, only `embedding`, `flat`"),
        "{message}"
    );
}

#[test]
fn weights_in_int8_are_widened_per_channel() {
    use tract_onnx::pb::tensor_proto::DataType;
    let dim = 5;
    let scales: Vec<f32> = (1..=CHANNELS).map(|c| c as f32 / 100.0).collect();
    let codes: Vec<i8> = (0..CHANNELS * 27)
        .map(|i| (i * 37 % 255 - 127) as i8)
        .collect();
    let wide: Vec<f32> = codes
        .iter()
        .enumerate()
        .map(|(i, q)| f32::from(*q) * scales[i / 27])
        .collect();
    let shape = [CHANNELS, 3, 3, 3];
    let plain = onnx_with(dim, |graph| {
        graph.initializer[0] = tensor("conv_w", &shape, &wide)
    });
    let quantized = |axis, n_scales: usize| {
        onnx_with(dim, |graph| {
            let bytes = codes.iter().map(|q| *q as u8).collect();
            graph.initializer[0] = raw_tensor("codes", &shape, DataType::Int8, bytes);
            let n = n_scales as i64;
            graph
                .initializer
                .push(tensor("scales", &[n], &vec![scales[1]; n_scales]));
            if n_scales == scales.len() {
                *graph.initializer.last_mut().unwrap() = tensor("scales", &[n], &scales);
            }
            let widen = node(
                "DequantizeLinear",
                &["codes", "scales"],
                "conv_w",
                vec![int("axis", axis)],
            );
            graph.node.insert(0, widen);
        })
    };
    let run = |onnx: &[u8]| {
        Network::load(onnx, SIDE, None)
            .unwrap()
            .run(&pixels(3))
            .unwrap()
    };
    assert_eq!(run(&plain), run(&quantized(0, scales.len())));
    assert_eq!(run(&plain), run(&quantized(-4, scales.len())));
    // Broadcast scales would multiply the data.
    assert!(message(&quantized(0, 1000)).contains("scales of shape [1000]"));
    assert!(message(&quantized(1, scales.len())).contains("scales of shape"));
}

#[test]
fn operators_beyond_the_list_are_refused_by_name() {
    let looping = onnx_with(5, |graph| graph.node[1].op_type = "Loop".to_owned());
    assert_eq!(
        message(&looping),
        "the network uses the operator `Loop`, which is not allowed"
    );
    let foreign = onnx_with(5, |graph| graph.node[1].domain = "com.example".to_owned());
    assert!(message(&foreign).contains("`com.example.Relu`"));
    let nested = onnx_with(5, |graph| {
        let mut attribute = int("body", 0);
        attribute.g = Some(Box::default()).map(|graph: Box<_>| *graph);
        graph.node[1].attribute.push(attribute);
    });
    assert!(message(&nested).contains("carries a graph"));
}

#[test]
fn malformed_graphs_are_refused_without_a_panic() {
    type Change = fn(&mut tract_onnx::pb::GraphProto);
    let cases: [(&str, Change); 12] = [
        ("before it exists", |g| g.node.swap(0, 1)),
        ("before it exists", |g| {
            g.node[1].input[0] = "nothing".to_owned()
        }),
        ("nothing computes its output", |g| {
            g.output[0].name = "nothing".to_owned()
        }),
        ("it has no output", |g| g.output.clear()),
        ("it has 0 inputs", |g| g.input.clear()),
        ("it has 2 inputs", |g| {
            let mut second = g.input[0].clone();
            second.name = "second".to_owned();
            g.input.push(second);
        }),
        ("does not fill", |g| g.initializer[0].dims[0] = 1 << 40),
        ("does not fill", |g| {
            g.initializer[0].dims = vec![i64::MAX; 4]
        }),
        ("does not fill", |g| g.initializer[0].dims[0] = -4),
        ("element type", |g| g.initializer[0].data_type = 8),
        ("another file", |g| {
            g.initializer[0].data_location = Some(1);
        }),
        ("only constants", |g| {
            g.node.insert(
                0,
                node(
                    "Concat",
                    &["conv_b", "conv_b"],
                    "twice",
                    vec![int("axis", 0)],
                ),
            );
        }),
    ];
    for (expected, change) in cases {
        let found = message(&onnx_with(5, change));
        assert!(found.contains(expected), "`{expected}` is not in `{found}`");
    }
    let larger = Network::load(&onnx(5), SIDE + 1, None)
        .err()
        .unwrap()
        .to_string();
    assert!(larger.contains("not one image of 3x17x17"), "{larger}");
    assert!(message(b"garbage").starts_with("the network can not be read"));
    assert_eq!(
        message(b""),
        "the network can not be used: the ONNX file holds no graph"
    );
}

#[test]
fn tensors_beyond_the_limit_are_refused_before_they_are_allocated() {
    let padded = onnx_with(5, |graph| {
        let huge = vec![ints("kernel_shape", &[3, 3]), ints("pads", &[1 << 20; 4])];
        graph.node[0].attribute = huge;
    });
    let err = Network::load(&padded, SIDE, None).err().unwrap();
    let text = format!("{:#}", anyhow::Error::from(err));
    assert!(text.contains("values; at most"), "{text}");
}

/// The test network with an attention of one head between its activation and its pooling:
/// four channels of 8 x 8 places, q, k and v the same.
fn attentive(change: impl FnOnce(&mut tract_onnx::pb::GraphProto)) -> Vec<u8> {
    onnx_with(5, |graph| {
        let perm = || vec![ints("perm", &[1, 0])];
        let tokens = [
            node("Flatten", &["relu"], "planes", vec![int("axis", 2)]),
            node("Transpose", &["planes"], "tokens", perm()),
            node("MatMul", &["tokens", "planes"], "scores", vec![]),
            node("Softmax", &["scores"], "shares", vec![int("axis", 1)]),
            node("MatMul", &["shares", "tokens"], "mixed", vec![]),
            node("Erf", &["mixed"], "active", vec![]),
            node(
                "ReduceMean",
                &["active"],
                "flat",
                vec![ints("axes", &[0]), int("keepdims", 1)],
            ),
        ];
        graph.node.splice(2..4, tokens);
        change(graph);
    })
}

#[test]
fn attention_computes_what_its_formula_says() {
    let pixels = pixels(1);
    let found = Network::load(&attentive(|_| ()), SIDE, None).unwrap();
    let found = found.run(&pixels).unwrap();
    let relu = Layers::load(&onnx(5), SIDE, &["relu"]).unwrap();
    let relu = relu.run(&pixels).unwrap().remove(0);
    let (n, channels) = ((SIDE * SIDE / 4) as usize, CHANNELS as usize);
    let token = |at: usize| -> Vec<f32> { (0..channels).map(|c| relu[c * n + at]).collect() };
    let tokens: Vec<Vec<f32>> = (0..n).map(token).collect();
    let mut pooled = vec![0.0; channels];
    for query in &tokens {
        let powers: Vec<f32> = tokens.iter().map(|key| dot(query, key).exp()).collect();
        let sum: f32 = powers.iter().sum();
        for (c, pooled) in pooled.iter_mut().enumerate() {
            let mixed = tokens
                .iter()
                .zip(&powers)
                .map(|(value, power)| value[c] * power / sum);
            *pooled += erf(mixed.sum::<f32>()) / n as f32;
        }
    }
    let [.., head_w, head_b] = weights(5);
    for (d, found) in found.iter().enumerate() {
        let expected = head_b[d] + dot(&head_w[d * channels..][..channels], &pooled);
        assert!(
            (found - expected).abs() < SUMMATION,
            "{found} and {expected}"
        );
    }
}

/// 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x, by Simpson's rule.
fn erf(x: f32) -> f32 {
    let (n, x) = (200, f64::from(x));
    let at = |i: usize| (-(x * i as f64 / n as f64).powi(2)).exp();
    let share = |i: usize| {
        if i == 0 || i == n {
            1.0
        } else {
            [2.0, 4.0][i % 2]
        }
    };
    let sum: f64 = (0..=n).map(|i| share(i) * at(i)).sum();
    (std::f64::consts::FRAC_2_SQRT_PI * sum * x / (3 * n) as f64) as f32
}

#[test]
fn hostile_attention_is_refused_without_a_panic() {
    let text = |onnx: &[u8]| {
        let err = Network::load(onnx, SIDE, None)
            .err()
            .expect("it must be refused");
        format!("{:#}", anyhow::Error::from(err))
    };
    // 142 x 142 tokens, each with every other.
    let square = attentive(|graph| {
        let pads = vec![ints("kernel_shape", &[3, 3]), ints("pads", &[64; 4])];
        graph.node[0].attribute = pads;
    });
    let found = text(&square);
    assert!(found.contains("values; at most"), "{found}");
    for axis in [-3, 2, i64::MAX, i64::MIN] {
        let outside = attentive(|graph| graph.node[5].attribute = vec![int("axis", axis)]);
        let found = text(&outside);
        assert!(found.contains("softmax over axes"), "{axis}: {found}");
    }
    text(&attentive(|graph| {
        graph.node[4].input[1] = "tokens".to_owned()
    }));
    // They would be evaluated while the graph is read, before any shape is checked.
    for operator in ["Softmax", "Erf"] {
        let early = onnx_with(5, |graph| {
            graph
                .node
                .insert(0, node(operator, &["conv_b"], "early", vec![]));
        });
        assert!(text(&early).contains("only constants"), "{operator}");
    }
}

#[test]
fn every_truncation_and_many_flips_of_a_network_are_survived() {
    for whole in [onnx(5), attentive(|_| ())] {
        survives(&whole);
    }
}

fn survives(whole: &[u8]) {
    for len in (0..whole.len()).step_by(3) {
        let _ = Network::load(&whole[..len], SIDE, None).map(|network| network.run(&pixels(1)));
    }
    let mut random = eyas_shared::random::Random::new(5);
    for _ in 0..2000 {
        let mut damaged = whole.to_vec();
        let at = random.below(damaged.len());
        damaged[at] = random.bits() as u8;
        let _ = Network::load(&damaged, SIDE, None).map(|network| network.run(&pixels(1)));
    }
}

#[test]
fn a_panic_inside_tract_becomes_an_error() {
    let outcome: Result<(), _> = in_tract("built", || panic!("seven of {}", 9));
    let text = outcome.unwrap_err().to_string();
    assert_eq!(
        text,
        "the network can not be built: tract stopped with `seven of 9`"
    );
}

#[test]
fn an_encoder_gives_unit_vectors_and_passes_its_own_selftest() {
    let bytes = bundle(6);
    let bundle = Bundle::read(&bytes).unwrap();
    let encoder = Encoder::load(&bundle).unwrap();
    let embedding = encoder.encode(&pixels(4)).unwrap();
    assert!((dot(&embedding, &embedding) - 1.0).abs() < SUMMATION);
    let outcome = encoder.selftest(&bundle).unwrap();
    assert!(outcome.passed() && outcome.same_pixels, "{outcome:?}");
    assert_eq!(outcome.cosines.len(), 2);

    let mut other = Bundle::read(&bytes).unwrap();
    other.header.probe_pixels.0[0] ^= 1;
    assert!(!encoder.selftest(&other).unwrap().passed());
    let mut other = Bundle::read(&bytes).unwrap();
    other.probe_embeddings = embeddings(2, 6, 9);
    let outcome = encoder.selftest(&other).unwrap();
    assert!(!outcome.passed() && outcome.same_pixels, "{outcome:?}");
}

#[test]
fn pixels_of_another_size_are_refused() {
    let network = Network::load(&onnx(5), SIDE, None).unwrap();
    let other = Pixels {
        side: 2,
        values_chw: vec![0.0; 12],
    };
    assert_eq!(
        network.run(&other).unwrap_err().to_string(),
        "the network reads images of 16x16 pixels, not 2x2"
    );
    let short = Pixels {
        side: SIDE,
        values_chw: vec![0.0; 12],
    };
    assert!(network.run(&short).is_err());
}

#[test]
fn a_dimension_that_the_bundle_does_not_promise_is_refused() {
    let bytes = bundle_around(&onnx(5), 6, embeddings(1, 6, 1));
    let err = Encoder::load(&Bundle::read(&bytes).unwrap()).err().unwrap();
    assert_eq!(
        err.to_string(),
        "the network gives 5 values, but its bundle promises embeddings of 6"
    );
}

#[test]
fn outputs_without_direction_are_errors() {
    let zero = onnx_with(5, |graph| {
        graph.initializer[2] = tensor("head_w", &[5, CHANNELS], &[0.0; 20]);
        graph.initializer[3] = tensor("head_b", &[5], &[0.0; 5]);
    });
    let not_finite = onnx_with(5, |graph| {
        graph.initializer[3] = tensor("head_b", &[5], &[f32::INFINITY; 5]);
    });
    for (onnx, expected) in [(zero, "zero"), (not_finite, "not finite")] {
        let bytes = bundle_around(&onnx, 5, embeddings(1, 5, 1));
        let encoder = Encoder::load(&Bundle::read(&bytes).unwrap()).unwrap();
        let text = encoder.encode(&pixels(1)).unwrap_err().to_string();
        assert_eq!(
            text,
            format!("the network's output for this image is {expected}")
        );
    }
}

#[test]
fn functions_of_a_file_are_refused() {
    let mut model = model(5);
    model.functions.push(Default::default());
    assert!(message(&model.encode_to_vec()).contains("functions of its own"));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let one = Network::load(&onnx(5), SIDE, None).unwrap();
    let mut three = Network::load(&onnx(5), SIDE, None).unwrap();
    three.set_threads(3).unwrap();
    for seed in 0..4 {
        let pixels = pixels(seed);
        assert_eq!(one.run(&pixels).unwrap(), three.run(&pixels).unwrap());
    }
}

#[test]
fn a_profile_names_the_layers_of_the_file() {
    let network = Network::load(&onnx(5), SIDE, None).unwrap();
    let profile = network.profile(&pixels(1), 3).unwrap();
    let of = |layer: &str| {
        profile
            .iter()
            .filter(|it| it.node.starts_with(layer))
            .count()
    };
    for layer in ["conv", "embedding"] {
        assert!(of(layer) > 0, "{layer}: {profile:?}");
    }
    assert!(profile.iter().any(|it| it.nanos > 0));
    assert_eq!(profile, {
        let again = network.profile(&pixels(1), 1).unwrap();
        let nanos = profile.iter().map(|it| it.nanos);
        let with = |(it, nanos): (OperatorTime, u64)| OperatorTime { nanos, ..it };
        again.into_iter().zip(nanos).map(with).collect::<Vec<_>>()
    });
}
