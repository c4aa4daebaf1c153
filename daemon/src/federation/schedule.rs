//! When another trust domain's endpoint is looked at next. Pure. Source: SPIFFE Federation §6.2: at
//! the refresh hint, five minutes without one; after a failure without haste.

use std::time::Duration;

/// Where a bundle gives no hint. Source: SPIFFE Federation §6.1.
const USUAL: Duration = Duration::from_mins(5);
/// By how much of itself a wait may be shortened, so that a fleet does not ask as one.
const JITTER: f64 = 0.1;

/// How often is often enough, and how seldom is too seldom, whatever a publisher says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The shortest wait, also after a failure.
    pub shortest: Duration,
    /// The longest.
    pub longest: Duration,
}

/// How long to wait after the `failures`-th failure in a row, or after a success (0); `draw` is
/// uniform in `0.0..=1.0`.
pub(super) fn wait(hint: Option<Duration>, failures: u32, bounds: Bounds, draw: f64) -> Duration {
    let usual = hint.unwrap_or(USUAL).clamp(bounds.shortest, bounds.longest.max(bounds.shortest));
    let wait = match failures {
        0 => usual,
        n => bounds.shortest.saturating_mul(2_u32.saturating_pow(n - 1)).min(usual),
    };
    wait.mul_f64(1.0 - JITTER * draw.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds =
        Bounds { shortest: Duration::from_mins(1), longest: Duration::from_hours(24) };

    #[test]
    fn the_hint_counts_within_bounds() {
        let after = |hint: Option<u64>| wait(hint.map(Duration::from_secs), 0, BOUNDS, 0.0);
        assert_eq!(after(None), Duration::from_mins(5));
        assert_eq!(after(Some(0)), Duration::from_mins(1));
        assert_eq!(after(Some(600)), Duration::from_mins(10));
        assert_eq!(after(Some(u64::MAX)), Duration::from_hours(24));
        assert_eq!(wait(None, 0, BOUNDS, 1.0), Duration::from_secs(270));
    }

    #[test]
    fn failures_are_retried_soon_then_seldom_and_never_later_than_usual() {
        let after = |failures| wait(Some(Duration::from_mins(6)), failures, BOUNDS, 0.0);
        let minutes: Vec<_> = [1, 2, 3, 4, 5, u32::MAX].map(|n| after(n).as_secs() / 60).into();
        assert_eq!(minutes, [1, 2, 4, 6, 6, 6]);
    }
}
