//! Authorities that follow one another, on real files: a root of one's own, an intermediate under a
//! root elsewhere, a root that several nodes share.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::stage::{HOUR, epoch};
use crate::identity::{
    AuthorityStage, CaError, CaSettings, Held, IssueRequest, Issuer as _, JwtRequest, LocalCa,
    init_ca, issue_node, sign_request,
};
use crate::spiffe::{VerifyError, X509Svid, parse_id, parse_trust_domain, verify};

const DAY: Duration = Duration::from_hours(24);
const NOW: Duration = Duration::ZERO;

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

async fn svid(ca: &LocalCa) -> X509Svid {
    let spiffe_id = parse_id("spiffe://td.test/web").unwrap();
    ca.issue(IssueRequest { spiffe_id, ttl: DAY * 3, dns_names: Vec::new() }).await.unwrap()
}

/// What a peer with the bundle of this node says.
fn judged(svid: &X509Svid, by: &LocalCa) -> Result<(), VerifyError> {
    verify(&svid.chain, &by.bundles().borrow(), clock()).map(drop)
}

/// Key ids of the roots that are trusted, sorted.
fn roots(ca: &LocalCa) -> Vec<String> {
    let bundles = ca.bundles();
    let bundles = bundles.borrow();
    let bundle = bundles.get(ca.trust_domain()).unwrap();
    let mut roots: Vec<_> = bundle.authorities().iter().map(|root| root.key_id.clone()).collect();
    roots.sort();
    roots
}

/// The root above the node's authority.
fn root(ca: &LocalCa) -> String {
    let signs = |stage| stage == AuthorityStage::Signs;
    let all = ca.authorities();
    all.iter().rfind(|it| it.role == "root" && signs(it.stage)).unwrap().key_id.clone()
}

fn pair(a: &str, b: &str) -> Vec<String> {
    let mut both = vec![a.to_owned(), b.to_owned()];
    both.sort();
    both
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A root that is kept elsewhere.
    fn offline(&self, name: &str) -> PathBuf {
        let domain = parse_trust_domain("td.test").unwrap();
        init_ca(&self.at(name), &domain, "offline", clock()).unwrap();
        self.at(name)
    }

    fn node(&self, root: &Path, name: &str) -> LocalCa {
        issue_node(root, name, &self.at(name), clock()).unwrap();
        open(&self.at(name))
    }
}

/// The way of a request: out, signed, back.
fn signed(request: &str, root: &Path) -> Vec<u8> {
    let out = root.join("signed.pem");
    let told = sign_request(root, request.as_bytes(), &out, clock()).unwrap();
    assert_eq!(told.node, "node-1");
    fs::read(out).unwrap()
}

#[tokio::test]
async fn the_next_root_is_trusted_before_it_signs_and_the_last_after_it_did() {
    let place = Place::new();
    let directory = place.at("ca");
    let ca = open(&directory);
    let (old, before) = (root(&ca), svid(&ca).await);
    let next = ca.rotate(Some(HOUR), Some(DAY)).unwrap();
    assert_eq!(roots(&ca), pair(&old, &next));
    assert_eq!(root(&ca), old);
    let prepared = AuthorityStage::Prepared(clock() + HOUR);
    assert!(ca.authorities().iter().any(|it| it.key_id == next && it.stage == prepared));
    // Another call changes the times, and makes no other root. A restart changes nothing.
    assert_eq!(ca.rotate(Some(HOUR * 2), Some(DAY)).unwrap(), next);
    LATER.set(HOUR);
    let ca = open(&directory);
    assert_eq!(ca.upkeep(None), Some(epoch() + HOUR * 2));
    assert_eq!(root(&ca), old);

    LATER.set(HOUR * 2);
    let mut told = ca.signs_with();
    told.mark_unchanged();
    assert_eq!(ca.upkeep(None), Some(clock() + DAY));
    assert!(told.has_changed().unwrap(), "who holds SVIDs is told");
    assert_eq!((root(&ca), roots(&ca)), (next.clone(), pair(&old, &next)));
    let after = svid(&ca).await;
    assert_ne!(before.authority, after.authority);
    assert_eq!((judged(&before, &ca), judged(&after, &ca)), (Ok(()), Ok(())), "both are good");
    assert!(!directory.join("next").exists());
    let retires = AuthorityStage::Retires(clock() + DAY);
    assert!(ca.authorities().iter().any(|it| it.key_id == old && it.stage == retires));

    LATER.set(HOUR * 2 + DAY);
    let ca = open(&directory);
    let fresh = svid(&ca).await;
    assert_eq!(ca.upkeep(None), None);
    assert_eq!(roots(&ca), [next]);
    assert!(judged(&before, &ca).is_err() && judged(&fresh, &ca).is_ok());
    assert!(ca.rotation().distrusted.is_empty(), "it was in order");
}

