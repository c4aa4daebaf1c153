//! What the tests of identities stand on: a clock that follows tokio's, an issuer that fails when
//! told to, and processes that have exited, which are judged by what the kernel recorded.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::attest::{AttestSettings, Attestor};
use crate::identity::ca::SigningAuthority;
use crate::identity::{
    AuthorityStatus, Identities, IdentitySettings, IssueError, IssueRequest, Issuer, Issuing,
    IssuingJwt, JwtRequest,
};
use crate::policy::DenyList;
use crate::registry::{RegistrationEntry, Registry};
use crate::shutdown::Tasks;
use crate::spiffe::{BundleSet, parse_id, parse_trust_domain};
use crate::workload::{
    CgroupId, ClaimSource, FileId, NetnsCookie, ProcessClaim, ProcessKey, Selector,
};

pub(super) const HOUR: Duration = Duration::from_hours(1);
pub(super) const UID: u32 = 4711;

pub(super) fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

thread_local! {
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
    static AHEAD: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Wall-clock time that passes as tokio's does; each test has a thread of its own.
pub(super) fn clock() -> SystemTime {
    let start = START.get().unwrap_or_else(Instant::now);
    START.set(Some(start));
    epoch() + start.elapsed() + AHEAD.get()
}

/// Makes the clock jump, so that it is this far ahead.
pub(super) fn jump(ahead: Duration) {
    AHEAD.set(ahead);
}

#[derive(Debug)]
pub(super) struct TestIssuer {
    signing: Mutex<Arc<SigningAuthority>>,
    signs_with: watch::Sender<Option<Arc<str>>>,
    /// What it was told last: the one authority that has signed every SVID.
    pub(super) all_by: Mutex<Option<String>>,
    bundles: watch::Sender<Arc<BundleSet>>,
    pub(super) calls: AtomicUsize,
    pub(super) fails: AtomicBool,
    pub(super) hangs: AtomicBool,
}

impl Issuer for TestIssuer {
    fn issue(&self, request: IssueRequest) -> Issuing<'_> {
        Box::pin(async move {
            self.calls.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
            if self.hangs.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            if self.fails.load(Ordering::Relaxed) {
                return Err(IssueError::Crypto("do it, on purpose"));
            }
            let signing = Arc::clone(&self.signing.lock().unwrap());
            signing.svid(&request, Duration::from_secs(10), clock())
        })
    }

    fn issue_jwt(&self, _request: JwtRequest) -> IssuingJwt<'_> {
        Box::pin(async { Err(IssueError::Crypto("sign tokens: none is asked for here")) })
    }

    fn upkeep(&self, all_by: Option<&str>) -> Option<SystemTime> {
        let all_by = all_by.map(str::to_owned);
        *self.all_by.lock().unwrap() = all_by;
        None
    }

    fn signs_with(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.signs_with.subscribe()
    }

    fn bundles(&self) -> watch::Receiver<Arc<BundleSet>> {
        self.bundles.subscribe()
    }

    fn trust(&self, _others: &BundleSet) {}

    fn authorities(&self) -> Vec<AuthorityStatus> {
        Vec::new()
    }
}

impl TestIssuer {
    /// Another authority signs from now on. Gives its key id.
    pub(super) fn rotate(&self) -> String {
        let domain = parse_trust_domain("td.test").unwrap();
        let signing = SigningAuthority::root(&domain, clock()).unwrap();
        let key_id = signing.authority().key_id.clone();
        *self.signing.lock().unwrap() = Arc::new(signing);
        self.signs_with.send_replace(Some(key_id.as_str().into()));
        key_id
    }
}

/// Identities with everything that they stand on.
pub(super) struct Stage {
    pub(super) identities: Identities,
    pub(super) issuer: Arc<TestIssuer>,
    pub(super) registry: watch::Sender<Arc<Registry>>,
    pub(super) denied: watch::Sender<Arc<DenyList>>,
    pub(super) tasks: Tasks,
}

impl Stage {
    pub(super) fn new(entries: Vec<RegistrationEntry>) -> Self {
        let domain = parse_trust_domain("td.test").unwrap();
        let signing = SigningAuthority::root(&domain, clock()).unwrap();
        let issuer = Arc::new(TestIssuer {
            signs_with: watch::Sender::new(Some(signing.authority().key_id.as_str().into())),
            signing: Mutex::new(Arc::new(signing)),
            all_by: Mutex::default(),
            bundles: watch::Sender::default(),
            calls: AtomicUsize::new(0),
            fails: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
        });
        let registry = watch::Sender::new(Arc::new(Registry::new(entries).unwrap()));
        let denied = watch::Sender::default();
        let identities = Identities::new(
            Attestor::new(AttestSettings::default()),
            registry.subscribe(),
            denied.subscribe(),
            Arc::<TestIssuer>::clone(&issuer),
            IdentitySettings { clock, ..IdentitySettings::default() },
        );
        Self { identities, issuer, registry, denied, tasks: Tasks::new() }
    }

    /// Starts the renewing task and lets it do what is due at once.
    pub(super) async fn run(&mut self) {
        let stop = self.tasks.stop();
        self.tasks.spawn("identities", self.identities.clone().run(stop));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    pub(super) async fn set_entries(&self, entries: Vec<RegistrationEntry>) {
        self.registry.send_replace(Arc::new(Registry::new(entries).unwrap()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    pub(super) fn calls(&self) -> usize {
        self.issuer.calls.load(Ordering::Relaxed)
    }

    pub(super) fn fail(&self, fails: bool) {
        self.issuer.fails.store(fails, Ordering::Relaxed);
    }
}

pub(super) fn entry(id: &str, selectors: &[&str]) -> RegistrationEntry {
    RegistrationEntry::new(
        id,
        parse_id(&format!("spiffe://td.test/{id}")).unwrap(),
        selectors.iter().map(|text| text.parse::<Selector>().unwrap()).collect(),
        "a test",
    )
}

/// A process that is gone: no pid is that large.
pub(super) fn claim() -> ProcessClaim {
    ProcessClaim {
        process: ProcessKey { pid: 1 << 30, start_ns: 1 },
        uid: UID,
        gid: UID,
        real_uid: UID,
        real_gid: UID,
        cgroup: CgroupId(0),
        netns: NetnsCookie(1),
        exe: FileId { dev: 1, ino: 1 },
        exec_id: 1,
        seen_ns: 2,
        source: ClaimSource::Kernel,
    }
}
