//! How SVIDs come, are renewed, survive an issuer that fails, and go.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::stage::{HOUR, Stage, claim, clock, entry};
use crate::attest::Attestation;
use crate::identity::{IdentityError, IssueError};
use crate::policy::{Denied, DenyItem, DenyReason};
use crate::workload::Doubts;

fn web() -> Vec<crate::registry::RegistrationEntry> {
    vec![entry("web", &["unix:uid:4711"])]
}

#[tokio::test(start_paused = true)]
async fn many_first_requests_issue_once() {
    let stage = Stage::new(web());
    let claim = claim();
    let ask = || stage.identities.of(&claim);
    let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
    let serials: Vec<_> =
        [a, b, c, d].map(|found| found.unwrap().svid.borrow().serial.clone()).into();
    assert!(serials.iter().all(|serial| *serial == serials[0]));
    assert_eq!(stage.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn fetches_ahead_and_renews_at_half_life_in_place() {
    let mut stage = Stage::new(web());
    stage.run().await;
    assert_eq!(stage.calls(), 1, "before anybody asked");
    let mut svid = stage.identities.of(&claim()).await.unwrap().svid;
    let first = svid.borrow_and_update().serial.clone();
    tokio::time::sleep(HOUR * 44 / 100).await;
    assert!(!svid.has_changed().unwrap(), "not before 45 % of its life");
    tokio::time::sleep(HOUR * 12 / 100).await;
    assert!(svid.has_changed().unwrap(), "by 55 % of its life");
    assert_ne!(svid.borrow_and_update().serial, first);
    assert_eq!((stage.calls(), stage.identities.asked()), (2, (2, 0)));
    tokio::time::sleep(HOUR * 24).await;
    assert!(svid.borrow().is_valid_at(clock()));
    assert_eq!(stage.tasks.drain(Duration::from_secs(5)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_svid_that_is_shorter_than_it_is_backdated_is_not_renewed_without_end() {
    let mut short = web();
    short[0].svid_ttl = Some(Duration::from_secs(8));
    let mut stage = Stage::new(short);
    stage.run().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!((4..=7).contains(&stage.calls()), "{} in twenty seconds", stage.calls());
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_fails_costs_nothing_while_the_last_good_svid_lives() {
    let mut stage = Stage::new(web());
    stage.run().await;
    let mut svid = stage.identities.of(&claim()).await.unwrap().svid;
    let first = svid.borrow_and_update().serial.clone();
    stage.fail(true);
    tokio::time::sleep(HOUR * 3 / 4).await;
    assert_eq!(svid.borrow().serial, first);
    let status = stage.identities.svids().remove(0);
    assert!(status.failures > 3 && status.last_error.is_some(), "{status:?}");
    assert!(stage.calls() < 40, "{} attempts in a quarter of an hour", stage.calls());
    assert!(stage.identities.of(&claim()).await.is_ok());
    stage.fail(false);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_ne!(svid.borrow_and_update().serial, first);
    assert_eq!(stage.identities.svids().remove(0).failures, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_expired_is_handed_out_or_held() {
    let mut stage = Stage::new(web());
    stage.run().await;
    let mut svid = stage.identities.of(&claim()).await.unwrap().svid;
    svid.mark_unchanged();
    stage.fail(true);
    tokio::time::sleep(HOUR + Duration::from_secs(31)).await;
    assert!(svid.changed().await.is_err(), "closed");
    assert!(svid.borrow().not_after < clock(), "and that is why");
    let error = stage.identities.of(&claim()).await.unwrap_err();
    assert_eq!(error.reason(), DenyReason::NoSvid);
    assert!(error.attestation().is_some());
    stage.fail(false);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(stage.identities.of(&claim()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_removed_or_changed_entry_closes_the_watch() {
    let mut stage = Stage::new(web());
    stage.run().await;
    let mut moved = web();
    moved[0].origin = "another file".to_owned();
    let svid = stage.identities.of(&claim()).await.unwrap().svid;
    stage.set_entries(moved).await;
    assert!(svid.has_changed().is_ok(), "the same entry from elsewhere is the same");
    stage.set_entries(vec![entry("web", &["unix:uid:4711", "unix:gid:4711"])]).await;
    assert!(svid.has_changed().is_err(), "other selectors make it another");
    let svid = stage.identities.of(&claim()).await.unwrap().svid;
    stage.set_entries(Vec::new()).await;
    assert!(svid.has_changed().is_err());
    assert!(stage.identities.svids().is_empty());
    let error = stage.identities.of(&claim()).await.unwrap_err();
    assert_eq!(error.reason(), DenyReason::NoIdentity);
}

#[tokio::test(start_paused = true)]
async fn another_lifetime_is_another_svid_but_cuts_nobody() {
    let mut stage = Stage::new(web());
    stage.run().await;
    let svid = stage.identities.of(&claim()).await.unwrap().svid;
    let mut shorter = web();
    shorter[0].svid_ttl = Some(Duration::from_mins(1));
    stage.set_entries(shorter).await;
    let life = svid.borrow().not_after.duration_since(clock()).unwrap();
    assert!(life <= Duration::from_mins(1), "{life:?}");
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_known_to_fail_is_not_asked_for_every_connection() {
    let stage = Stage::new(web());
    stage.fail(true);
    let first = stage.identities.of(&claim()).await;
    assert!(matches!(first, Err(IdentityError::NoSvid { error: IssueError::Crypto(_), .. })));
    let second = stage.identities.of(&claim()).await;
    assert!(matches!(
        second,
        Err(IdentityError::NoSvid { error: IssueError::NotYetRetried { .. }, .. })
    ));
    assert_eq!(stage.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_hangs_is_given_up() {
    let stage = Stage::new(web());
    stage.issuer.hangs.store(true, Ordering::Relaxed);
    let found = stage.identities.of(&claim()).await;
    assert!(matches!(found, Err(IdentityError::NoSvid { error: IssueError::TimedOut(_), .. })));
}

#[tokio::test(start_paused = true)]
async fn explains_what_was_missing_and_issues_nothing() {
    let near = entry("near", &["unix:uid:4711", "unix:path:/bin/x"]);
    let stage = Stage::new(vec![near]);
    let why = stage.identities.explain(&claim()).await;
    assert!(why.attestation.is_ok() && why.entry.is_none());
    assert_eq!(why.near_misses[0].missing.to_string(), "unix:path:/bin/x");
    assert_eq!(stage.calls(), 0);
}

/// A name that nobody told in time: the entry that asks for it would have been the process's, or not.
#[tokio::test(start_paused = true)]
async fn in_doubt_a_process_is_nobody() {
    let named = entry("named", &["unix:uid:4711", "unix:user:alice"]);
    let stage = Stage::new(vec![web().remove(0), named]);
    let inner = &stage.identities.inner;
    let sure = inner.attestor.attest(&claim()).await.unwrap();
    assert_eq!(inner.slot_of(&sure).unwrap().0.id, "web");
    let doubts = Doubts { user: true, ..Doubts::default() };
    let doubtful = Arc::new(Attestation { doubts, ..sure.as_ref().clone() });
    let error = inner.slot_of(&doubtful).unwrap_err();
    assert_eq!(error.reason(), DenyReason::AttestFailed);
    assert!(error.to_string().contains("`named`") && error.to_string().contains("unix:user:alice"));
    assert!(matches!(inner.slots_of(&doubtful), Err(IdentityError::Doubtful { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_another_authority_has_signed_is_replaced_at_once() {
    let mut stage = Stage::new(web());
    stage.run().await;
    let mut svid = stage.identities.of(&claim()).await.unwrap().svid;
    let before = svid.borrow_and_update().authority.clone();
    assert_eq!(stage.issuer.all_by.lock().unwrap().as_ref(), Some(&before));
    let after = stage.issuer.rotate();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(svid.borrow_and_update().authority, after, "pushed to who holds it");
    assert_eq!(stage.issuer.all_by.lock().unwrap().as_ref(), Some(&after));
    // An issuer that fails is not asked without end.
    stage.fail(true);
    let (calls, _) = (stage.calls(), stage.issuer.rotate());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let calls = stage.calls() - calls;
    assert!((2..=10).contains(&calls), "{calls}");
    assert_eq!(*stage.issuer.all_by.lock().unwrap(), None);
    assert_eq!(svid.borrow_and_update().authority, after);
}

#[tokio::test(start_paused = true)]
async fn a_denied_identity_loses_its_svid_and_gets_no_other() {
    let other = entry("other", &["unix:uid:4711", "unix:gid:4711"]);
    let mut stage = Stage::new(vec![web().remove(0), other]);
    stage.run().await;
    let mut subscription = stage.identities.subscribe();
    let found = subscription.current(&claim()).await.unwrap();
    assert_eq!(found.identities.len(), 2);
    let held = stage.identities.of(&claim()).await.unwrap();
    assert_eq!(held.entry.id, "other", "the one with more selectors");
    let deny = |ids: &[&str], serials: &[&str]| {
        let ids = ids.iter().map(|id| Denied::id(&format!("spiffe://td.test/{id}")).unwrap());
        let serials = serials.iter().map(|serial| Denied::serial(serial).unwrap());
        let item = |denied| DenyItem::new(denied, "stolen", "a test").unwrap();
        stage.denied.send_replace(Arc::new(ids.chain(serials).map(item).collect()));
    };
    deny(&["other"], &[]);
    tokio::time::timeout(Duration::from_secs(1), subscription.changed()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(held.svid.has_changed().is_err(), "withdrawn");
    let error = stage.identities.of(&claim()).await.unwrap_err();
    assert_eq!(error.reason(), DenyReason::DenyListed, "not the next best identity");
    assert!(error.to_string().contains("stolen"), "{error}");
    let found = subscription.current(&claim()).await.unwrap();
    assert_eq!(found.identities.len(), 1);
    let token = stage.identities.jwt(&held.entry, &["db".to_owned()]).await;
    assert!(matches!(token, Err(IssueError::Denied(_))));
    assert_eq!(stage.identities.explain(&claim()).await.denied.unwrap().reason, "stolen");
    deny(&["other", "web"], &[]);
    let refused = subscription.current(&claim()).await.unwrap_err();
    assert_eq!(refused.reason(), DenyReason::DenyListed);
    assert!(
        stage.identities.svids().is_empty() || {
            stage.identities.reconcile();
            stage.identities.svids().is_empty()
        }
    );
    deny(&[], &[]);
    tokio::time::timeout(Duration::from_secs(1), subscription.changed()).await.unwrap();
    let mut svid = stage.identities.of(&claim()).await.unwrap().svid;
    // By its serial number it is replaced.
    let serial = svid.borrow_and_update().serial.clone();
    deny(&[], &[&serial]);
    tokio::time::timeout(Duration::from_secs(1), svid.changed()).await.unwrap().unwrap();
    assert_ne!(svid.borrow_and_update().serial, serial);
}
