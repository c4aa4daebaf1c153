//! Endpoints on loopback and looks at them: the real server, the real client, a CA on disk.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::LOCATION;
use axum::http::{StatusCode, Uri};
use axum::routing::get;
use hyper::body::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::fetch::{FetchError, fetch};
use super::*;
use crate::audit::{Audit, AuditSettings, Clock, Overflow};
use crate::config::{FetchProfile, Relationship, endpoint_url};
use crate::identity::{CaSettings, Issuer, LocalCa};
use crate::metrics::Metrics;
use crate::shutdown::Tasks;
use crate::spiffe::{BundleDocument, BundleSet, TrustDomain, parse_id, parse_trust_domain};
use crate::state::{ForeignBundles, Sequence};
use crate::sys::clock;

const ID: &str = "spiffe://two.test/endpoint";
const PATIENCE: Duration = Duration::from_secs(20);

fn domain(name: &str) -> TrustDomain {
    parse_trust_domain(name).unwrap()
}

fn ca(folder: &Path, name: &str) -> Arc<dyn Issuer> {
    let settings = CaSettings::new(folder.join(name), domain(name), "node-1".to_owned());
    Arc::new(LocalCa::open(settings).unwrap())
}

async fn svid(issuer: &Arc<dyn Issuer>, id: &str) -> Shown {
    let source = CertificateSource::Svid { id: id.to_owned(), ttl: Duration::from_hours(1) };
    Shown::first(source, Arc::clone(issuer)).await.unwrap()
}

/// Serves these routes until the tasks end; gives the address.
async fn serve(tasks: &mut Tasks, shown: Option<Shown>, routes: Router) -> SocketAddr {
    let any = "127.0.0.1:0".parse().unwrap();
    let endpoint = Endpoint::bind("test", any, shown, routes).await.unwrap();
    let address = endpoint.local_addr().unwrap();
    tasks.spawn("endpoint", endpoint.serve(tasks.stop()));
    address
}

fn says(text: &'static str) -> Router {
    Router::new().route("/", get(move || async move { text }))
}

fn redirects(to: String) -> Router {
    Router::new().route("/", get(move || async move { (StatusCode::FOUND, [(LOCATION, to)]) }))
}

fn url(address: SocketAddr) -> Uri {
    endpoint_url(&format!("https://{address}/")).unwrap()
}

async fn look(
    address: SocketAddr,
    profile: &FetchProfile,
    known: &BundleSet,
) -> Result<Bytes, FetchError> {
    let config = peer::client(profile, Arc::new(known.clone())).unwrap();
    tokio::time::timeout(PATIENCE, fetch(&url(address), &Arc::new(config))).await.unwrap()
}

fn spiffe(id: &str) -> FetchProfile {
    FetchProfile::HttpsSpiffe { endpoint: parse_id(id).unwrap() }
}

fn known(issuers: &[&Arc<dyn Issuer>]) -> BundleSet {
    let bundles = issuers.iter().map(|issuer| Arc::clone(&issuer.bundles().borrow()));
    bundles.flat_map(|set| set.iter().cloned().collect::<Vec<_>>()).collect()
}

/// SPIFFE Federation §5.2.2: one ID, by the bundle of its trust domain.
#[tokio::test]
async fn an_endpoint_of_spiffe_is_believed_by_its_id_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (ca(folder.path(), "one.test"), ca(folder.path(), "two.test"));
    let mut tasks = Tasks::new();
    let address = serve(&mut tasks, Some(svid(&two, ID).await), says("bundle")).await;
    let all = known(&[&one, &two]);
    assert_eq!(look(address, &spiffe(ID), &all).await.unwrap(), "bundle");
    for (expected, bundles, why) in [
        ("spiffe://two.test/other", &all, "it is spiffe://two.test/endpoint, not"),
        ("spiffe://one.test/endpoint", &all, "it is spiffe://two.test/endpoint, not"),
        (ID, &known(&[&one]), "no bundle of two.test is known"),
        ("spiffe://two.test/other", &known(&[&two]), "not spiffe://two.test/other"),
    ] {
        let error = look(address, &spiffe(expected), bundles).await.unwrap_err().to_string();
        assert!(error.contains(why), "{expected}: {error}");
    }
    // Another authority of the same trust domain.
    let strange = ca(&folder.path().join("strange"), "two.test");
    let error = look(address, &spiffe(ID), &known(&[&strange])).await.unwrap_err().to_string();
    assert!(error.contains("no authority of the ID's trust domain"), "{error}");
    tasks.drain(PATIENCE).await;
}

