//! When an SVID is renewed, and when it is tried again. Pure: chance and time are arguments.
//!
//! The rule is SPIRE's: at half of its life, give or take a tenth of that, so that a fleet that
//! was started at once does not renew at once. A failure costs nothing while the last good SVID
//! lives, so retries come soon at first and are capped by what is left.

use std::time::{Duration, SystemTime};

/// How much of the half life the moment of renewal may move either way. Source: SPIRE's rotationutil.
const JITTER: f64 = 0.1;
/// First and longest wait before an issuer that failed is asked again. Chosen.
const FIRST_RETRY: Duration = Duration::from_secs(1);
pub(super) const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// When to renew an SVID of this validity; `draw` is uniform in `0.0..=1.0`.
pub fn renew_at(not_before: SystemTime, not_after: SystemTime, draw: f64) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    let factor = 1.0 + JITTER * (2.0 * draw.clamp(0.0, 1.0) - 1.0);
    not_before + (life / 2).mul_f64(factor)
}

/// How long to wait after the `failures`-th failure in a row, with an SVID that lasts for another
/// `left`; `draw` is uniform in `0.0..=1.0`.
pub fn retry_after(failures: u32, left: Duration, draw: f64) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
    // Several more attempts before the end, but never a storm of them.
    let cap = (left / 8).clamp(FIRST_RETRY, LONGEST_RETRY);
    doubled.min(cap).mul_f64(1.0 - JITTER * draw.clamp(0.0, 1.0))
}

/// A draw for the functions above. Middling if the system has no randomness to give.
pub fn draw() -> f64 {
    let mut bytes = [0; 4];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        Err(_unspecified) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn renews_around_half_life() {
        let start = SystemTime::UNIX_EPOCH + HOUR;
        for (draw, after) in [(0.0, 1620), (0.5, 1800), (1.0, 1980)] {
            assert_eq!(renew_at(start, start + HOUR, draw), start + Duration::from_secs(after));
        }
    }

    #[test]
    fn retries_ever_later_up_to_a_minute() {
        let waits: Vec<u64> = (1..=8).map(|n| retry_after(n, HOUR, 0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retry_after(9, Duration::from_secs(40), 0.0), Duration::from_secs(5));
        assert_eq!(retry_after(u32::MAX, Duration::ZERO, 0.0), FIRST_RETRY);
    }

    proptest! {
        #[test]
        fn renewal_lies_within_the_life(seconds in 0u64..1_000_000_000, draw in 0.0f64..=1.0) {
            let start = SystemTime::UNIX_EPOCH;
            let end = start + Duration::from_secs(seconds);
            let at = renew_at(start, end, draw);
            prop_assert!(start <= at && at <= end);
        }
    }
}
