//! A node for tests: the real proxy, identities, policy and audit log; a table for the kernel.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

use super::ca::TestCa;
use super::table::Table;
use crate::attest::{AttestSettings, Attestor};
use crate::audit::log::{Query, lines};
use crate::audit::{Audit, AuditSettings, Clock, Direction, Event, Overflow, Record};
use crate::identity::{
    AuthorityStatus, Identities, IdentitySettings, IssueError, IssueRequest, Issuer, Issuing,
    IssuingJwt, JwtRequest,
};
use crate::metrics::Metrics;
use crate::policy::{DenyReason, Policy};
use crate::proxy::dial::tune;
use crate::proxy::relay::ResetOnDrop;
use crate::proxy::{
    FlowSource, Modes, Proxy, ProxyParts, ProxySettings, inbound, keep_watch, serve_outbound,
};
use crate::registry::{RegistrationEntry, Registry};
use crate::shutdown::Tasks;
use crate::spiffe::{BundleSet, X509Svid, parse_id, parse_trust_domain};
use crate::sys::cgroup::Cgroups;
use crate::sys::{clock, sockets};
use crate::workload::{
    CgroupId, Flow, ListenAddr, Listener, ListenerLookup, Mode, NetnsCookie, OriginalDst,
    ProcessClaim, ScopeId, Selector,
};

/// Issues whatever is asked for, and lets the test take it back.
#[derive(Debug)]
struct TestIssuer {
    ca: Arc<TestCa>,
    lasts: Duration,
    renews: bool,
    issued: std::sync::atomic::AtomicBool,
    bundles: watch::Receiver<Arc<BundleSet>>,
}

impl Issuer for TestIssuer {
    fn issue(&self, request: IssueRequest) -> Issuing<'_> {
        let before = self.issued.swap(true, std::sync::atomic::Ordering::Relaxed);
        if before && !self.renews {
            return Box::pin(async { Err(IssueError::Crypto("sign")) });
        }
        let not_after = clock::now() + self.lasts;
        let svid = self.ca.svid_until(&request.spiffe_id.to_string(), not_after);
        Box::pin(async move { Ok::<X509Svid, _>(svid) })
    }

    fn issue_jwt(&self, _request: JwtRequest) -> IssuingJwt<'_> {
        Box::pin(async { Err(IssueError::Crypto("sign tokens: none is asked for here")) })
    }

    fn upkeep(&self, _all_by: Option<&str>) -> Option<SystemTime> {
        None
    }

    fn signs_with(&self) -> watch::Receiver<Option<Arc<str>>> {
        watch::Sender::default().subscribe()
    }

    fn bundles(&self) -> watch::Receiver<Arc<BundleSet>> {
        self.bundles.clone()
    }

    fn trust(&self, _others: &BundleSet) {}

    fn authorities(&self) -> Vec<AuthorityStatus> {
        Vec::new()
    }
}

/// A node with one workload, which is this process.
pub(super) struct Node {
    pub(super) table: Arc<Table>,
    pub(super) policy: watch::Sender<Arc<Policy>>,
    pub(super) registry: watch::Sender<Arc<Registry>>,
    pub(super) bundles: watch::Sender<Arc<BundleSet>>,
    pub(super) modes: watch::Sender<Arc<Modes>>,
    pub(super) settled: watch::Sender<bool>,
    /// Where clients of the workload connect to.
    pub(super) listen: SocketAddr,
    pub(super) mode: Mode,
    outbound: SocketAddr,
    /// What the application of the listener accepts.
    accepted: mpsc::Receiver<TcpStream>,
    proxy: Arc<Proxy>,
    audit: Audit,
    log: PathBuf,
    tasks: Tasks,
    /// Outlives the others, which make records.
    _writer: Tasks,
    _dir: TempDir,
}

/// What differs between nodes.
pub(super) struct Wish {
    pub(super) mode: Mode,
    /// How long SVIDs last.
    pub(super) lasts: Duration,
    /// Whether they are renewed.
    pub(super) renews: bool,
    pub(super) settings: ProxySettings,
    pub(super) trusts: Option<BundleSet>,
}

impl Default for Wish {
    fn default() -> Self {
        let settings = ProxySettings {
            first_byte_timeout: Duration::from_millis(300),
            connect_timeout: Duration::from_secs(5),
            ..ProxySettings::default()
        };
        let lasts = Duration::from_hours(1);
        Self { mode: Mode::Strict, lasts, renews: true, settings, trusts: None }
    }
}

