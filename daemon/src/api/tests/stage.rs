//! What the tests of the API stand on: a CA on disk, entries that the test sets, the server on a
//! socket, and a client in this process, which is therefore the caller that is attested.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proto::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::api::{ApiLimits, ApiParts, WorkloadSocket, serve};
use crate::attest::{AttestSettings, Attestor};
use crate::audit::{Audit, AuditSettings, Clock, Overflow};
use crate::identity::{
    AuthorityStatus, CaSettings, Identities, IdentitySettings, IssueRequest, Issuer, Issuing,
    IssuingJwt, JwtRequest, LocalCa, void_bundle,
};
use crate::metrics::Metrics;
use crate::registry::{RegistrationEntry, Registry};
use crate::shutdown::Tasks;
use crate::spiffe::{BundleSet, TrustBundle, parse_id, parse_trust_domain};
use crate::sys::cgroup::Cgroups;
use crate::sys::clock;
use crate::workload::Selector;

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) type Client = SpiffeWorkloadApiClient<Channel>;

/// The CA on disk, beside bundles of other trust domains that the test sets.
#[derive(Debug)]
struct Federated {
    ca: LocalCa,
    bundles: watch::Sender<Arc<BundleSet>>,
}

impl Issuer for Federated {
    fn issue(&self, request: IssueRequest) -> Issuing<'_> {
        self.ca.issue(request)
    }

    fn issue_jwt(&self, request: JwtRequest) -> IssuingJwt<'_> {
        self.ca.issue_jwt(request)
    }

    fn upkeep(&self, all_by: Option<&str>) -> Option<SystemTime> {
        self.ca.upkeep(all_by)
    }

    fn signs_with(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.ca.signs_with()
    }

    fn bundles(&self) -> watch::Receiver<Arc<BundleSet>> {
        self.bundles.subscribe()
    }

    fn trust(&self, others: &BundleSet) {
        self.ca.trust(others);
    }

    fn authorities(&self) -> Vec<AuthorityStatus> {
        self.ca.authorities()
    }
}

/// A bundle of another trust domain.
pub(super) fn foreign_bundle(name: &str) -> TrustBundle {
    void_bundle(&parse_trust_domain(name).unwrap(), clock::now()).unwrap()
}

pub(super) struct Stage {
    issuer: Arc<Federated>,
    folder: tempfile::TempDir,
    pub(super) registry: watch::Sender<Arc<Registry>>,
    pub(super) tasks: Tasks,
}

pub(super) fn limits() -> ApiLimits {
    ApiLimits { connections: 100, connections_per_cgroup: 50, requests_per_second: 500 }
}

/// An entry for this very process.
pub(super) fn own(id: &str) -> RegistrationEntry {
    entry(id, &[&format!("unix:uid:{}", nix::unistd::geteuid())])
}

pub(super) fn entry(id: &str, selectors: &[&str]) -> RegistrationEntry {
    RegistrationEntry::new(
        id,
        parse_id(&format!("spiffe://td.test/{id}")).unwrap(),
        selectors.iter().map(|text| text.parse::<Selector>().unwrap()).collect(),
        "a test",
    )
}

impl Stage {
    pub(super) fn new(entries: Vec<RegistrationEntry>) -> Self {
        Self::with(entries, limits())
    }

    pub(super) fn with(entries: Vec<RegistrationEntry>, limits: ApiLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = CaSettings::new(
            folder.path().join("ca"),
            parse_trust_domain("td.test").unwrap(),
            "node-1".to_owned(),
        );
        let registry = watch::Sender::new(Arc::new(Registry::new(entries).unwrap()));
        let ca = LocalCa::open(settings).unwrap();
        let bundles = watch::Sender::new(Arc::clone(&ca.bundles().borrow()));
        let issuer = Arc::new(Federated { ca, bundles });
        let identities = Identities::new(
            Attestor::new(AttestSettings::default()),
            registry.subscribe(),
            watch::Sender::default().subscribe(),
            Arc::<Federated>::clone(&issuer),
            IdentitySettings::default(),
        );
        let mut tasks = Tasks::new();
        tasks.spawn("renewal", identities.clone().run(tasks.stop()));
        let audit = audit(&folder, &mut tasks);
        let socket = WorkloadSocket::bind(&folder.path().join("api.sock")).unwrap();
        let cgroups = Cgroups::find().unwrap();
        let parts = ApiParts { socket, identities, audit, cgroups, limits };
        tasks.spawn("workload api", serve(parts, tasks.stop()));
        Self { issuer, folder, registry, tasks }
    }

    pub(super) fn set(&self, entries: Vec<RegistrationEntry>) {
        self.registry.send_replace(Arc::new(Registry::new(entries).unwrap()));
    }

    /// Makes these bundles known beside the own one.
    pub(super) fn trust(&self, bundles: Vec<TrustBundle>) {
        let own = Arc::clone(&self.issuer.ca.bundles().borrow());
        self.issuer.bundles.send_replace(Arc::new(own.with(bundles)));
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    pub(super) async fn channel(&self) -> Channel {
        let address = format!("unix://{}", self.socket().display());
        Endpoint::from_shared(address).unwrap().connect().await.unwrap()
    }

    pub(super) async fn client(&self) -> Client {
        SpiffeWorkloadApiClient::new(self.channel().await)
    }

    /// What the audit log says, once it says this.
    pub(super) async fn audited(&self, what: &str) -> String {
        let path = self.folder.path().join("audit.jsonl");
        let told = async {
            loop {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                if text.contains(what) {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.unwrap()
    }
}

fn audit(folder: &tempfile::TempDir, tasks: &mut Tasks) -> Audit {
    let settings = AuditSettings {
        path: folder.path().join("audit.jsonl"),
        state_dir: folder.path().join("audit"),
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

/// A request with the header that the standard wants.
pub(super) fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

/// The next message of a stream.
pub(super) async fn next<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    let next = tokio::time::timeout(PATIENCE, stream.message()).await.expect("a message in time");
    next.map(|message| message.expect("no end without a reason"))
}
