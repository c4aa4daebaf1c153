//! The only place that reads clocks. Everything else is given the time.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

/// Wall-clock time.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Time since boot, suspended time included: the clock of `bpf_ktime_get_boot_ns` and of the
/// kernel's `start_boottime`, also inside a time namespace, where `CLOCK_BOOTTIME` is shifted.
/// Zero if the kernel has no such clock, which no Linux since 2.6.39 lacks.
pub fn since_boot() -> Duration {
    let shown = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    let offset = Duration::from_nanos(namespace_offset_ns().unsigned_abs());
    if namespace_offset_ns() < 0 {
        shown.saturating_add(offset)
    } else {
        shown.saturating_sub(offset)
    }
}

/// How far the daemon's time namespace shifts `CLOCK_BOOTTIME`, and start times in `/proc`.
/// Source: `time_namespaces(7)`. It cannot change while a process lives.
pub(super) fn namespace_offset_ns() -> i64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        // A kernel without time namespaces has no such file; `procfs` does not read it.
        parse_offset(&text).unwrap_or(0)
    })
}

fn parse_offset(text: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix("boottime"))?;
    let mut fields = line.split_ascii_whitespace();
    let seconds: i64 = fields.next()?.parse().ok()?;
    let ns: i64 = fields.next()?.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(ns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_namespace_has_an_offset() {
        let text = "monotonic           0         0\nboottime     86400       500\n";
        assert_eq!(parse_offset(text), Some(86_400_000_000_500));
        assert_eq!(parse_offset("boottime  -5  0"), Some(-5_000_000_000));
        assert_eq!(parse_offset(""), None);
    }

    proptest! {
        #[test]
        fn never_panics(text: String, seconds: i64, ns: i64) {
            let _offset = parse_offset(&text);
            let _offset = parse_offset(&format!("boottime {seconds} {ns}"));
        }
    }
}