/// An authority of the web, and a certificate for 127.0.0.1 in files.
fn web(folder: &Path) -> (CertificateSource, FetchProfile) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &root).unwrap();
    let (certificate, key_file) = (folder.join("web.pem"), folder.join("web.key"));
    std::fs::write(&certificate, leaf.pem()).unwrap();
    crate::sys::private_files::write_atomic(&key_file, key.serialize_pem().as_bytes(), 0o600)
        .unwrap();
    let authorities = Some(vec![root.der().clone()].into());
    let source = CertificateSource::Files { certificate, key: key_file };
    (source, FetchProfile::HttpsWeb { authorities })
}

#[tokio::test]
async fn an_endpoint_of_the_web_is_believed_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let one = ca(folder.path(), "one.test");
    let (source, profile) = web(folder.path());
    let mut tasks = Tasks::new();
    let shown = Shown::first(source, Arc::clone(&one)).await.unwrap();
    let address = serve(&mut tasks, Some(shown), says("bundle")).await;
    let nothing = BundleSet::default();
    assert_eq!(look(address, &profile, &nothing).await.unwrap(), "bundle");
    // The same certificate under another name, another authority, and an SVID where the web is meant.
    let other: Uri = format!("https://localhost:{}/", address.port()).parse().unwrap();
    let config = Arc::new(peer::client(&profile, Arc::default()).unwrap());
    assert!(matches!(fetch(&other, &config).await, Err(FetchError::Tls { .. })));
    let strange = tempfile::tempdir().unwrap();
    let (_, elsewhere) = web(strange.path());
    assert!(matches!(look(address, &elsewhere, &nothing).await, Err(FetchError::Tls { .. })));
    let address = serve(&mut tasks, Some(svid(&one, "spiffe://one.test/x").await), says("x")).await;
    assert!(matches!(look(address, &profile, &nothing).await, Err(FetchError::Tls { .. })));
    tasks.drain(PATIENCE).await;
}

/// SPIFFE Federation §5.2.2.3: the same ID at every step; §5.2: no redirect out of https.
#[tokio::test]
async fn redirects_lead_to_the_same_id_within_https_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let two = ca(folder.path(), "two.test");
    let mut tasks = Tasks::new();
    let all = known(&[&two]);
    let target = serve(&mut tasks, Some(svid(&two, ID).await), says("bundle")).await;
    let (id, shown) = (spiffe(ID), svid(&two, ID).await);
    let mut to =
        async |place: String| serve(&mut tasks, Some(shown.clone()), redirects(place)).await;
    let good = to(format!("https://{target}/")).await;
    assert_eq!(look(good, &id, &all).await.unwrap(), "bundle");
    let plain = to(format!("http://{target}/")).await;
    assert!(matches!(look(plain, &id, &all).await, Err(FetchError::Redirect { .. })));
    let userinfo = to(format!("https://u:p@{target}/")).await;
    assert!(matches!(look(userinfo, &id, &all).await, Err(FetchError::Redirect { .. })));
    let round = to("/".to_owned()).await;
    assert!(matches!(look(round, &id, &all).await, Err(FetchError::TooManyRedirects)));
    let another = svid(&two, "spiffe://two.test/another").await;
    let another = serve(&mut tasks, Some(another), says("bundle")).await;
    let shown = svid(&two, ID).await;
    let stray = serve(&mut tasks, Some(shown), redirects(format!("https://{another}/"))).await;
    let error = look(stray, &id, &all).await.unwrap_err().to_string();
    assert!(error.contains("it is spiffe://two.test/another, not"), "{error}");
    tasks.drain(PATIENCE).await;
}