pub(super) fn registry(id: &str) -> Arc<Registry> {
    federated(id, &[])
}

pub(super) fn federated(id: &str, federates_with: &[&str]) -> Arc<Registry> {
    let uid = nix::unistd::geteuid();
    let mut entry = RegistrationEntry::new(
        "only",
        parse_id(id).unwrap(),
        [Selector::new("unix", format!("uid:{uid}"))].into(),
        "test",
    );
    let domains = federates_with.iter().map(|name| parse_trust_domain(name).unwrap());
    entry.federates_with = domains.collect();
    Arc::new(Registry::new(vec![entry]).unwrap())
}

pub(super) fn claim() -> ProcessClaim {
    let seen_ns = u64::try_from(clock::since_boot().as_nanos()).unwrap();
    let cgroups = Cgroups::find().unwrap();
    let found = sockets::claim_of(std::process::id(), &cgroups, NetnsCookie(1), seen_ns);
    found.unwrap().unwrap()
}

pub(super) fn somebody_else() -> Listener {
    let claim = ProcessClaim { cgroup: CgroupId(4711), ..claim() };
    Listener { claim, scope: ScopeId(1), mode: Mode::Strict }
}

fn audit(dir: &TempDir, metrics: &Arc<Metrics>) -> (Audit, Tasks, PathBuf) {
    let path = dir.path().join("audit.log");
    let settings = AuditSettings {
        path: path.clone(),
        state_dir: dir.path().to_owned(),
        node: "test".to_owned(),
        rotate_bytes: 64 << 20,
        keep: 3,
        queue: 1024,
        overflow: Overflow::Block,
        open_after: Duration::from_hours(1),
        sync_every: Duration::from_millis(50),
    };
    let clock = Clock { now: clock::now, since_boot: clock::since_boot };
    let (audit, writer) = Audit::open(&settings, clock, Arc::clone(metrics)).unwrap();
    let mut writing = Tasks::new();
    writing.spawn("audit", writer.run(writing.stop()));
    (audit, writing, path)
}

fn identities(entries: watch::Receiver<Arc<Registry>>, issuer: TestIssuer) -> Identities {
    let settings = AttestSettings { digest_limit_bytes: 0, ..AttestSettings::default() };
    let attestor = Attestor::new(settings);
    let denied = watch::Sender::default().subscribe();
    Identities::new(attestor, entries, denied, Arc::new(issuer), IdentitySettings::default())
}

fn metrics() -> Arc<Metrics> {
    let reasons = DenyReason::ALL.map(DenyReason::as_str);
    Arc::new(Metrics::new(&Direction::ALL.map(Direction::as_str), &reasons))
}

