//! The learning rate as a pure function of the step.

use std::f64::consts::PI;

use crate::recipe::Schedule;

/// Rate of a step, counted from 0, of `n_steps`.
pub(super) fn rate_at(schedule: &Schedule, step: usize, n_steps: usize) -> f64 {
    let (peak, warmup_steps) = (schedule.peak(), schedule.warmup_steps());
    let Some(since) = step.checked_sub(warmup_steps) else {
        return peak * (step + 1) as f64 / warmup_steps as f64;
    };
    let falling =
        |end: f64, progress: f64| end + (peak - end) * 0.5 * (1.0 + (PI * progress).cos());
    match *schedule {
        Schedule::Constant { .. } => peak,
        Schedule::Cosine { end, .. } => {
            let span = n_steps.saturating_sub(warmup_steps + 1).max(1);
            falling(end, (since as f64 / span as f64).min(1.0))
        }
        Schedule::WarmRestarts {
            end,
            period_steps,
            period_factor,
            ..
        } => falling(
            end,
            progress_in_period(since, period_steps as f64, period_factor),
        ),
        Schedule::Step {
            every_steps,
            factor,
            ..
        } => peak * factor.powf((since / every_steps) as f64),
        Schedule::Exponential {
            every_steps,
            factor,
            ..
        } => peak * factor.powf(since as f64 / every_steps as f64),
    }
}

/// How far step `since` lies in its period, 0 to below 1; the periods are `first` steps
/// long, then `factor` times that, and so on.
fn progress_in_period(since: usize, first: f64, factor: f64) -> f64 {
    let (mut rest, mut period) = (since as f64, first);
    if factor == 1.0 {
        rest %= period;
    }
    while rest >= period {
        rest -= period;
        period *= factor;
    }
    rest / period
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARMUP_STEPS: usize = 4;

    #[track_caller]
    fn check(schedule: &Schedule, cases: &[(usize, f64)]) {
        for warming in 0..WARMUP_STEPS {
            let expected = schedule.peak() * (warming + 1) as f64 / WARMUP_STEPS as f64;
            let found = rate_at(schedule, warming, 105);
            assert!((found - expected).abs() < 1e-12, "step {warming}: {found}");
        }
        for &(step, expected) in cases {
            let found = rate_at(schedule, step, 105);
            assert!((found - expected).abs() < 1e-12, "step {step}: {found}");
        }
    }

    #[test]
    fn a_constant_rate_stays() {
        let schedule = Schedule::Constant {
            peak: 0.5,
            warmup_steps: WARMUP_STEPS,
        };
        check(&schedule, &[(4, 0.5), (104, 0.5)]);
    }

    #[test]
    fn a_cosine_peaks_after_the_warmup_and_ends_with_the_last_step() {
        let schedule = Schedule::Cosine {
            peak: 1.0,
            end: 0.1,
            warmup_steps: WARMUP_STEPS,
        };
        check(&schedule, &[(4, 1.0), (54, 0.55), (104, 0.1), (200, 0.1)]);
    }

    #[test]
    fn warm_restarts_begin_again_with_longer_periods() {
        let schedule = Schedule::WarmRestarts {
            peak: 1.0,
            end: 0.2,
            warmup_steps: WARMUP_STEPS,
            period_steps: 10,
            period_factor: 2.0,
        };
        // Periods begin 0, 10 and 30 steps after the warm-up; the middle is half way down.
        check(
            &schedule,
            &[(4, 1.0), (9, 0.6), (14, 1.0), (24, 0.6), (34, 1.0)],
        );
        let even = Schedule::WarmRestarts {
            peak: 1.0,
            end: 0.2,
            warmup_steps: WARMUP_STEPS,
            period_steps: 10,
            period_factor: 1.0,
        };
        check(&even, &[(24, 1.0), (99, 0.6), (104, 1.0)]);
    }

    #[test]
    fn steps_and_exponentials_fall_by_their_factor() {
        let step = Schedule::Step {
            peak: 1.0,
            warmup_steps: WARMUP_STEPS,
            every_steps: 10,
            factor: 0.25,
        };
        check(&step, &[(4, 1.0), (13, 1.0), (14, 0.25), (24, 0.0625)]);
        let exponential = Schedule::Exponential {
            peak: 1.0,
            warmup_steps: WARMUP_STEPS,
            every_steps: 10,
            factor: 0.25,
        };
        check(
            &exponential,
            &[(4, 1.0), (9, 0.5), (14, 0.25), (24, 0.0625)],
        );
    }

    #[test]
    fn a_run_shorter_than_its_warmup_still_has_a_rate() {
        let schedule = Schedule::Cosine {
            peak: 1.0,
            end: 0.0,
            warmup_steps: 10,
        };
        assert!((0..3).all(|step| rate_at(&schedule, step, 3) > 0.0));
    }
}