#[tokio::test]
async fn what_is_compromised_goes_as_soon_as_nothing_hangs_on_it() {
    let place = Place::new();
    let ca = open(&place.at("ca"));
    let (old, before) = (root(&ca), svid(&ca).await);
    let token = |ca: &LocalCa| {
        let spiffe_id = parse_id("spiffe://td.test/web").unwrap();
        let request =
            JwtRequest { spiffe_id, audience: vec!["db".to_owned()], issuer: None, ttl: HOUR };
        futures_util::FutureExt::now_or_never(ca.issue_jwt(request)).unwrap().unwrap()
    };
    let (jwt_key, prepared) = (token(&ca).key_id, ca.rotate(Some(HOUR), None).unwrap());
    let gone = ca.replace().unwrap();
    assert!(gone.contains(&old) && gone.contains(&before.authority) && gone.contains(&prepared));
    let new = root(&ca);
    assert!(new != old && new != prepared);
    assert_ne!(token(&ca).key_id, jwt_key);
    let jwt_keys = |ca: &LocalCa| {
        let bundles = ca.bundles();
        let bundles = bundles.borrow();
        let keys = bundles.get(ca.trust_domain()).unwrap().jwt_authorities().to_vec();
        keys.into_iter().map(|key| key.key_id).collect::<Vec<_>>()
    };
    assert_eq!(jwt_keys(&ca), [token(&ca).key_id]);
    let after = svid(&ca).await;
    // Not while SVIDs hang on it, and none of what another has signed counts.
    ca.upkeep(None);
    ca.upkeep(Some(&before.authority));
    assert_eq!(judged(&before, &ca), Ok(()));
    assert_eq!(ca.upkeep(Some(&after.authority)), None);
    assert_eq!(roots(&ca), std::slice::from_ref(&new));
    assert!(judged(&before, &ca).is_err() && judged(&after, &ca).is_ok());
    assert!(ca.rotation().distrusted.is_superset(&gone));
    // It does not come back, whoever brings it.
    let again = open(&place.at("ca"));
    assert_eq!((root(&again), roots(&again)), (new.clone(), vec![new]));
    assert_eq!(jwt_keys(&again), [token(&again).key_id]);

    // An SVID that cannot be replaced holds up nothing for long.
    ca.change(|held| held.trust(&fs::read(place.offline("x").join("root.pem")).unwrap())).unwrap();
    let (old, _) = (root(&ca), ca.replace().unwrap());
    LATER.set(Duration::from_secs(6));
    ca.upkeep(None);
    assert_eq!(roots(&ca).len(), 2, "roots of others stay");
    assert!(!roots(&ca).contains(&old));
}

#[tokio::test]
async fn a_node_under_a_root_elsewhere_brings_its_new_authority_back() {
    let place = Place::new();
    let (shared, other) = (place.offline("root"), place.offline("other"));
    let (ca, peer) = (place.node(&shared, "node-1"), place.node(&shared, "node-2"));
    let before = svid(&ca).await;
    assert!(matches!(ca.rotate(None, None), Err(CaError::RootElsewhere)));
    assert!(matches!(ca.replace(), Err(CaError::RootElsewhere)));
    let unasked = ca.accept(&fs::read(shared.join("root.pem")).unwrap(), false);
    assert!(matches!(unasked, Err(CaError::NoRequest)), "{unasked:?}");

    let stale = signed(&ca.request().unwrap(), &shared);
    let request = ca.request().unwrap();
    assert!(!request.contains("PRIVATE"), "the key stays");
    assert!(matches!(ca.accept(&stale, false), Err(CaError::NotForRequest)));
    let foreign = signed(&request, &other);
    assert!(matches!(ca.accept(&foreign, false), Err(CaError::NotTrusted(_))));
    assert!(matches!(ca.accept(b"", false), Err(CaError::Nothing)));
    assert_eq!(svid(&ca).await.authority, before.authority, "nothing has changed");

    let key_id = ca.accept(&signed(&request, &shared), true).unwrap();
    let after = svid(&ca).await;
    assert_eq!(after.authority, key_id);
    assert_eq!(judged(&after, &peer), Ok(()));
    ca.upkeep(Some(&key_id));
    let distrusted = Err(VerifyError::DistrustedAuthority(before.authority.clone()));
    assert_eq!(judged(&before, &ca), distrusted, "the root alone cannot say so");
    assert_eq!(judged(&before, &peer), Ok(()));
    peer.change(|held| held.distrust(&before.authority)).unwrap();
    assert_eq!(judged(&before, &peer), distrusted);
    assert_eq!(judged(&after, &peer), Ok(()));
    peer.change(|held| held.undo_distrust(&before.authority)).unwrap();
    assert_eq!(judged(&before, &peer), Ok(()));
    let twice = peer.change(|held| held.undo_distrust(&before.authority));
    assert!(matches!(twice, Err(CaError::NotDistrusted(_))));
}

