//! The learning rate as a pure function of the step.

use crate::recipe::Rate;

/// Rate of a step, counted from 0, of `n_steps`: linear from 0 to the peak over the warm-up,
/// then half a cosine down to the end.
pub(super) fn rate_at(rate: &Rate, step: usize, n_steps: usize) -> f64 {
    if step < rate.warmup_steps {
        return rate.peak * (step + 1) as f64 / rate.warmup_steps as f64;
    }
    let span = n_steps.saturating_sub(rate.warmup_steps + 1).max(1);
    let progress = ((step - rate.warmup_steps) as f64 / span as f64).min(1.0);
    rate.end + (rate.peak - rate.end) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_warms_up_peaks_and_ends() {
        let rate = Rate {
            peak: 1.0,
            end: 0.1,
            warmup_steps: 4,
            head_factor: 1.0,
        };
        let cases = [
            (0, 0.25),
            (3, 1.0),
            (4, 1.0),
            (54, 0.55),
            (104, 0.1),
            (200, 0.1),
        ];
        for (step, expected) in cases {
            let found = rate_at(&rate, step, 105);
            assert!((found - expected).abs() < 1e-12, "step {step}: {found}");
        }
    }

    #[test]
    fn a_run_shorter_than_its_warmup_still_has_a_rate() {
        let rate = Rate {
            peak: 1.0,
            end: 0.0,
            warmup_steps: 10,
            head_factor: 1.0,
        };
        assert!((0..3).all(|step| rate_at(&rate, step, 3) > 0.0));
    }
}
