//! The wall clock jumps: forward past the end of SVIDs, and back before their beginning.

use std::time::Duration;

use super::stage::{HOUR, Stage, claim, clock, entry, jump};
use crate::policy::DenyReason;

/// The longest that nobody looks at the clock. Source: `renewal.rs`.
const NOTICED: Duration = Duration::from_secs(31);

async fn started() -> Stage {
    let mut stage = Stage::new(vec![entry("web", &["unix:uid:4711"])]);
    stage.run().await;
    stage
}

#[tokio::test(start_paused = true)]
async fn a_jump_ahead_leaves_nothing_expired_in_use_and_what_is_next_is_issued_at_once() {
    let stage = started().await;
    let held = stage.identities.of(&claim()).await.unwrap().svid;
    jump(2 * HOUR);
    let asked = stage.identities.of(&claim()).await.unwrap().svid;
    assert!(asked.borrow().is_valid_at(clock()), "asked for, it is the next one at once");
    tokio::time::sleep(NOTICED).await;
    assert!(held.borrow().is_valid_at(clock()) || held.has_changed().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_jump_back_leaves_nothing_in_use_that_is_not_valid_yet() {
    let stage = started().await;
    jump(48 * HOUR);
    tokio::time::sleep(NOTICED).await;
    let ahead = stage.identities.of(&claim()).await.unwrap().svid;
    assert!(ahead.borrow().is_valid_at(clock()));
    jump(Duration::ZERO);
    assert!(!ahead.borrow().is_valid_at(clock()));
    // Also for those who only follow it, and ask nothing.
    tokio::time::sleep(NOTICED).await;
    assert!(ahead.borrow().is_valid_at(clock()), "until {:?}", ahead.borrow().not_before);
    let asked = stage.identities.of(&claim()).await.unwrap().svid;
    assert_eq!(asked.borrow().serial, ahead.borrow().serial);
}

#[tokio::test(start_paused = true)]
async fn what_failed_while_the_clock_was_ahead_is_tried_again_once_it_is_back() {
    let stage = started().await;
    stage.fail(true);
    jump(48 * HOUR);
    let refused = stage.identities.of(&claim()).await.unwrap_err();
    assert_eq!(refused.reason(), DenyReason::NoSvid, "nothing expired is handed out");
    tokio::time::sleep(NOTICED).await;
    jump(Duration::ZERO);
    stage.fail(false);
    let found = stage.identities.of(&claim()).await;
    assert!(found.is_ok(), "the next attempt is planned in two days: {found:?}");
}