#[tokio::test]
async fn a_node_that_gives_its_own_root_up_does_not_return_to_it() {
    let place = Place::new();
    let (ca, shared) = (open(&place.at("own")), place.offline("root"));
    let old = root(&ca);
    ca.rotate(Some(HOUR), None).unwrap();
    ca.change(|held| held.trust(&fs::read(shared.join("root.pem")).unwrap())).unwrap();
    ca.accept(&signed(&ca.request().unwrap(), &shared), false).unwrap();
    let new = root(&ca);
    assert_ne!(new, old);
    assert!(!ca.keeps_its_root());
    LATER.set(HOUR * 2);
    ca.upkeep(None);
    LATER.set(DAY * 300);
    ca.upkeep(None);
    assert_eq!(root(&ca), new, "neither rotated nor renewed under the old one");
    assert!(ca.authorities()[0].warning.is_some_and(|it| it.contains("ca request")));
}

#[tokio::test]
async fn a_shared_root_is_replaced_without_a_moment_of_distrust() {
    let place = Place::new();
    let (old_root, new_root) = (place.offline("old"), place.offline("new"));
    let (a, b) = (place.node(&old_root, "a"), place.node(&old_root, "b"));
    let (old, new_pem) = (root(&a), fs::read(new_root.join("root.pem")).unwrap());
    let both_ways = async || {
        let (from_a, from_b) = (svid(&a).await, svid(&b).await);
        (judged(&from_a, &b), judged(&from_b, &a))
    };
    for ca in [&a, &b] {
        let told = ca.change(|held| held.trust(&new_pem)).unwrap();
        assert_eq!((told.added.len(), told.unchanged.len()), (1, 0));
        let told = ca.change(|held| held.trust(&new_pem)).unwrap();
        assert_eq!((told.added.len(), told.unchanged.len()), (0, 1));
        assert_eq!(both_ways().await, (Ok(()), Ok(())));
    }
    for ca in [&a, &b] {
        let early = ca.change(|held| held.retire(&old));
        assert!(matches!(early, Err(CaError::InUse(_))), "{early:?}");
        let early = ca.change(|held| held.distrust(&old));
        assert!(matches!(early, Err(CaError::InUse(_))), "{early:?}");
        let request = ca.request().unwrap();
        ca.accept(&signed(&request, &new_root), false).unwrap();
        assert_ne!(root(ca), old);
        assert_eq!(both_ways().await, (Ok(()), Ok(())));
    }
    a.change(|held| held.retire(&old)).unwrap();
    b.change(|held| held.distrust(&old.to_uppercase())).unwrap();
    assert_eq!(both_ways().await, (Ok(()), Ok(())));
    assert_eq!((roots(&a).len(), roots(&b).len()), (1, 1));
    let old_pem = fs::read(old_root.join("root.pem")).unwrap();
    let back = b.change(|held| held.trust(&old_pem));
    assert!(matches!(back, Err(CaError::Distrusted(_))), "{back:?}");
    let unknown = a.change(|held| held.retire(&old));
    assert!(matches!(unknown, Err(CaError::Unknown(_))), "{unknown:?}");
    let nonsense = a.change(|held| held.distrust("xyz"));
    assert!(matches!(nonsense, Err(CaError::BadKeyId(_))), "{nonsense:?}");
    let domain = parse_trust_domain("other.test").unwrap();
    init_ca(&place.at("foreign"), &domain, "x", clock()).unwrap();
    let foreign = fs::read(place.at("foreign").join("root.pem")).unwrap();
    let foreign = a.change(|held| held.trust(&foreign));
    assert!(matches!(foreign, Err(CaError::OtherDomain { .. })), "{foreign:?}");
    let leaf = pem_of(&svid(&a).await);
    assert!(matches!(a.change(|held| held.trust(leaf.as_bytes())), Err(CaError::NotRoots(_))));
}

fn pem_of(svid: &X509Svid) -> String {
    crate::spiffe::pem_block("CERTIFICATE", &svid.chain[0]).to_string()
}

