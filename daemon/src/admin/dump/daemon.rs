//! What the control surface shows, as serde sees it: its own types, filled from the crate's.
//! Field names are public. Times are UTC, RFC 3339; durations are seconds unless named otherwise.

use serde::{Deserialize, Serialize};

use crate::admin::Standing;
use crate::audit::{AuditHealth, format_time};
use crate::identity::{AuthorityStatus, SvidStatus};
use crate::registry::RegistrationEntry;
use crate::workload::{PortSet, Scope, ScopeId};

/// The origin of entries that no file declares.
pub const LIVE: &str = "live";

/// How the daemon fares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusDump {
    /// Version of the daemon.
    pub version: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Name of the node.
    pub node: String,
    /// The trust domain.
    pub trust_domain: String,
    /// When the daemon started.
    pub started: String,
    /// Whether all conditions are met.
    pub ready: bool,
    /// The conditions, each with what is wrong with it.
    pub conditions: Vec<Standing>,
    /// The configuration file.
    pub config: String,
    /// Which generation of it is in force.
    pub policy_epoch: u64,
    /// When that was read.
    pub config_loaded: String,
    /// What is worth telling about it: entries that tie, names that cannot be looked up.
    pub config_warnings: Vec<String>,
    /// Why the last reload changed nothing, if it did not.
    pub config_problem: Option<String>,
    /// Open connections.
    pub connections: ConnectionCounts,
    /// Daemons that drain: this one, or those before it.
    #[serde(default)]
    pub draining: Vec<DrainDump>,
    /// Numbers of things in force.
    pub scopes: usize,
    /// Registration entries.
    pub entries: usize,
    /// SVIDs held.
    pub svids: usize,
    /// The first time at which one of them expires.
    pub svid_earliest_expiry: Option<String>,
    /// The authorities that sign.
    pub authorities: Vec<AuthorityDump>,
    /// The audit log.
    pub audit: AuditDump,
    /// What the kernel programs have counted.
    pub kernel: Vec<CounterDump>,
}

/// How far a daemon has drained.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainDump {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Connections that are still open.
    pub connections: ConnectionCounts,
    /// After which what is left is reset.
    pub seconds_left: u64,
}

/// Open connections by direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionCounts {
    /// Opened by local workloads.
    pub outbound: usize,
    /// Accepted by local workloads.
    pub inbound: usize,
}

/// The audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditDump {
    /// The file.
    pub path: String,
    /// Why it cannot be written or rotated, if it cannot.
    pub problem: Option<String>,
    /// Records that wait.
    pub queued: usize,
    /// How many may.
    pub queue: usize,
    /// Records lost since the daemon started.
    pub lost: u64,
}

/// One counter of the kernel programs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterDump {
    /// What is counted.
    pub decision: String,
    /// How often it happened.
    pub count: u64,
}

/// One authority.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityDump {
    /// `root` or `node`.
    pub role: String,
    /// Subject key id, hex.
    pub key_id: String,
    /// When it ends.
    pub not_after: String,
    /// `signs`, `trusted`, `prepared` or `retires`.
    #[serde(default)]
    pub stage: String,
    /// When a prepared one signs, or a retiring one is trusted no more.
    #[serde(default)]
    pub stage_until: Option<String>,
    /// Open connections that hang on it; unknown where no daemon was asked.
    #[serde(default)]
    pub connections: Option<usize>,
    /// What is to be done about it.
    pub warning: Option<String>,
}

/// One scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeDump {
    /// Its number in records whose scope has no name.
    pub id: u32,
    /// Path of the cgroup.
    pub cgroup: String,
    /// Only this user.
    pub uid: Option<u32>,
    /// What is done with its connections.
    pub mode: String,
    /// What becomes of them while no daemon is alive.
    pub fail: String,
    /// What becomes of transports other than TCP.
    pub other_transports: String,
    /// Ports of listeners that are captured.
    pub inbound_ports: String,
    /// Destination ports that are captured.
    pub outbound_ports: String,
    /// Whether the cgroup is there now; unknown where nobody looked.
    pub present: Option<bool>,
}

/// One registration entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryDump {
    /// Its name.
    pub id: String,
    /// The identity that it gives.
    pub spiffe_id: String,
    /// What a process must be.
    pub selectors: Vec<String>,
    /// Lifetime of its X.509-SVIDs, seconds; the configured default where none.
    pub svid_ttl: Option<u64>,
    /// Lifetime of its JWT-SVIDs, seconds; the configured default where none.
    #[serde(default)]
    pub jwt_svid_ttl: Option<u64>,
    /// What the identity is for.
    #[serde(default)]
    pub hint: String,
    /// DNS names in its X.509-SVIDs.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// Other trust domains whose bundles its workloads get.
    #[serde(default)]
    pub federates_with: Vec<String>,
    /// The file that it comes from; `live` for one that was added while the daemon ran.
    pub origin: String,
    /// Entries that match a process equally well: those with the same selectors, and those that
    /// were seen to. The lowest id goes first.
    pub tied_with: Vec<String>,
    /// `declared` by the configuration, or `live`: added while the daemon ran.
    #[serde(default)]
    pub source: String,
    /// Whether a declared entry of the same id is in force instead of this live one.
    #[serde(default)]
    pub shadowed: bool,
}

