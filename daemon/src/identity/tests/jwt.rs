//! Tokens, how long they are given out, and how the keys that sign them come and go.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::stage::{HOUR, entry, epoch};
use crate::attest::{AttestSettings, Attestor};
use crate::identity::{
    CaSettings, Identities, IdentitySettings, IssueError, Issuer as _, JwtRequest, LocalCa,
};
use crate::registry::Registry;
use crate::spiffe::{JwtSvid, parse_id, parse_trust_domain, verify_jwt};

const DAY: Duration = Duration::from_hours(24);

thread_local! {
    static LATER: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn clock() -> SystemTime {
    epoch() + LATER.get()
}

fn open(directory: &Path) -> LocalCa {
    let domain = parse_trust_domain("td.test").unwrap();
    let settings = CaSettings::new(directory.to_owned(), domain, "node-1".to_owned());
    LocalCa::open(CaSettings { clock, ..settings }).unwrap()
}

fn request() -> JwtRequest {
    JwtRequest {
        issuer: None,
        spiffe_id: parse_id("spiffe://td.test/web").unwrap(),
        audience: vec!["db".to_owned()],
        ttl: HOUR * 2,
    }
}

fn published(ca: &LocalCa) -> Vec<String> {
    let bundles = ca.bundles();
    let bundles = bundles.borrow();
    let bundle = bundles.get(&parse_trust_domain("td.test").unwrap()).unwrap();
    bundle.jwt_authorities().iter().map(|authority| authority.key_id.clone()).collect()
}

async fn token(ca: &LocalCa) -> JwtSvid {
    ca.issue_jwt(request()).await.unwrap()
}

fn later(time: Duration, ca: &LocalCa) {
    LATER.set(time);
    ca.upkeep(None);
}

fn is_valid(token: &JwtSvid, ca: &LocalCa) -> bool {
    verify_jwt(&token.token, "db", &ca.bundles().borrow(), clock()).is_ok()
}

#[tokio::test]
async fn a_key_is_published_a_day_before_it_signs_and_a_day_after() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("ca");
    let ca = open(&directory);
    let first = token(&ca).await;
    assert_eq!(published(&ca), std::slice::from_ref(&first.key_id));
    assert!(is_valid(&first, &ca));
    let mut bundles = ca.bundles();
    bundles.mark_unchanged();
    later(DAY * 5 + HOUR * 23, &ca);
    assert!(!bundles.has_changed().unwrap(), "nothing is due before");
    later(DAY * 6, &ca);
    assert!(bundles.has_changed().unwrap(), "pushed to those who watch");
    let both = published(&ca);
    assert_eq!((both.len(), both[0].as_str()), (2, first.key_id.as_str()));
    assert_eq!(token(&ca).await.key_id, first.key_id, "published, and not used yet");
    LATER.set(DAY * 6 + HOUR * 23);
    let last = token(&ca).await;
    later(DAY * 7, &ca);
    let next = token(&ca).await;
    assert_eq!((last.key_id == first.key_id, next.key_id.as_str()), (true, both[1].as_str()));
    assert!(is_valid(&last, &ca), "tokens of the last key are good until they expire");
    assert_eq!(open(&directory).bundles().borrow().clone(), ca.bundles().borrow().clone());
    later(DAY * 8 + HOUR * 2, &ca);
    assert_eq!(published(&ca), [next.key_id], "the first has gone");
    assert_eq!(fs::read_dir(directory.join("jwt")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_node_that_slept_for_long_publishes_before_it_signs_too() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("ca");
    let first = token(&open(&directory)).await.key_id;
    LATER.set(DAY * 100);
    let ca = open(&directory);
    assert_eq!(published(&ca).len(), 2);
    assert_eq!(token(&ca).await.key_id, first);
    later(DAY * 100 + HOUR, &ca);
    assert_ne!(token(&ca).await.key_id, first);
}

#[tokio::test]
async fn keys_are_private_files_and_one_that_is_not_stops_the_start() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("ca");
    let ca = open(&directory);
    let folder = directory.join("jwt");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
    assert!(!format!("{ca:?}").contains("PRIVATE") && format!("{ca:?}").contains("<redacted>"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let domain = parse_trust_domain("td.test").unwrap();
    let settings = CaSettings::new(directory, domain, "node-1".to_owned());
    let refused = LocalCa::open(CaSettings { clock, ..settings }).unwrap_err().to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
}

#[tokio::test]
async fn no_token_for_another_trust_domain() {
    let state = tempfile::tempdir().unwrap();
    let ca = open(&state.path().join("ca"));
    let spiffe_id = parse_id("spiffe://other.test/web").unwrap();
    let refused = ca.issue_jwt(JwtRequest { spiffe_id, ..request() }).await;
    assert!(matches!(refused, Err(IssueError::ForeignTrustDomain { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_token_is_given_out_until_half_of_its_life_by_identity_and_audience() {
    let state = tempfile::tempdir().unwrap();
    let registry = watch::Sender::new(Arc::new(Registry::default()));
    let identities = Identities::new(
        Attestor::new(AttestSettings::default()),
        registry.subscribe(),
        watch::Sender::default().subscribe(),
        Arc::new(open(&state.path().join("ca"))),
        IdentitySettings { clock, ..IdentitySettings::default() },
    );
    let web = entry("web", &["unix:uid:1"]);
    let audience = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let first = identities.jwt(&web, &audience(&["b", "a"])).await.unwrap();
    assert_eq!(first.claims.audience, ["a", "b"]);
    assert_eq!(first.claims.expires_at, clock() + Duration::from_mins(5));
    let again = identities.jwt(&web, &audience(&["a", "b", "a"])).await.unwrap();
    assert!(Arc::ptr_eq(&first, &again), "the audience is a set");
    let narrower = identities.jwt(&web, &audience(&["a"])).await.unwrap();
    let other = identities.jwt(&entry("db", &["unix:uid:1"]), &audience(&["a", "b"])).await;
    assert_ne!(first.token, narrower.token);
    assert_ne!(first.token, other.unwrap().token);
    LATER.set(Duration::from_secs(150));
    let same = identities.jwt(&web, &audience(&["a", "b"])).await.unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    LATER.set(Duration::from_secs(151));
    let fresh = identities.jwt(&web, &audience(&["a", "b"])).await.unwrap();
    assert_eq!(fresh.claims.issued_at, clock());
    let mut longer = web;
    longer.jwt_svid_ttl = Some(HOUR);
    let longer = identities.jwt(&longer, &audience(&["a", "b"])).await.unwrap();
    assert_eq!(longer.claims.expires_at, clock() + HOUR);
}
