//! The configuration as typed values. The defaults stand here, and only here; the example file is
//! tested to show the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{BundleEndpointConfig, FederationConfig, OidcConfig, Relationship};
use crate::policy::{DenyItem, InboundRule, OutboundRule, Policy};
use crate::registry::Registry;
use crate::spiffe::TrustDomain;
use crate::workload::{FileSet, Scope};

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Counts the configurations that a running daemon has taken over, from 1.
    pub epoch: u64,
    /// This host.
    pub node: NodeConfig,
    /// Where the programs are attached.
    pub capture: CaptureConfig,
    /// How processes are looked at.
    pub attest: AttestConfig,
    /// Who signs SVIDs.
    pub issuer: IssuerConfig,
    /// Timeouts and limits.
    pub proxy: ProxyConfig,
    /// What programs that know SPIFFE are served.
    pub workload_api: WorkloadApiConfig,
    /// Where other trust domains get our bundle.
    pub bundle_endpoint: BundleEndpointConfig,
    /// How the endpoints of other trust domains are looked at.
    pub federation: FederationConfig,
    /// The documents of `OpenID` Connect.
    pub oidc: OidcConfig,
    /// The record of every connection.
    pub audit: AuditConfig,
    /// How to talk to the daemon.
    pub admin: AdminConfig,
    /// What the daemon says of itself.
    pub log: LogConfig,
    /// Parts of the host, in the order of the files.
    pub scopes: Vec<Scope>,
    /// Registration entries.
    pub registry: Arc<Registry>,
    /// Who is denied, in the order of the files.
    pub denied: Vec<DenyItem>,
    /// Where the bundles of other trust domains are fetched, in the order of the files.
    pub relationships: Vec<Arc<Relationship>>,
    /// Rules for connections that local workloads open, in the order of the files.
    pub outbound: Vec<OutboundRule>,
    /// Rules for connections that local workloads accept, in the order of the files.
    pub inbound: Vec<InboundRule>,
    /// SVIDs that are kept in files.
    pub files: Vec<FileSet>,
    /// Addresses of the host names in rules, as they were looked up.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// Host names in rules that could not be looked up since the daemon started: a rule matches
    /// none of their addresses.
    pub unresolved: BTreeSet<String>,
}

/// `[node]`: this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// Name of this node.
    pub name: String,
    /// Directory of what outlives a restart.
    pub state_dir: PathBuf,
    /// Directory of what does not.
    pub run_dir: PathBuf,
    /// Directory of more files with scopes, entries and rules.
    pub include_dir: Option<PathBuf>,
}

/// `[capture]`: where the programs are attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureConfig {
    /// Cgroup below the cgroup2 mount, with a leading `/`.
    pub cgroup: String,
    /// Tells several daemons on one kernel apart.
    pub instance: String,
    /// Mount of the BPF file system.
    pub bpffs: PathBuf,
}

/// `[attest]`: how processes are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestConfig {
    /// Executables above so many bytes get no digest; 0 switches digests off.
    pub digest_limit_bytes: u64,
    /// The longest that one attestation may take.
    pub deadline: Duration,
}

/// `[issuer]`: who signs SVIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// Which issuer.
    pub kind: IssuerKind,
    /// Lifetime of an X.509-SVID.
    pub svid_ttl: Duration,
    /// Lifetime of a JWT-SVID.
    pub jwt_svid_ttl: Duration,
    /// How far in the past an SVID begins.
    pub backdate: Duration,
}

/// Which issuer signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuerKind {
    /// The CA inside the daemon.
    Embedded,
}

/// `[proxy]`: timeouts and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Port of the outbound listener.
    pub outbound_port: u16,
    /// Port of the inbound listener.
    pub inbound_port: u16,
    /// For the peer to accept.
    pub connect_timeout: Duration,
    /// For the TLS handshake.
    pub handshake_timeout: Duration,
    /// For a client to say its first byte.
    pub first_byte_timeout: Duration,
    /// A connection without a byte for so long is cut; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// `TCP_USER_TIMEOUT`; `None`: the kernel's own.
    pub user_timeout: Option<Duration>,
    /// Silence before the first keepalive probe.
    pub keepalive: Duration,
    /// How long open connections may go on after the daemon is told to stop.
    pub drain_timeout: Duration,
    /// Connections of the whole node.
    pub max_connections: u32,
    /// Connections of one workload.
    pub max_connections_per_workload: u32,
    /// TLS handshakes at one time.
    pub max_handshakes: u32,
    /// TLS handshakes that begin in a second.
    pub max_handshake_rate: u32,
    /// The same, of one workload.
    pub max_handshake_rate_per_workload: u32,
    /// Clients at one time that have not proved who they are.
    pub max_unproved: u32,
    /// The same, of one client address at one workload.
    pub max_unproved_per_client: u32,
    /// What one direction of one connection may buffer, bytes.
    pub buffer_bytes: u64,
}

/// `[workload_api]`: what programs that know SPIFFE are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadApiConfig {
    /// Whether it is served.
    pub enabled: bool,
    /// The socket.
    pub socket: PathBuf,
    /// Connections of the whole node.
    pub max_connections: u32,
    /// Connections of one cgroup.
    pub max_connections_per_cgroup: u32,
    /// Requests of one cgroup in a second.
    pub requests_per_second: u32,
}

