//! How large a frame should be, and how long to wait for its acknowledgment: both learned
//! from what the line does.

use std::time::Duration;

use super::frame::{CHECK_BYTES, HEADER_BYTES};

/// Bytes of a data frame beside its payload: header, offset, checksum, one byte of stuffing
/// and the delimiter.
const OVERHEAD: f64 = (HEADER_BYTES + 4 + CHECK_BYTES + 2) as f64;

/// Smallest payload: below it the overhead costs more than a retry at any error rate at
/// which frames still get through.
pub(super) const MIN_PAYLOAD: usize = 32;

/// What is believed of a line before anything was sent: half a frame lost in as many bytes,
/// so that the first frames are of a middle size.
const PRIOR_LOST: f64 = 0.5;
const PRIOR_BYTES: f64 = 8192.0;

/// Observations fade with a half-life of about so many bytes.
const MEMORY_BYTES: f64 = 262_144.0;

/// The payload that carries most: for a chance `p` that a byte is damaged, the share of the
/// line that payload of length `n` gets is largest near `sqrt(overhead / p)`.
pub(super) struct FrameSize {
    lost: f64,
    bytes: f64,
}

impl Default for FrameSize {
    fn default() -> Self {
        Self {
            lost: PRIOR_LOST,
            bytes: PRIOR_BYTES,
        }
    }
}

impl FrameSize {
    /// Bytes of stream to put into the next frame.
    pub(super) fn payload(&self, max: usize) -> usize {
        let best = (OVERHEAD * self.bytes / self.lost).sqrt();
        (best as usize).clamp(MIN_PAYLOAD.min(max), max)
    }

    /// A frame with so much payload was acknowledged, or given up.
    pub(super) fn learn(&mut self, payload: usize, lost: bool) {
        self.bytes += payload as f64 + OVERHEAD;
        if lost {
            self.lost += 1.0;
        }
        if self.bytes > MEMORY_BYTES {
            self.bytes /= 2.0;
            self.lost = (self.lost / 2.0).max(PRIOR_LOST / 2.0);
        }
    }
}

/// Before any acknowledgment has come.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
const MIN_TIMEOUT: Duration = Duration::from_millis(30);
/// Also the longest pause between two tries while nothing is acknowledged.
const MAX_TIMEOUT: Duration = Duration::from_secs(2);

/// Smoothed round trip with its variation (RFC 6298).
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    /// Tries since the last acknowledgment; each doubles the wait.
    tries: u32,
}

impl Default for RoundTrip {
    fn default() -> Self {
        Self {
            smoothed: None,
            variation: Duration::ZERO,
            tries: 0,
        }
    }
}

impl RoundTrip {
    pub(super) fn learn(&mut self, sample: Duration) {
        self.tries = 0;
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(sample);
            self.variation = sample / 2;
            return;
        };
        self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
        self.smoothed = Some((smoothed * 7 + sample) / 8);
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// A wait for an acknowledgment was in vain.
    pub(super) fn back_off(&mut self) {
        self.tries = (self.tries + 1).min(6);
    }

    pub(super) fn timeout(&self) -> Duration {
        let one = self.smoothed.map_or(FIRST_TIMEOUT, |smoothed| {
            (smoothed + self.variation * 4).max(MIN_TIMEOUT)
        });
        (one * (1 << self.tries)).min(MAX_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(frame_survives: impl Fn(f64) -> f64) -> usize {
        let mut size = FrameSize::default();
        let mut owed = 0.0;
        for _ in 0..5000 {
            let payload = size.payload(4096);
            owed += 1.0 - frame_survives(payload as f64 + OVERHEAD);
            let lost = owed >= 1.0;
            if lost {
                owed -= 1.0;
            }
            size.learn(payload, lost);
        }
        size.payload(4096)
    }

    #[test]
    fn frames_shrink_on_a_noisy_line_and_grow_on_a_clean_one() {
        let noisy = |bit_errors: f64| move |bytes: f64| (1.0 - bit_errors).powf(8.0 * bytes);
        let sizes = [1e-3, 1e-4, 1e-5, 0.0].map(|rate| settled(noisy(rate)));
        assert!(sizes[0] < 100, "{sizes:?}");
        assert!((100..250).contains(&sizes[1]), "{sizes:?}");
        assert!((350..700).contains(&sizes[2]), "{sizes:?}");
        assert!(sizes[3] >= 2000, "{sizes:?}");
    }

    #[test]
    fn waits_follow_the_round_trip_and_stay_bounded() {
        let mut trip = RoundTrip::default();
        assert_eq!(trip.timeout(), FIRST_TIMEOUT);
        for _ in 0..50 {
            trip.learn(Duration::from_millis(10));
        }
        assert_eq!(trip.timeout(), MIN_TIMEOUT);
        for _ in 0..50 {
            trip.back_off();
        }
        assert!(trip.timeout() <= MAX_TIMEOUT);
        trip.learn(Duration::from_millis(10));
        assert_eq!(trip.timeout(), MIN_TIMEOUT);
    }
}
