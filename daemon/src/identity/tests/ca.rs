//! The embedded CA on disk, and what its certificates are to others.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::stage::{HOUR, epoch};
use crate::identity::{
    CaError, CaSettings, IssueError, IssueRequest, Issuer as _, LocalCa, init_ca, issue_node, mint,
};
use crate::spiffe::{X509Svid, hex, parse_id, parse_trust_domain, verify};
use crate::sys::private_files::FileError;

const DAY: Duration = Duration::from_hours(24);

thread_local! {
    static LATER: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn clock() -> SystemTime {
    epoch() + LATER.get()
}

fn open(directory: &Path) -> Result<LocalCa, CaError> {
    open_as(directory, "td.test")
}

fn open_as(directory: &Path, trust_domain: &str) -> Result<LocalCa, CaError> {
    let domain = parse_trust_domain(trust_domain).unwrap();
    let settings = CaSettings::new(directory.to_owned(), domain, "node-1".to_owned());
    LocalCa::open(CaSettings { clock, ..settings })
}

fn request(ttl: Duration) -> IssueRequest {
    IssueRequest {
        spiffe_id: parse_id("spiffe://td.test/web").unwrap(),
        ttl,
        dns_names: Vec::new(),
    }
}

async fn issue(ca: &LocalCa) -> X509Svid {
    ca.issue(request(HOUR)).await.unwrap()
}

fn files(directory: &Path) -> Vec<(String, u32)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
            (entry.file_name().into_string().unwrap(), mode)
        })
        .collect();
    files.sort();
    files
}

fn named(files: &[(&str, u32)]) -> Vec<(String, u32)> {
    files.iter().map(|(name, mode)| ((*name).to_owned(), *mode)).collect()
}

#[tokio::test]
async fn a_first_start_makes_an_authority_and_the_next_finds_it() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("ca");
    let first = open(&directory).unwrap();
    let want = [
        ("bundle.pem", 0o644),
        ("jwt", 0o700),
        ("node.pem", 0o600),
        ("root.key", 0o600),
        ("root.pem", 0o644),
    ];
    assert_eq!(files(&directory), named(&want));
    assert_eq!(files(state.path()), named(&[("ca", 0o700)]), "nothing temporary is left");
    let second = open(&directory).unwrap();
    assert_eq!(first.authorities(), second.authorities());
    let svid = issue(&first).await;
    let peer = verify(&svid.chain, &second.bundles().borrow(), clock()).unwrap();
    assert_eq!(peer.authorities()[0], svid.authority);
    assert_eq!((peer.serial(), peer.not_after()), (svid.serial.as_str(), svid.not_after));
}

#[tokio::test]
async fn nodes_of_one_root_trust_each_other_and_no_other_root() {
    let state = tempfile::tempdir().unwrap();
    let (home, away, alien) =
        (state.path().join("home"), state.path().join("away"), state.path().join("alien"));
    init_ca(&home, &parse_trust_domain("td.test").unwrap(), "node-1", clock()).unwrap();
    issue_node(&home, "node-2", &away, clock()).unwrap();
    assert_eq!(files(&away), named(&[("bundle.pem", 0o644), ("node.pem", 0o600)]));
    // The root key is carried offline: both nodes work without it.
    fs::remove_file(home.join("root.key")).unwrap();
    let (home_ca, away_ca) = (open(&home).unwrap(), open(&away).unwrap());
    for (from, to) in [(&home_ca, &away_ca), (&away_ca, &home_ca)] {
        let svid = issue(from).await;
        assert_eq!(svid.chain.len(), 2, "leaf and intermediate, never the root");
        assert!(verify(&svid.chain, &to.bundles().borrow(), clock()).is_ok());
    }
    let alien_ca = open(&alien).unwrap();
    let svid = issue(&alien_ca).await;
    assert!(verify(&svid.chain, &home_ca.bundles().borrow(), clock()).is_err());
    let no_key = issue_node(&home, "node-3", &state.path().join("third"), clock());
    assert!(matches!(no_key, Err(CaError::NoRootKey(_))), "{no_key:?}");
    fs::copy(alien.join("bundle.pem"), home.join("bundle.pem")).unwrap();
    assert!(matches!(open(&home), Err(CaError::Untrusted { .. })));
}