/// `[audit]`: the record of every connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// The log.
    pub path: PathBuf,
    /// The log is rotated at so many bytes.
    pub rotate_bytes: u64,
    /// Rotated logs kept.
    pub keep: u32,
    /// Records that may wait to be written.
    pub queue: u32,
    /// A connection open for so long gets an opening record too.
    pub open_after: Duration,
    /// Whether connections that are only observed are recorded.
    pub observe: bool,
}

/// `[admin]`: how to talk to the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Socket of the commands.
    pub socket: PathBuf,
    /// Loopback address of metrics and health; `None`: not served.
    pub metrics_listen: Option<SocketAddr>,
}

/// `[log]`: what the daemon says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// Least important level told.
    pub level: LogLevel,
    /// How it is written.
    pub format: LogFormat,
}

/// How important a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something will need attention.
    Warn,
    /// What the daemon does.
    Info,
    /// How it does it.
    Debug,
    /// Every step.
    Trace,
}

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Config {
    /// What holds where a file says nothing but the trust domain.
    pub fn default_for(trust_domain: TrustDomain) -> Self {
        let node = NodeConfig::default_for(trust_domain);
        Self {
            epoch: 1,
            admin: AdminConfig::default_for(&node.run_dir),
            workload_api: WorkloadApiConfig::default_for(&node.run_dir),
            node,
            capture: CaptureConfig::default(),
            attest: AttestConfig::default(),
            issuer: IssuerConfig::default(),
            proxy: ProxyConfig::default(),
            bundle_endpoint: BundleEndpointConfig::default(),
            federation: FederationConfig::default(),
            oidc: OidcConfig::default(),
            audit: AuditConfig::default(),
            log: LogConfig::default(),
            scopes: Vec::new(),
            registry: Arc::default(),
            denied: Vec::new(),
            relationships: Vec::new(),
            outbound: Vec::new(),
            inbound: Vec::new(),
            files: Vec::new(),
            addresses: BTreeMap::new(),
            unresolved: BTreeSet::new(),
        }
    }

    /// The rules as a snapshot of this epoch.
    pub fn policy(&self) -> Policy {
        let (outbound, inbound) = (self.outbound.clone(), self.inbound.clone());
        let denied = Arc::new(self.denied.iter().cloned().collect());
        Policy { epoch: self.epoch, denied, outbound, inbound }
    }
}

impl NodeConfig {
    /// Directory of what does not outlive a restart, where a file names none.
    pub const USUAL_RUN_DIR: &str = "/run/tacit";

    /// The node that a file with only a trust domain describes.
    pub fn default_for(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            name: host_name(),
            state_dir: "/var/lib/tacit".into(),
            run_dir: Self::USUAL_RUN_DIR.into(),
            include_dir: None,
        }
    }
}

impl AdminConfig {
    /// The sockets of a daemon with this run directory.
    pub fn default_for(run_dir: &Path) -> Self {
        let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
        Self { socket: run_dir.join("tacit.sock"), metrics_listen: Some(metrics) }
    }
}

impl WorkloadApiConfig {
    /// The socket of a daemon with this run directory, and limits.
    pub fn default_for(run_dir: &Path) -> Self {
        Self {
            enabled: true,
            socket: run_dir.join("public/api.sock"),
            max_connections: 4096,
            max_connections_per_cgroup: 1024,
            requests_per_second: 500,
        }
    }
}

impl Default for CaptureConfig {
    fn default() -> Self {
        Self { cgroup: "/".to_owned(), instance: "default".to_owned(), bpffs: "/sys/fs/bpf".into() }
    }
}

impl Default for AttestConfig {
    fn default() -> Self {
        Self { digest_limit_bytes: 512 << 20, deadline: Duration::from_secs(5) }
    }
}

impl Default for IssuerConfig {
    fn default() -> Self {
        Self {
            kind: IssuerKind::Embedded,
            svid_ttl: Duration::from_hours(1),
            jwt_svid_ttl: Duration::from_mins(5),
            backdate: Duration::from_mins(1),
        }
    }
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            outbound_port: 15001,
            inbound_port: 15006,
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(5),
            idle_timeout: None,
            user_timeout: Some(Duration::from_mins(2)),
            keepalive: Duration::from_mins(1),
            drain_timeout: Duration::from_secs(30),
            max_connections: 20_000,
            max_connections_per_workload: 10_000,
            max_handshakes: 256,
            max_handshake_rate: 5000,
            max_handshake_rate_per_workload: 2500,
            max_unproved: 10_000,
            max_unproved_per_client: 1000,
            buffer_bytes: 64 << 10,
        }
    }
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            path: "/var/log/tacit/audit.jsonl".into(),
            rotate_bytes: 100 << 20,
            keep: 10,
            queue: 8192,
            open_after: Duration::from_secs(30),
            observe: true,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}

impl LogLevel {
    /// Stable label, as the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// The host name, or `localhost` where the kernel tells none.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}