#[tokio::test]
async fn a_node_begins_with_a_request_and_its_key_never_travels() {
    let place = Place::new();
    let (shared, directory) = (place.offline("root"), place.at("fresh"));
    let peer = place.node(&shared, "peer");
    let held = Held::begin(&directory, NOW, clock()).unwrap();
    let request = held.request("node-1").unwrap();
    assert!(matches!(held.request("a b"), Err(CaError::BadName(_))));
    assert!(matches!(Held::of(&directory, NOW, clock()), Err(CaError::Busy(_))), "one at a time");
    held.accept(&signed(&request, &shared), false).unwrap();
    drop(held);
    let ca = open(&directory);
    assert_eq!(judged(&svid(&ca).await, &peer), Ok(()));
    assert_eq!(judged(&svid(&peer).await, &ca), Ok(()));
    let nonsense = sign_request(&shared, b"x", &place.at("out"), clock());
    assert!(matches!(nonsense, Err(CaError::NotRequest)));
    // One bit of the request flipped on its way.
    let mut damaged = request.into_bytes();
    let middle = damaged.len() / 2;
    damaged[middle] = if damaged[middle] == b'A' { b'B' } else { b'A' };
    let damaged = sign_request(&shared, &damaged, &place.at("out"), clock());
    assert!(matches!(damaged, Err(CaError::NotRequest)), "{damaged:?}");
    assert!(!place.at("out").exists());
}

#[tokio::test]
async fn a_rotation_goes_on_after_a_crash_between_any_two_of_its_steps() {
    let place = Place::new();
    let directory = place.at("ca");
    let ca = open(&directory);
    let (old, next) = (root(&ca), ca.rotate(Some(HOUR), Some(DAY)).unwrap());
    let files = ["root.key", "root.pem", "rotation.json", "next/root.key", "next/root.pem"];
    let before = files.map(|name| (name, fs::read(directory.join(name)).unwrap()));
    LATER.set(HOUR);
    ca.upkeep(None);
    assert_eq!(root(&ca), next);
    // As if the daemon had died once the node's authority was written, and later by one step each.
    for steps in 0..=3 {
        let crashed = place.at(&format!("crashed-{steps}"));
        fs::create_dir(&crashed).unwrap();
        copy(&directory, &crashed);
        fs::create_dir(crashed.join("next")).unwrap();
        let done = ["rotation.json", "next/root.key", "next/root.pem"].into_iter().take(steps);
        let done: Vec<_> = done.collect();
        for (name, content) in &before {
            // What has been moved is gone there, and new here.
            let moved = |to: &str| done.contains(&format!("next/{to}").as_str());
            if !done.contains(name) && !moved(name) {
                fs::write(crashed.join(name), content).unwrap();
                let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
                fs::set_permissions(crashed.join(name), private).unwrap();
            }
        }
        let ca = open(&crashed);
        assert_eq!((root(&ca), roots(&ca)), (next.clone(), pair(&old, &next)), "{steps} steps");
        assert!(!crashed.join("next").exists(), "{steps} steps");
        let end = ca.rotation().retiring[&old];
        assert_eq!((end.at, end.compromised), (clock() + DAY, false), "{steps} steps");
        assert!(ca.keeps_its_root(), "{steps} steps");
        LATER.set(HOUR + DAY * 2);
        ca.upkeep(None);
        assert_eq!(roots(&ca), std::slice::from_ref(&next), "{steps} steps");
        LATER.set(HOUR);
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn what_others_change_in_the_files_is_followed_if_it_is_right() {
    let place = Place::new();
    let (shared, other) = (place.offline("root"), place.offline("other"));
    let ca = place.node(&shared, "node-1");
    let bundle = place.at("node-1").join("bundle.pem");
    let (own, new) = (fs::read(&bundle).unwrap(), fs::read(other.join("root.pem")).unwrap());
    fs::write(&bundle, [own.clone(), new.clone()].concat()).unwrap();
    assert_eq!(roots(&ca).len(), 1);
    ca.upkeep(None);
    assert_eq!(roots(&ca).len(), 2);
    // By that its own SVIDs would be refused: what is in force stays.
    fs::write(&bundle, new).unwrap();
    assert!(ca.upkeep(None).is_some(), "it is looked at again soon");
    assert_eq!(roots(&ca).len(), 2);
    assert!(ca.authorities()[0].warning.is_some_and(|it| it.contains("cannot be taken over")));
    fs::write(&bundle, own).unwrap();
    ca.upkeep(None);
    assert_eq!(roots(&ca).len(), 1);
    assert_eq!(ca.authorities()[0].warning, None);
}
