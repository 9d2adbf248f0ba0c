//! How far a share that was counted may be from the true one.
//!
//! [`upper_bound`] and [`clopper_pearson`] hold for every sample size; [`wilson`] is nearer
//! to the middle of them and serves where shares are drawn, not relied on.

/// Terms of the continued fraction; it needs about the root of the larger argument.
const MAX_TERMS: usize = 10_000;

/// Halvings of 0..1 when the beta distribution is inverted: to the last bits of f64.
const HALVINGS: usize = 60;

/// Logarithm of the gamma function for `x > 0` (Lanczos' approximation with g = 7 and nine
/// terms: Godfrey, 2001), relative error below 1e-13.
fn ln_gamma(x: f64) -> f64 {
    const G: f64 = 7.0;
    const TERMS: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let series = (1_u32..)
        .zip(&TERMS[1..])
        .fold(TERMS[0], |sum, (i, term)| sum + term / (x + f64::from(i)));
    let t = x + G + 0.5;
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + series.ln()
}

/// Distribution function of the beta distribution (regularized incomplete beta function) for
/// `a, b > 0`, by Lentz' continued fraction.
fn beta_cdf(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return if x <= 0.0 { 0.0 } else { 1.0 };
    }
    // The fraction converges fast on this side of the mean.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_cdf(1.0 - x, b, a);
    }
    let front =
        (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (1.0 - x).ln()).exp() / a;
    let away_from_zero = |y: f64| if y.abs() < 1e-300 { 1e-300 } else { y };
    let (mut c, mut d) = (1.0, 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for term in 1..MAX_TERMS {
        let m = term as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for numerator in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + numerator * d);
            c = away_from_zero(1.0 + numerator / c);
            change *= c * d;
        }
        fraction *= change;
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// Inverse of [`beta_cdf`] in `x`.
fn beta_quantile(p: f64, a: f64, b: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if beta_cdf(middle, a, b) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Upper confidence bound of a share of which `k` in `n` were counted (Clopper and Pearson,
/// 1934). Neither needs to be whole: counts of dependent cases are divided by their design
/// effect.
#[must_use]
pub fn upper_bound(k: f64, n: f64, confidence: f64) -> f64 {
    if n <= 0.0 || k >= n {
        return 1.0;
    }
    beta_quantile(confidence, k + 1.0, n - k)
}

/// The interval between both bounds that misses the true share with probability at most
/// `1 - confidence`, half of that on either side.
#[must_use]
pub fn clopper_pearson(k: f64, n: f64, confidence: f64) -> (f64, f64) {
    let one_sided = 0.5 * (1.0 + confidence);
    let low = if k <= 0.0 || n <= 0.0 {
        0.0
    } else {
        beta_quantile(1.0 - one_sided, k.min(n), (n - k).max(0.0) + 1.0)
    };
    (low, upper_bound(k, n, one_sided))
}

/// The 95 % interval of a share (Wilson, 1927).
#[must_use]
pub fn wilson(share: f64, n: f64) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    if n <= 0.0 {
        return (0.0, 1.0);
    }
    let z2 = Z * Z / n;
    let middle = (share + 0.5 * z2) / (1.0 + z2);
    let half = Z / (1.0 + z2) * (share * (1.0 - share) / n + z2 / (4.0 * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The quantiles are bisected to f64, the distribution is right to about 1e-12.
    const TOLERANCE: f64 = 1e-9;

    #[test]
    fn bounds_are_those_of_the_binomial_distribution() {
        // P(no event in n) = (1 - p)^n = 0.05, and the rule of three.
        for n in [10.0_f64, 299.0, 3000.0] {
            let expected = 1.0 - 0.05_f64.powf(1.0 / n);
            assert!((upper_bound(0.0, n, 0.95) - expected).abs() < TOLERANCE);
        }
        // P(at most 2 of 20) summed by hand at the bound is 0.05.
        let p = upper_bound(2.0, 20.0, 0.95);
        let q = 1.0 - p;
        let cdf = q.powi(20) + 20.0 * p * q.powi(19) + 190.0 * p * p * q.powi(18);
        assert!((cdf - 0.05).abs() < TOLERANCE, "{cdf}");
        assert_eq!(upper_bound(5.0, 5.0, 0.95), 1.0);
    }

    #[test]
    fn intervals_mirror_and_hold_the_share() {
        for (k, n) in [(0.0, 7.0), (3.0, 20.0), (10.5, 33.3), (20.0, 20.0)] {
            let (low, high) = clopper_pearson(k, n, 0.95);
            let (mirrored_low, mirrored_high) = clopper_pearson(n - k, n, 0.95);
            assert!((low + mirrored_high - 1.0).abs() < TOLERANCE);
            assert!((high + mirrored_low - 1.0).abs() < TOLERANCE);
            assert!(low <= k / n && k / n <= high);
            let (low, high) = wilson(k / n, n);
            assert!(low <= k / n + TOLERANCE && k / n - TOLERANCE <= high);
        }
        assert_eq!(wilson(0.5, 0.0), (0.0, 1.0));
    }

    #[test]
    fn the_beta_distribution_is_right_where_it_is_known() {
        // Uniform, x^a, and symmetric ones.
        assert!((beta_cdf(0.3, 1.0, 1.0) - 0.3).abs() < TOLERANCE);
        assert!((beta_cdf(0.3, 5.0, 1.0) - 0.3_f64.powi(5)).abs() < TOLERANCE);
        assert!((beta_cdf(0.5, 400.0, 400.0) - 0.5).abs() < TOLERANCE);
        assert!((ln_gamma(0.5) - 0.5 * std::f64::consts::PI.ln()).abs() < TOLERANCE);
        assert!((ln_gamma(11.0) - 3_628_800_f64.ln()).abs() < TOLERANCE);
    }
}