#[tokio::test]
async fn what_is_no_answer_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let two = ca(folder.path(), "two.test");
    let mut tasks = Tasks::new();
    let (id, all, shown) = (spiffe(ID), known(&[&two]), svid(&two, ID).await);
    let large = || async { "x".repeat((1 << 20) + 1) };
    let large = Router::new().route("/", get(large));
    let large = serve(&mut tasks, Some(shown.clone()), large).await;
    assert!(matches!(look(large, &id, &all).await, Err(FetchError::TooLarge(_))));
    let none = serve(&mut tasks, Some(shown.clone()), Router::new()).await;
    let error = look(none, &id, &all).await.unwrap_err().to_string();
    assert!(error.contains("answers 404"), "{error}");
    let clear = serve(&mut tasks, None, says("bundle")).await;
    assert!(matches!(look(clear, &id, &all).await, Err(FetchError::Tls { .. })));
    let nobody = "127.0.0.1:1".parse().unwrap();
    assert!(matches!(look(nobody, &id, &all).await, Err(FetchError::Connect { .. })));
    tasks.drain(PATIENCE).await;
}

#[tokio::test]
async fn one_address_cannot_take_the_room_of_others() {
    let mut tasks = Tasks::new();
    let address = serve(&mut tasks, None, says("here")).await;
    let mut silent = Vec::new();
    for _ in 0..32 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let ask = async || {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut answer = String::new();
        let asked =
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
        (asked.is_ok() && read.unwrap().is_ok()).then_some(answer).filter(|it| !it.is_empty())
    };
    assert_eq!(ask().await, None, "the thirty-third");
    silent.clear();
    let until = tokio::time::Instant::now() + PATIENCE;
    while ask().await.is_none_or(|answer| !answer.contains("here")) {
        assert!(tokio::time::Instant::now() < until, "no room again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tasks.drain(PATIENCE).await;
}

/// One trust domain that publishes and one that fetches, as daemons put them together.
struct Pair {
    folder: tempfile::TempDir,
    publisher: Arc<dyn Issuer>,
    fetching: Arc<dyn Issuer>,
    bundles: ForeignBundles,
    fetcher: Fetcher,
    tasks: Tasks,
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let publisher = ca(folder.path(), "two.test");
        let fetching = ca(folder.path(), "one.test");
        let enforcing = Arc::clone(&fetching);
        let enforce = Box::new(move |others: &BundleSet| enforcing.trust(others));
        let state = folder.path().join("state");
        let bundles = ForeignBundles::open(&state, domain("one.test"), &[], enforce).unwrap();
        let mut tasks = Tasks::new();
        let fetcher = Fetcher::new(FetcherParts {
            bundles: bundles.clone(),
            in_force: fetching.bundles(),
            audit: audit(folder.path(), &mut tasks),
            metrics: Arc::new(Metrics::new(&[], &[])),
            settings: FetchSettings {
                bounds: Bounds { shortest: Duration::from_millis(50), longest: PATIENCE },
                timeout: PATIENCE,
            },
        });
        tasks.spawn("fetcher", fetcher.clone().run(tasks.stop()));
        Self { folder, publisher, fetching, bundles, fetcher, tasks }
    }

    async fn publish(&mut self) -> SocketAddr {
        let published = Published::new(
            domain("two.test"),
            Duration::ZERO,
            self.publisher.bundles(),
            Sequence::open(&self.folder.path().join("published")).unwrap(),
        )
        .unwrap();
        let routes = bundle_routes(published.document());
        self.tasks.spawn("published", published.keep(self.tasks.stop()));
        let shown = svid(&self.publisher, ID).await;
        serve(&mut self.tasks, Some(shown), routes).await
    }

    fn relationship(&self, address: SocketAddr) -> Arc<Relationship> {
        let own = self.publisher.bundles();
        let own = own.borrow().get(&domain("two.test")).unwrap().as_ref().clone();
        Arc::new(Relationship {
            trust_domain: domain("two.test"),
            url: format!("https://{address}/"),
            profile: spiffe(ID),
            initial: Some(Arc::new(BundleDocument::plain(own))),
            origin: "a test".to_owned(),
        })
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let until = tokio::time::Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(tokio::time::Instant::now() < until, "{what}: {:?}", self.fetcher.status());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn status(&self) -> FetchStatus {
        let all: BTreeMap<_, _> = self.fetcher.status();
        all[&domain("two.test")].clone()
    }

    fn sequence(&self) -> Option<u64> {
        self.bundles.list().get(&domain("two.test"))?.document.sequence
    }
}

fn audit(folder: &Path, tasks: &mut Tasks) -> Audit {
    let settings = AuditSettings {
        path: folder.join("audit.jsonl"),
        state_dir: folder.join("audit"),
        node: "node-1".to_owned(),
        rotate_bytes: 1 << 20,
        keep: 1,
        queue: 100,
        overflow: Overflow::Block,
        open_after: Duration::from_secs(30),
        sync_every: Duration::from_secs(1),
    };
    let clock = Clock { now: clock::now, since_boot: clock::since_boot };
    let (audit, writer) = Audit::open(&settings, clock, Arc::new(Metrics::new(&[], &[]))).unwrap();
    tasks.spawn("audit writer", writer.run(tasks.stop()));
    audit
}

#[tokio::test]
async fn a_bundle_is_fetched_again_and_again_and_forgotten_with_its_endpoint() {
    let mut pair = Pair::new();
    let address = pair.publish().await;
    pair.bundles.declare(&[pair.relationship(address)]);
    pair.until("the first look", |it| it.sequence().is_some()).await;
    let first = pair.sequence();
    let is_in_force = |it: &Pair| it.fetching.bundles().borrow().get(&domain("two.test")).is_some();
    assert!(is_in_force(&pair));
    let looked = pair.status().fetched;
    pair.until("another look", |it| it.status().fetched > looked).await;
    assert_eq!(pair.sequence(), first, "nothing has changed");
    let log =
        || std::fs::read_to_string(pair.folder.path().join("audit.jsonl")).unwrap_or_default();
    pair.until("the record", |_| log().contains("bundle_fetched")).await;
    assert_eq!(log().matches("bundle_fetched").count(), 1, "of changes only");
    pair.bundles.declare(&[]);
    assert!(!is_in_force(&pair));
    pair.until("the end of the looks", |it| it.fetcher.status().is_empty()).await;
    pair.tasks.drain(PATIENCE).await;
}

#[tokio::test]
async fn an_endpoint_that_fails_leaves_the_last_good_bundle_and_is_told() {
    let mut pair = Pair::new();
    let routes = says("{\"keys\":{}}");
    let broken = svid(&pair.publisher, ID).await;
    let broken = serve(&mut pair.tasks, Some(broken), routes).await;
    let address = pair.publish().await;
    pair.bundles.declare(&[pair.relationship(address)]);
    pair.until("the first look", |it| it.sequence().is_some()).await;
    let good = pair.sequence();
    for (endpoint, why) in
        [(broken, "no SPIFFE bundle"), ("127.0.0.1:1".parse().unwrap(), "cannot be reached")]
    {
        pair.bundles.declare(&[pair.relationship(endpoint)]);
        let is_told = |it: &Pair| {
            let status = it.status();
            status.failures >= 2 && status.last_error.is_some_and(|error| error.contains(why))
        };
        pair.until(why, is_told).await;
        assert_eq!(pair.sequence(), good);
    }
    pair.bundles.declare(&[pair.relationship(address)]);
    pair.until("it is well again", |it| it.status().fetched.is_some()).await;
    assert_eq!((pair.status().failures, pair.status().last_error), (0, None));
    pair.tasks.drain(PATIENCE).await;
}

/// SPIFFE Trust Domain and Bundle §4.1.3: an empty bundle takes the place of the last good one.
#[tokio::test]
async fn an_empty_bundle_is_taken_for_what_it_says() {
    let mut pair = Pair::new();
    let shown = svid(&pair.publisher, ID).await;
    let empty = serve(&mut pair.tasks, Some(shown), says("{\"keys\":[]}")).await;
    pair.bundles.declare(&[pair.relationship(empty)]);
    let is_empty = |it: &Pair| {
        let bundles = it.fetching.bundles();
        let bundles = bundles.borrow();
        bundles.get(&domain("two.test")).is_some_and(|bundle| bundle.is_empty())
    };
    pair.until("the empty bundle", is_empty).await;
    pair.tasks.drain(PATIENCE).await;
}
