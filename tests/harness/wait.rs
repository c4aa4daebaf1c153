//! Waiting for what will be true soon, instead of sleeping and hoping. How long anything may take
//! is stretched here alone, for machines that are slow by nature (emulated guests).

use std::env;
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Longer than anything here takes on a busy machine with two processors.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// By how much, from `TACIT_TEST_STRETCH`; 1 where the runner says nothing.
static STRETCH: LazyLock<u32> = LazyLock::new(|| {
    #[expect(clippy::disallowed_methods, reason = "tests are told by their runner where they run")]
    let told = env::var("TACIT_TEST_STRETCH").ok();
    told.and_then(|factor| factor.parse().ok()).unwrap_or(1)
});

/// How long something may take here that takes at most so long on a fast machine.
pub fn stretched(duration: Duration) -> Duration {
    duration.saturating_mul(*STRETCH)
}

/// As [`stretched`], in whole seconds, as programs take it on their command line.
pub fn stretched_seconds(seconds: u64) -> String {
    stretched(Duration::from_secs(seconds)).as_secs().to_string()
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// When there is none within [`DEADLINE`]; the error says what was waited for.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> Result<T> {
    soon(DEADLINE, what, ask)
}

/// As [`eventually`], with a deadline of one's own.
///
/// # Errors
/// When there is no answer in time.
pub fn soon<T>(deadline: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = stretched(deadline);
    let until = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() > until {
            bail!("waited {} s in vain: {what}", deadline.as_secs());
        }
        sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_an_answer_and_not_for_ever() {
        let mut asked = 0;
        let third = |asked: &mut i32| {
            *asked += 1;
            (*asked == 3).then_some(*asked)
        };
        assert_eq!(eventually("three", || third(&mut asked)).unwrap(), 3);
        assert!(soon(Duration::from_millis(50), "never", || None::<()>).is_err());
    }
}