#[test]
fn what_is_wrong_with_a_directory_is_said_and_nothing_is_touched() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("ca");
    open(&directory).unwrap();
    let domain = parse_trust_domain("td.test").unwrap();
    let again = init_ca(&directory, &domain, "node-1", clock());
    assert!(matches!(again, Err(CaError::Exists(_))));
    let name = init_ca(&state.path().join("x"), &domain, "a b", clock());
    assert!(matches!(name, Err(CaError::BadName(_))));
    let foreign = open_as(&directory, "other.test").unwrap_err().to_string();
    assert!(foreign.contains("td.test") && foreign.contains("node.trust_domain"), "{foreign}");
    let node = directory.join("node.pem");
    fs::set_permissions(&node, fs::Permissions::from_mode(0o640)).unwrap();
    let loose = open(&directory);
    assert!(matches!(loose, Err(CaError::File(FileError::Insecure { .. }))), "{loose:?}");
    fs::set_permissions(&node, fs::Permissions::from_mode(0o600)).unwrap();
    let other = state.path().join("other");
    open(&other).unwrap();
    let key = fs::read_to_string(other.join("root.key")).unwrap();
    let mixed = key + &fs::read_to_string(directory.join("root.pem")).unwrap();
    fs::write(&node, mixed).unwrap();
    assert!(matches!(open(&directory), Err(CaError::Unreadable { .. })), "key of another");
    fs::remove_file(&node).unwrap();
    assert!(matches!(open(&directory), Err(CaError::Missing(_))), "never filled up");
}

#[tokio::test]
async fn the_profile_of_a_leaf() {
    let state = tempfile::tempdir().unwrap();
    let svid = issue(&open(&state.path().join("ca")).unwrap()).await;
    let (_, leaf) = X509Certificate::from_der(&svid.chain[0]).unwrap();
    let (_, node) = X509Certificate::from_der(&svid.chain[1]).unwrap();
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digitalSignature and nothing else");
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && purposes.client_auth && !purposes.any);
    assert!(!leaf.basic_constraints().unwrap().unwrap().value.ca);
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(*names, [GeneralName::URI("spiffe://td.test/web")]);
    assert!(leaf.subject().iter().next().is_some());
    assert_eq!(leaf.raw_serial().len(), 16);
    assert_eq!(hex(leaf.raw_serial()), svid.serial);
    assert_eq!(svid.not_before, clock() - Duration::from_secs(10));
    assert_eq!(svid.not_after, clock() + HOUR);
    assert_eq!(leaf.public_key().subject_public_key.data.len(), 65, "a point on P-256");
    let constraints = node.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = node.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    let names = &node.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(*names, [GeneralName::URI("spiffe://td.test")]);
    assert!(!format!("{svid:?}").contains(&hex(&svid.key)), "keys do not print");
}

#[tokio::test]
async fn no_svid_for_others_and_none_longer_than_its_authority() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("ca");
    let ca = open(&directory).unwrap();
    let spiffe_id = parse_id("spiffe://other.test/web").unwrap();
    let foreign = ca.issue(IssueRequest { spiffe_id, ttl: HOUR, dns_names: Vec::new() }).await;
    assert!(matches!(foreign, Err(IssueError::ForeignTrustDomain { .. })));
    let long = ca.issue(request(DAY * 4000)).await.unwrap();
    assert_eq!(long.not_after, ca.authorities()[0].not_after);
    fs::remove_file(directory.join("root.key")).unwrap();
    assert!(ca.authorities().iter().all(|authority| authority.warning.is_none()));
    LATER.set(DAY * 300);
    assert!(ca.authorities()[0].warning.is_some_and(|text| text.contains("ca request")));
    assert!(ca.issue(request(HOUR)).await.is_ok());
    LATER.set(DAY * 366);
    let expired = ca.issue(request(HOUR)).await;
    assert!(matches!(expired, Err(IssueError::AuthorityExpired { .. })));
    assert!(open(&directory).is_err());
}

#[tokio::test]
async fn a_host_that_keeps_its_root_key_renews_its_authority_by_itself() {
    let state = tempfile::tempdir().unwrap();
    let directory = state.path().join("ca");
    let ca = open(&directory).unwrap();
    let before = ca.authorities()[0].clone();
    LATER.set(DAY * 300);
    let svid = issue(&ca).await;
    let after = ca.authorities()[0].clone();
    assert_ne!(before.key_id, after.key_id, "a new key, too");
    assert_eq!((svid.authority, after.warning), (after.key_id.clone(), None));
    assert_eq!(open(&directory).unwrap().authorities()[0], after, "the files agree");
    LATER.set(DAY * 1500);
    assert!(open(&directory).is_ok(), "also after years of sleep");
}

#[test]
fn a_minted_svid_is_whole_in_its_files() {
    let state = tempfile::tempdir().unwrap();
    let (directory, output) = (state.path().join("ca"), state.path().join("peer"));
    let ca = open(&directory).unwrap();
    for _renewal in 0..2 {
        let svid = mint(&directory, &request(HOUR), &output, clock()).unwrap();
        let want = [("bundle.pem", 0o644), ("svid.key", 0o600), ("svid.pem", 0o644)];
        assert_eq!(files(&output), named(&want));
        let text = fs::read_to_string(output.join("svid.pem")).unwrap();
        assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(verify(&svid.chain, &ca.bundles().borrow(), clock()).is_ok());
    }
}
