//! What a full-integer form could gain at most: every dense convolution of a network as a
//! product of bytes, beside what the engine takes for it in f32.
//!
//!     cargo bench --workspace --bench integer -- [--side S] [--rounds R] [NAME..]
//!
//! Names are those of the zoo. No product computes so: this answers whether one should.
//! Activations are unsigned bytes, weights signed ones, sums i32, which is exact. Two forms
//! are timed: `bytes`, where a layer reads what the one before left and leaves bytes, as in
//! a network that is integer from end to end; and `passes`, where it reads f32, makes bytes
//! of it, and leaves f32. Both may choose their tile by trying, which the engine may not.

#![allow(missing_docs, reason = "a program")]
#![expect(clippy::print_stdout, reason = "this is where figures reach the user")]

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("skipped: the products of bytes are written for x86-64");
}

#[cfg(target_arch = "x86_64")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    x86::run()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::time::Instant;

    use eyas_device::encoder::{Isa, Network, OperatorTime, Runtime};
    use eyas_host::export::{fold, onnx};
    use eyas_host::zoo::{self, Op, init};
    use eyas_shared::bundle::Precision;
    use eyas_shared::preprocess::Pixels;
    use eyas_shared::random::Random;

    type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

    /// Columns of a panel.
    const LANES: usize = 16;

    /// Bytes of one channel or row that an instruction multiplies and adds up.
    const UNIT: usize = 4;

    pub(super) fn run() -> Outcome<()> {
        // `cargo bench` passes `--bench` on.
        let mut names: Vec<String> = std::env::args()
            .skip(1)
            .filter(|word| word != "--bench")
            .collect();
        let mut number = |name: &str, default: usize| -> Outcome<usize> {
            let Some(at) = names.iter().position(|word| word == name) else {
                return Ok(default);
            };
            names.remove(at);
            Ok(names.remove(at).parse()?)
        };
        let (side, rounds) = (number("--side", 160)?, number("--rounds", 100)?);
        if names.is_empty() {
            names = vec!["eyas-s".to_owned(), "squeezenet1_1".to_owned()];
        }
        for name in &names {
            for kernel in Kernel::available() {
                measure(name, side, rounds, kernel)?;
            }
        }
        Ok(())
    }

    /// Instructions for products of bytes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Kernel {
        /// `maddubs`, `madd` and an addition: 32 products in three instructions.
        Avx2,
        /// `dpbusd`: 64 products in one.
        Avx512Vnni,
    }

    impl Kernel {
        fn available() -> Vec<Self> {
            let mut found = Vec::new();
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                found.push(Self::Avx512Vnni);
            }
            found
        }

        /// The engine on the same kind of CPU.
        fn isa(self) -> Isa {
            match self {
                Self::Avx2 => Isa::Avx2,
                Self::Avx512Vnni => Isa::Avx512,
            }
        }

        /// Rows and panels whose sums the registers hold.
        fn tiles(self) -> &'static [(usize, usize)] {
            match self {
                Self::Avx2 => &[(4, 1), (6, 1)],
                Self::Avx512Vnni => &[(12, 1), (12, 2), (8, 3), (6, 4)],
            }
        }
    }

    /// What a layer leaves.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Leaves {
        Bytes,
        Floats,
    }

    /// A dense convolution. Maps lie channels last; bytes have a border of zeros around
    /// them, so that every row of a kernel is one piece of memory.
    struct Layer {
        name: String,
        shape: String,
        multiply_adds: usize,
        side: usize,
        padding: usize,
        channels: usize,
        input: Vec<f32>,
        bytes: Vec<u8>,
        /// Where each row of the kernel begins, `[kernel row][output pixel]`.
        offsets: Vec<u32>,
        n_pixels: usize,
        n_taps: usize,
        units: usize,
        n_panels: usize,
        /// `[panel][kernel row][unit][column][byte]`.
        weights: Vec<i8>,
        /// From sums to values, and their shift, for every column.
        scales: Vec<f32>,
        biases: Vec<f32>,
        floats: Vec<f32>,
        left: Vec<u8>,
        tile: (usize, usize),
    }

    impl Layer {
        fn new(name: String, op: Op, side: usize, random: &mut Random) -> Option<Self> {
            let Op::Conv {
                inputs,
                outputs,
                kernel,
                stride,
                padding,
                groups: 1,
                ..
            } = op
            else {
                return None;
            };
            let whole = side + 2 * padding;
            let out = (whole - kernel) / stride + 1;
            let units = (kernel * inputs).div_ceil(UNIT);
            let n_panels = outputs.div_ceil(LANES);
            let offset = |row: usize, pixel: usize| {
                let (y, x) = (pixel / out * stride + row, pixel % out * stride);
                ((y * whole + x) * inputs) as u32
            };
            let offsets = (0..kernel).flat_map(|row| (0..out * out).map(move |at| offset(row, at)));
            let mut byte = |below: usize| random.below(below) as u8;
            // Behind the last channel of a kernel's row lie weights of 0.
            let mut weights = vec![0; n_panels * kernel * units * LANES * UNIT];
            for (at, weight) in weights.iter_mut().enumerate() {
                let (unit, within) = (at / (LANES * UNIT) % units, at % UNIT);
                let column = at / (kernel * units * LANES * UNIT) * LANES + at / UNIT % LANES;
                if unit * UNIT + within < kernel * inputs && column < outputs {
                    // Below 64, so that pairs of products fit into the i16 of `maddubs`.
                    *weight = (byte(127) as i8) - 63;
                }
            }
            let input = (0..side * side * inputs).map(|_| f32::from(byte(128)) / 100.0);
            Some(Self {
                name,
                shape: format!("{inputs}x{side}x{side} -> {outputs}, {kernel}x{kernel}/{stride}"),
                multiply_adds: op.multiply_adds(out),
                side,
                padding,
                channels: inputs,
                input: input.collect(),
                bytes: vec![0; whole * whole * inputs + UNIT],
                offsets: offsets.collect(),
                n_pixels: out * out,
                n_taps: kernel,
                units,
                n_panels,
                weights,
                scales: vec![1e-4; n_panels * LANES],
                biases: vec![0.25; n_panels * LANES],
                floats: vec![0.0; out * out * n_panels * LANES],
                left: vec![0; out * out * n_panels * LANES],
                tile: (0, 0),
            })
        }

        /// Makes bytes of the f32 map.
        fn quantize(&mut self, kernel: Kernel) {
            let (row, whole) = (self.side * self.channels, self.side + 2 * self.padding);
            for (y, values) in self.input.chunks_exact(row).enumerate() {
                let first = ((y + self.padding) * whole + self.padding) * self.channels;
                let bytes = &mut self.bytes[first..first + row];
                // SAFETY: the CPU has the instructions of its kernels.
                unsafe {
                    match kernel {
                        Kernel::Avx2 => quantize_avx2(values, bytes),
                        Kernel::Avx512Vnni => quantize_avx512(values, bytes),
                    }
                }
            }
        }

        fn compute(&mut self, kernel: Kernel, leaves: Leaves) {
            let (rows, panels) = self.tile;
            let mut panel = 0;
            while panel < self.n_panels {
                let n = panels.min(self.n_panels - panel);
                for tile in 0..self.n_pixels.div_ceil(rows) {
                    // The last tile computes some rows once more.
                    let first = (tile * rows).min(self.n_pixels - rows);
                    // SAFETY: the CPU has the instructions of its kernels; tiles lie within
                    // the pixels and the panels.
                    unsafe {
                        match (kernel, rows, n) {
                            (Kernel::Avx2, 4, _) => self.avx2::<4>(first, panel, leaves),
                            (Kernel::Avx2, ..) => self.avx2::<6>(first, panel, leaves),
                            (_, 12, 1) => self.vnni::<12, 1>(first, panel, leaves),
                            (_, 12, _) => self.vnni::<12, 2>(first, panel, leaves),
                            (_, 8, 1) => self.vnni::<8, 1>(first, panel, leaves),
                            (_, 8, 2) => self.vnni::<8, 2>(first, panel, leaves),
                            (_, 8, _) => self.vnni::<8, 3>(first, panel, leaves),
                            (_, _, 1) => self.vnni::<6, 1>(first, panel, leaves),
                            (_, _, 2) => self.vnni::<6, 2>(first, panel, leaves),
                            (_, _, 3) => self.vnni::<6, 3>(first, panel, leaves),
                            _ => self.vnni::<6, 4>(first, panel, leaves),
                        }
                    }
                }
                panel += n;
            }
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        unsafe fn vnni<const ROWS: usize, const PANELS: usize>(
            &mut self,
            first: usize,
            panel: usize,
            leaves: Leaves,
        ) {
            // SAFETY: offsets and panels are within what was allocated for them.
            unsafe {
                let stride = self.n_taps * self.units * LANES * UNIT;
                let mut weights = self.weights.as_ptr().add(panel * stride);
                let mut sums = [[_mm512_setzero_si512(); PANELS]; ROWS];
                for tap in 0..self.n_taps {
                    let offsets = self.offsets.as_ptr().add(tap * self.n_pixels + first);
                    let rows: [*const u8; ROWS] = std::array::from_fn(|row| {
                        self.bytes.as_ptr().add(*offsets.add(row) as usize)
                    });
                    for unit in 0..self.units {
                        let factors: [__m512i; PANELS] = std::array::from_fn(|panel| {
                            _mm512_loadu_si512(weights.add(panel * stride).cast())
                        });
                        for (row, sums) in rows.iter().zip(&mut sums) {
                            let four = row.add(unit * UNIT).cast::<i32>().read_unaligned();
                            let x = _mm512_set1_epi32(four);
                            for (sum, factors) in sums.iter_mut().zip(factors) {
                                *sum = _mm512_dpbusd_epi32(*sum, x, factors);
                            }
                        }
                        weights = weights.add(LANES * UNIT);
                    }
                }
                for (row, sums) in sums.into_iter().enumerate() {
                    for (n, sum) in sums.into_iter().enumerate() {
                        let column = (panel + n) * LANES;
                        let scale = _mm512_loadu_ps(self.scales.as_ptr().add(column));
                        let bias = _mm512_loadu_ps(self.biases.as_ptr().add(column));
                        let value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, bias);
                        let value = _mm512_max_ps(value, _mm512_setzero_ps());
                        let at = (first + row) * self.n_panels * LANES + column;
                        match leaves {
                            Leaves::Floats => {
                                _mm512_storeu_ps(self.floats.as_mut_ptr().add(at), value);
                            }
                            Leaves::Bytes => {
                                let bytes = _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(value));
                                _mm_storeu_si128(self.left.as_mut_ptr().add(at).cast(), bytes);
                            }
                        }
                    }
                }
            }
        }

        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2<const ROWS: usize>(&mut self, first: usize, panel: usize, leaves: Leaves) {
            // SAFETY: as above.
            unsafe {
                let stride = self.n_taps * self.units * LANES * UNIT;
                let mut weights = self.weights.as_ptr().add(panel * stride);
                let ones = _mm256_set1_epi16(1);
                let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
                for tap in 0..self.n_taps {
                    let offsets = self.offsets.as_ptr().add(tap * self.n_pixels + first);
                    let rows: [*const u8; ROWS] = std::array::from_fn(|row| {
                        self.bytes.as_ptr().add(*offsets.add(row) as usize)
                    });
                    for unit in 0..self.units {
                        let factors: [__m256i; 2] = std::array::from_fn(|half| {
                            _mm256_loadu_si256(weights.add(half * 32).cast())
                        });
                        for (row, sums) in rows.iter().zip(&mut sums) {
                            let four = row.add(unit * UNIT).cast::<i32>().read_unaligned();
                            let x = _mm256_set1_epi32(four);
                            for (sum, factors) in sums.iter_mut().zip(factors) {
                                let pairs = _mm256_maddubs_epi16(x, factors);
                                let fours = _mm256_madd_epi16(pairs, ones);
                                *sum = _mm256_add_epi32(*sum, fours);
                            }
                        }
                        weights = weights.add(LANES * UNIT);
                    }
                }
                for (row, sums) in sums.into_iter().enumerate() {
                    let at = (first + row) * self.n_panels * LANES + panel * LANES;
                    let values = [0, 1].map(|half| {
                        let column = panel * LANES + half * 8;
                        let scale = _mm256_loadu_ps(self.scales.as_ptr().add(column));
                        let bias = _mm256_loadu_ps(self.biases.as_ptr().add(column));
                        let value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[half]), scale, bias);
                        _mm256_max_ps(value, _mm256_setzero_ps())
                    });
                    match leaves {
                        Leaves::Floats => {
                            let to = self.floats.as_mut_ptr().add(at);
                            _mm256_storeu_ps(to, values[0]);
                            _mm256_storeu_ps(to.add(8), values[1]);
                        }
                        Leaves::Bytes => {
                            let bytes = sixteen_bytes(values);
                            _mm_storeu_si128(self.left.as_mut_ptr().add(at).cast(), bytes);
                        }
                    }
                }
            }
        }

        /// Largest difference of the last column from a plain sum.
        fn error(&self) -> f32 {
            let column = self.n_panels * LANES - 1;
            let stride = self.n_taps * self.units * LANES * UNIT;
            let weights = &self.weights[column / LANES * stride..][..stride];
            let value = |pixel: usize| {
                let mut sum = 0;
                for tap in 0..self.n_taps {
                    let first = self.offsets[tap * self.n_pixels + pixel] as usize;
                    for at in 0..self.units * UNIT {
                        let unit = tap * self.units + at / UNIT;
                        let weight = weights[(unit * LANES + LANES - 1) * UNIT + at % UNIT];
                        sum += i32::from(self.bytes[first + at]) * i32::from(weight);
                    }
                }
                (sum as f32)
                    .mul_add(self.scales[column], self.biases[column])
                    .max(0.0)
            };
            let found = |pixel: usize| self.floats[pixel * self.n_panels * LANES + column];
            let errors = (0..self.n_pixels).map(|pixel| (value(pixel) - found(pixel)).abs());
            errors.fold(0.0, f32::max)
        }
    }

    #[target_feature(enable = "avx2")]
    fn sixteen_bytes(values: [__m256; 2]) -> __m128i {
        let [low, high] = values.map(|values| _mm256_cvtps_epi32(values));
        let shorts = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high));
        let (low, high) = (
            _mm256_castsi256_si128(shorts),
            _mm256_extracti128_si256::<1>(shorts),
        );
        _mm_packus_epi16(low, high)
    }

    /// Parts of a byte's step in 1: what inputs are multiplied with.
    const STEPS: f32 = 100.0;

    #[target_feature(enable = "avx512f,avx512bw")]
    fn quantize_avx512(values: &[f32], bytes: &mut [u8]) {
        let (sixteens, rest) = values.as_chunks::<LANES>();
        let (to, to_rest) = bytes.as_chunks_mut::<LANES>();
        for (values, to) in sixteens.iter().zip(to) {
            // SAFETY: sixteen values are there, and room for sixteen bytes.
            unsafe {
                let x = _mm512_mul_ps(_mm512_loadu_ps(values.as_ptr()), _mm512_set1_ps(STEPS));
                let bytes = _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(x));
                _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
            }
        }
        quantize_rest(rest, to_rest);
    }

    #[target_feature(enable = "avx2")]
    fn quantize_avx2(values: &[f32], bytes: &mut [u8]) {
        let (sixteens, rest) = values.as_chunks::<LANES>();
        let (to, to_rest) = bytes.as_chunks_mut::<LANES>();
        for (values, to) in sixteens.iter().zip(to) {
            // SAFETY: as above.
            unsafe {
                let steps = _mm256_set1_ps(STEPS);
                let halves =
                    [0, 8].map(|at| _mm256_mul_ps(_mm256_loadu_ps(values.as_ptr().add(at)), steps));
                _mm_storeu_si128(to.as_mut_ptr().cast(), sixteen_bytes(halves));
            }
        }
        quantize_rest(rest, to_rest);
    }

    fn quantize_rest(values: &[f32], bytes: &mut [u8]) {
        for (x, byte) in values.iter().zip(bytes) {
            *byte = (x * STEPS).round_ties_even() as u8;
        }
    }

    /// Microseconds of one layer or network in every round.
    #[derive(Default)]
    struct Times(Vec<f64>);

    impl Times {
        fn sorted(&self) -> Vec<f64> {
            let mut sorted = self.0.clone();
            sorted.sort_by(f64::total_cmp);
            sorted
        }

        fn median(&self) -> f64 {
            self.sorted()[self.0.len() / 2]
        }

        fn min(&self) -> f64 {
            self.sorted()[0]
        }
    }

    fn micros(work: impl FnOnce()) -> f64 {
        let since = Instant::now();
        work();
        since.elapsed().as_secs_f64() * 1e6
    }

    fn measure(name: &str, side: usize, rounds: usize, kernel: Kernel) -> Outcome<()> {
        let network = zoo::by_name(name, 128).ok_or("the zoo has no such network")?;
        let weights = init::random_weights(&network, 1);
        let (network, weights) = fold::fold(&network, &weights)?;
        let file = onnx::write(&network, &weights, side as u32, Precision::F32, &[])?;
        let engine = Network::load_for(Runtime::Engine(kernel.isa()), &file, side as u32, None)?;
        let mut random = Random::new(1);
        let values_chw = (0..3 * side * side)
            .map(|_| random.normal() as f32)
            .collect();
        let pixels = Pixels {
            side: side as u32,
            values_chw,
        };
        let places = network.output_places(side);
        let mut layers: Vec<Layer> = network
            .nodes
            .iter()
            .filter_map(|node| {
                let side = node
                    .inputs
                    .first()
                    .map_or(side, |&input| places[input].side());
                Layer::new(node.name.clone(), node.op, side, &mut random)
            })
            .collect();
        for layer in &mut layers {
            choose_tile(layer, kernel);
        }
        let owners: Vec<Option<usize>> = engine
            .profile(&pixels, 1)?
            .iter()
            .map(|operator| owner(operator, &network, &layers))
            .collect();
        let (mut whole, mut of_bytes, mut with_passes) =
            (Times::default(), Times::default(), Times::default());
        let per_layer = || -> Vec<Times> { layers.iter().map(|_| Times::default()).collect() };
        let (mut exact, mut bytes, mut passes) = (per_layer(), per_layer(), per_layer());
        for _ in 0..rounds {
            let mut sums = vec![0.0; layers.len()];
            let mut others = 0.0;
            for (operator, owner) in engine.profile(&pixels, 1)?.iter().zip(&owners) {
                let took = operator.nanos as f64 / 1e3;
                match owner {
                    Some(layer) => sums[*layer] += took,
                    None => others += took,
                }
            }
            whole.0.push(others + sums.iter().sum::<f64>());
            let mut totals = [others; 2];
            for (times, sum) in exact.iter_mut().zip(sums) {
                times.0.push(sum);
            }
            for (layer, times) in layers.iter_mut().zip(&mut bytes) {
                let took = micros(|| layer.compute(kernel, Leaves::Bytes));
                times.0.push(took);
                totals[0] += took;
            }
            for (layer, times) in layers.iter_mut().zip(&mut passes) {
                let took = micros(|| {
                    layer.quantize(kernel);
                    layer.compute(kernel, Leaves::Floats);
                });
                times.0.push(took);
                totals[1] += took;
            }
            of_bytes.0.push(totals[0]);
            with_passes.0.push(totals[1]);
        }
        println!("{name} at {side}, {kernel:?}, microseconds: median (least) of {rounds} rounds");
        println!("layer\tshape\tMMAC\tengine\tbytes\tengine/bytes\tpasses\tengine/passes");
        let line = |name: &str, shape: &str, macs: f64, [f32s, bytes, passes]: [&Times; 3]| {
            let both = |times: &Times| format!("{:.1} ({:.1})", times.median(), times.min());
            println!(
                "{name}\t{shape}\t{macs:.2}\t{}\t{}\t{:.2}\t{}\t{:.2}",
                both(f32s),
                both(bytes),
                f32s.median() / bytes.median(),
                both(passes),
                f32s.median() / passes.median()
            );
        };
        for (at, layer) in layers.iter().enumerate() {
            let macs = layer.multiply_adds as f64 / 1e6;
            let times = [&exact[at], &bytes[at], &passes[at]];
            line(&layer.name, &layer.shape, macs, times);
        }
        let macs = engine.multiply_adds() as f64 / 1e6;
        line("whole network", "", macs, [&whole, &of_bytes, &with_passes]);
        Ok(())
    }

    /// The tile that is quickest, and whether sums are right.
    fn choose_tile(layer: &mut Layer, kernel: Kernel) {
        let mut best = (f64::INFINITY, (0, 0));
        layer.quantize(kernel);
        for &tile in kernel.tiles() {
            layer.tile = tile;
            for _ in 0..20 {
                let took = micros(|| layer.compute(kernel, Leaves::Floats));
                if took < best.0 {
                    best = (took, tile);
                }
            }
            let error = layer.error();
            assert!(error < 1e-3, "{} {tile:?}: off by {error}", layer.name);
        }
        layer.tile = best.1;
    }

    /// The layer that an operator of the engine is a step of.
    fn owner(operator: &OperatorTime, network: &zoo::Network, layers: &[Layer]) -> Option<usize> {
        let nodes = network.nodes.iter().map(|node| node.name.as_str());
        let is_before = |node: &&str| {
            let rest = operator.node.strip_prefix(*node);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let node = nodes.filter(is_before).max_by_key(|node| node.len())?;
        layers.iter().position(|layer| layer.name == node)
    }
}