/// One SVID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SvidDump {
    /// The entry that it is for.
    pub entry: String,
    /// The identity.
    pub spiffe_id: String,
    /// Serial number, hex; none while there is no SVID.
    pub serial: Option<String>,
    /// Start of validity.
    pub not_before: Option<String>,
    /// End of validity.
    pub not_after: Option<String>,
    /// Subject key id of the authority that signed it.
    pub authority: Option<String>,
    /// When the issuer is asked next.
    pub renew_at: String,
    /// How often that has failed in a row.
    pub failures: u32,
    /// Why it failed last.
    pub last_error: Option<String>,
}

/// What `doctor` found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorDump {
    /// Each thing looked at.
    pub checks: Vec<CheckDump>,
}

/// One thing that `doctor` looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDump {
    /// What was looked at.
    pub name: String,
    /// What was found.
    pub verdict: Verdict,
    /// More about it.
    pub detail: String,
    /// What to do about it, if anything.
    pub remedy: Option<String>,
}

/// How a check went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    #[default]
    Ok,
    /// It works, with something missing.
    Warning,
    /// It does not work.
    Failed,
}

/// What a reload did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadDump {
    /// Whether another configuration is in force now.
    pub changed: bool,
    /// Which generation is in force.
    pub policy_epoch: u64,
    /// What was wrong with the file; then nothing changed.
    pub problems: Vec<String>,
}

impl ScopeDump {
    /// A scope, under the number by which the kernel knows it.
    pub fn new(id: ScopeId, scope: &Scope, present: Option<bool>) -> Self {
        Self {
            id: id.0,
            cgroup: scope.cgroup.clone(),
            uid: scope.uid,
            mode: scope.mode.as_str().to_owned(),
            fail: scope.fail.as_str().to_owned(),
            other_transports: scope.other_transports.as_str().to_owned(),
            inbound_ports: ports(&scope.inbound_ports),
            outbound_ports: ports(&scope.outbound_ports),
            present,
        }
    }
}

fn ports(set: &PortSet) -> String {
    if set.is_all() {
        return "all".to_owned();
    }
    let range = |range: &std::ops::RangeInclusive<u16>| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    };
    set.ranges().iter().map(range).collect::<Vec<_>>().join(",")
}

impl From<&RegistrationEntry> for EntryDump {
    fn from(entry: &RegistrationEntry) -> Self {
        Self {
            id: entry.id.clone(),
            spiffe_id: entry.spiffe_id.to_string(),
            selectors: entry.selectors.iter().map(ToString::to_string).collect(),
            svid_ttl: entry.svid_ttl.map(|ttl| ttl.as_secs()),
            jwt_svid_ttl: entry.jwt_svid_ttl.map(|ttl| ttl.as_secs()),
            hint: entry.hint.clone(),
            dns_names: entry.dns_names.clone(),
            federates_with: entry.federates_with.iter().map(ToString::to_string).collect(),
            origin: entry.origin.clone(),
            tied_with: Vec::new(),
            source: if entry.origin == LIVE { "live" } else { "declared" }.to_owned(),
            shadowed: false,
        }
    }
}

impl From<&SvidStatus> for SvidDump {
    fn from(status: &SvidStatus) -> Self {
        let svid = status.svid.as_deref();
        Self {
            entry: status.entry.clone(),
            spiffe_id: status.spiffe_id.to_string(),
            serial: svid.map(|svid| svid.serial.clone()),
            not_before: svid.map(|svid| format_time(svid.not_before)),
            not_after: svid.map(|svid| format_time(svid.not_after)),
            authority: svid.map(|svid| svid.authority.clone()),
            renew_at: format_time(status.renew_at),
            failures: status.failures,
            last_error: status.last_error.as_ref().map(ToString::to_string),
        }
    }
}

impl From<&AuthorityStatus> for AuthorityDump {
    fn from(status: &AuthorityStatus) -> Self {
        Self {
            role: status.role.to_owned(),
            key_id: status.key_id.clone(),
            not_after: format_time(status.not_after),
            stage: status.stage.as_str().to_owned(),
            stage_until: status.stage.until().map(format_time),
            connections: None,
            warning: status.warning.map(str::to_owned),
        }
    }
}

impl AuditDump {
    /// The audit log at this path.
    pub fn new(path: &std::path::Path, health: AuditHealth) -> Self {
        let AuditHealth { problem, queued, queue, lost } = health;
        Self { path: path.display().to_string(), problem, queued, queue, lost }
    }
}