impl Node {
    pub(super) async fn start(ca: &Arc<TestCa>, id: &str, policy: Policy, wish: Wish) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let metrics = metrics();
        let (audit, writing, log) = audit(&dir, &metrics);
        let trusted = wish.trusts.unwrap_or_else(|| ca.bundles());
        let (bundles, trusted) = watch::channel(Arc::new(trusted));
        let (registry, entries) = watch::channel(registry(id));
        let (policy, rules) = watch::channel(Arc::new(policy));
        let (modes, modes_now) = watch::channel(Arc::new(Modes::from([(ScopeId(1), wish.mode)])));
        let issuer = TestIssuer {
            ca: Arc::clone(ca),
            lasts: wish.lasts,
            renews: wish.renews,
            issued: false.into(),
            bundles: trusted.clone(),
        };
        let settled = watch::Sender::new(true);
        let identities = identities(entries, issuer);
        let table = Arc::new(Table::default());
        let flows: Arc<dyn FlowSource> = Arc::<Table>::clone(&table);
        let proxy = Proxy::new(ProxyParts {
            identities: identities.clone(),
            bundles: trusted,
            policy: rules,
            modes: modes_now,
            scope_of: Arc::new(|_claim| None),
            settled: settled.subscribe(),
            audit: audit.clone(),
            metrics,
            flows,
            settings: wish.settings,
        });
        let mut tasks = Tasks::new();
        tasks.spawn("identities", identities.run(tasks.stop()));
        tasks.spawn("watch", keep_watch(Arc::clone(&proxy), tasks.stop()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let outbound = listener.local_addr().unwrap();
        tasks.spawn("outbound", serve_outbound(listener, Arc::clone(&proxy), tasks.stop()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let (app, accepted) = mpsc::channel(1000);
        tasks.spawn("inbound", accept(listener, Arc::clone(&proxy), Arc::clone(&table), app));
        let mode = wish.mode;
        let owner = Listener { claim: claim(), scope: ScopeId(1), mode };
        table.listener_is(listen, ListenerLookup::Found(owner));
        Self {
            table,
            policy,
            registry,
            bundles,
            modes,
            settled,
            listen,
            mode,
            outbound,
            accepted,
            proxy,
            audit,
            log,
            tasks,
            _writer: writing,
            _dir: dir,
        }
    }

    /// The application dials, and the kernel has captured it.
    pub(super) async fn dial(&self, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let source = socket.local_addr().unwrap();
        let flow = Flow {
            claim: claim(),
            original_dst: OriginalDst::new(to),
            source,
            source_bound: false,
            bound_ifindex: 0,
            scope: ScopeId(1),
            mode: self.mode,
        };
        self.table.with(|known| known.flows.insert(source, flow));
        socket.connect(self.outbound).await.unwrap()
    }

    /// Somebody dials the proxy's own port, which the kernel has not captured.
    pub(super) async fn dial_uncaptured(&self) -> TcpStream {
        TcpStream::connect(self.outbound).await.unwrap()
    }

    /// What the application accepts next.
    pub(super) async fn accept(&mut self) -> TcpStream {
        let accepted = tokio::time::timeout(Duration::from_secs(20), self.accepted.recv());
        accepted.await.expect("nothing reached the application").unwrap()
    }

    pub(super) fn accepted_nothing(&mut self) -> bool {
        self.accepted.try_recv().is_err()
    }

    /// The closing records as they stand.
    pub(super) async fn records_so_far(&self) -> Vec<Record> {
        assert!(self.audit.flush(Duration::from_secs(20)).await, "the log takes nothing");
        let mut records = Vec::new();
        let each = |_: &str, record: &Record| {
            if record.event == Event::Close {
                records.push(record.clone());
            }
            ControlFlow::Continue(())
        };
        lines(&self.log, &Query::default(), each).unwrap();
        records
    }

    /// The closing records, once there are as many of them.
    pub(super) async fn records(&self, count: usize) -> Vec<Record> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let records = self.records_so_far().await;
            if records.len() >= count {
                assert_eq!(records.len(), count, "{records:#?}");
                return records;
            }
            assert!(tokio::time::Instant::now() < deadline, "{records:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn record(&self) -> Record {
        self.records(1).await.remove(0)
    }

    /// How many connections have a record being made, with the local identity in it.
    pub(super) fn identified(&self) -> usize {
        let has_id =
            |record: &Record| record.local.as_ref().is_some_and(|it| it.spiffe_id.is_some());
        self.audit.open_connections().iter().filter(|record| has_id(record)).count()
    }

    /// How many connections are looked after.
    pub(super) fn live(&self) -> usize {
        self.proxy.live.len()
    }

    /// Ends the daemon, but for the writer of the log.
    pub(super) async fn stop(&mut self) {
        self.tasks.drain(Duration::from_secs(20)).await;
    }

    pub(super) fn lookup(&self) -> ListenerLookup {
        self.table.listener(ListenAddr::new(self.listen))
    }

    /// Bytes of the futures that serve one connection.
    pub(super) async fn future_sizes(&self) -> (usize, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let socket = || async { ResetOnDrop::new(TcpStream::connect(addr).await.unwrap()) };
        let (proxy, stop) = (&self.proxy, || self.tasks.stop());
        let outbound = crate::proxy::outbound::serve(socket().await, Arc::clone(proxy), stop());
        let inbound = inbound::serve(socket().await, Arc::clone(proxy), stop());
        (size_of_val(&outbound), size_of_val(&inbound))
    }
}

/// Stands in for the kernel's steering: the daemon's own dials reach the application, everybody
/// else the proxy.
async fn accept(
    listener: TcpListener,
    proxy: Arc<Proxy>,
    table: Arc<Table>,
    app: mpsc::Sender<TcpStream>,
) {
    let mut connections = Tasks::new();
    loop {
        let (socket, from) = listener.accept().await.unwrap();
        let own = table.with(|known| {
            let at = known.dials.iter().position(|dial| *dial == from);
            at.map(|at| known.dials.swap_remove(at)).is_some()
        });
        if own {
            app.send(socket).await.unwrap();
            continue;
        }
        tune(&socket, &proxy.settings);
        let stop = connections.stop();
        let serve = inbound::serve(ResetOnDrop::new(socket), Arc::clone(&proxy), stop);
        connections.spawn("inbound connection", serve);
    }
}
