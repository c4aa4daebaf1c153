//! Times as records spell them: UTC, RFC 3339, milliseconds. Reads no clock: it is handed one.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// Where the audit log reads the time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Wall-clock time.
    pub now: fn() -> SystemTime,
    /// Time since boot, suspended time included; the clock of process start times.
    pub since_boot: fn() -> Duration,
}

impl Clock {
    /// The wall-clock time of an instant given in nanoseconds since boot.
    pub(super) fn at_boot_ns(self, ns: u64) -> SystemTime {
        let now = (self.now)();
        let age = (self.since_boot)().saturating_sub(Duration::from_nanos(ns));
        now.checked_sub(age).unwrap_or(now)
    }
}

/// UTC, RFC 3339, milliseconds. A time outside of what RFC 3339 can say becomes the epoch.
pub fn format(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

/// Milliseconds with three decimals.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_007);
        assert_eq!(format(time), "2023-11-14T22:13:20.007Z");
        assert!((milliseconds(Duration::from_micros(1_234_567)) - 1234.567).abs() < 1e-9);
    }

    #[test]
    fn a_start_since_boot_becomes_a_time_of_day() {
        let clock = Clock {
            now: || SystemTime::UNIX_EPOCH + Duration::from_secs(1000),
            since_boot: || Duration::from_secs(100),
        };
        let time = clock.at_boot_ns(40_000_000_000);
        assert_eq!(time, SystemTime::UNIX_EPOCH + Duration::from_secs(940));
    }
}
