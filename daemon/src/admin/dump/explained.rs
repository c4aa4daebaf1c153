//! What `tacit explain` shows: what `identity` and `policy` found, as serde sees it.

use serde::{Deserialize, Serialize};

use super::{EntryDump, ScopeDump};
use crate::attest::ProcessEvidence;
use crate::audit::{Direction, Record};
use crate::registry::{Lookup, NearMiss, RegistrationEntry};
use crate::workload::{ProcessClaim, Selectors};
use crate::{identity, policy};

/// Why a process has its identity, or a connection its decision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExplainDump {
    /// What was asked about, as it was understood.
    pub subject: String,
    /// The connection's record, where there is one.
    pub record: Option<Record>,
    /// The process.
    pub process: Option<ProcessDump>,
    /// The scope that it is in; none for "in no scope".
    pub scope: Option<ScopeDump>,
    /// How its identity came about.
    pub identity: Option<IdentityDump>,
    /// What is decided about the connection.
    pub decision: Option<DecisionDump>,
    /// Anything else worth saying.
    pub notes: Vec<String>,
}

/// A process, attested.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessDump {
    /// Process id.
    pub pid: u32,
    /// Path of the executable.
    pub exe: Option<String>,
    /// Its digest, hex.
    pub exe_sha256: Option<String>,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Path of the cgroup.
    pub cgroup: Option<String>,
    /// The systemd unit.
    pub unit: Option<String>,
}

/// How the identity of a process comes about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityDump {
    /// Why the process could not be attested, if it could not.
    pub attest_error: Option<String>,
    /// Everything that is provably true of it.
    pub selectors: Vec<String>,
    /// The entry that names it.
    pub entry: Option<EntryDump>,
    /// Why the identity is denied, if it is.
    #[serde(default)]
    pub denied: Option<String>,
    /// Entries that match as well, and lose by their id.
    pub tied: Vec<EntryDump>,
    /// Entries that nearly match.
    pub near_misses: Vec<NearMissDump>,
}

/// An entry that nearly matches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearMissDump {
    /// Its name.
    pub entry: String,
    /// The identity that it would give.
    pub spiffe_id: String,
    /// How many of its selectors match.
    pub matched: usize,
    /// Of how many.
    pub of: usize,
    /// The first that does not.
    pub missing: String,
}

/// What is decided about a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionDump {
    /// `outbound` or `inbound`.
    pub direction: String,
    /// `mtls`, `plaintext`, `passthrough` or `denied`.
    pub verdict: String,
    /// The rule that decides.
    pub rule: Option<String>,
    /// Why it is denied.
    pub reason: Option<String>,
    /// What is to be said beyond that.
    #[serde(default)]
    pub detail: Option<String>,
    /// Each rule, held against the connection.
    pub rules: Vec<RuleDump>,
}

/// One rule, held against a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleDump {
    /// Its name.
    pub rule: String,
    /// Its action.
    pub action: String,
    /// Whether it only rehearses.
    pub dry_run: bool,
    /// How it stands to the connection.
    pub standing: String,
}

impl From<&ProcessEvidence> for ProcessDump {
    fn from(evidence: &ProcessEvidence) -> Self {
        Self {
            pid: evidence.process.pid,
            exe: evidence.exe.clone(),
            exe_sha256: evidence.exe_sha256.clone(),
            uid: evidence.uid,
            gid: evidence.gid,
            cgroup: evidence.cgroup.clone(),
            unit: evidence.unit.clone(),
        }
    }
}

impl From<&ProcessClaim> for ProcessDump {
    fn from(claim: &ProcessClaim) -> Self {
        Self { pid: claim.process.pid, uid: claim.uid, gid: claim.gid, ..Self::default() }
    }
}

impl From<&identity::Explanation> for IdentityDump {
    fn from(found: &identity::Explanation) -> Self {
        let attestation = found.attestation.as_ref();
        let entry = |entry: &RegistrationEntry| EntryDump::from(entry);
        Self {
            attest_error: attestation.err().map(ToString::to_string),
            selectors: attestation
                .map(|found| found.selectors.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            entry: found.entry.as_deref().map(entry),
            denied: found.denied.as_ref().map(ToString::to_string),
            tied: found.tied.iter().map(|tied| entry(tied)).collect(),
            near_misses: found.near_misses.iter().map(near_miss).collect(),
        }
    }
}

impl IdentityDump {
    /// What the registry says of selectors that were found earlier.
    pub fn recorded(selectors: &Selectors, found: &Lookup, near_misses: &[NearMiss]) -> Self {
        Self {
            denied: None,
            attest_error: None,
            selectors: selectors.iter().map(ToString::to_string).collect(),
            entry: found.entry.as_deref().map(EntryDump::from),
            tied: found.tied.iter().map(|tied| EntryDump::from(tied.as_ref())).collect(),
            near_misses: near_misses.iter().map(near_miss).collect(),
        }
    }
}

fn near_miss(miss: &NearMiss) -> NearMissDump {
    NearMissDump {
        entry: miss.entry.id.clone(),
        spiffe_id: miss.entry.spiffe_id.to_string(),
        matched: miss.matched,
        of: miss.entry.selectors.len(),
        missing: miss.missing.to_string(),
    }
}

impl DecisionDump {
    /// What the rules say of a connection in this direction.
    pub fn new(direction: Direction, found: &policy::Explanation) -> Self {
        use policy::Judgement::{Denied, Mtls, Passthrough, Plaintext};
        let (verdict, rule, reason) = match &found.judgement {
            Mtls(rule) => ("mtls", Some(rule), None),
            Plaintext(rule) => ("plaintext", Some(rule), None),
            Passthrough(rule) => ("passthrough", Some(rule), None),
            Denied(denial) => ("denied", denial.rule(), Some(denial.reason().as_str())),
        };
        Self {
            direction: direction.as_str().to_owned(),
            verdict: verdict.to_owned(),
            rule: rule.map(ToString::to_string),
            reason: reason.map(str::to_owned),
            detail: match &found.judgement {
                Denied(denial) => denial.detail().map(ToString::to_string),
                Mtls(_) | Plaintext(_) | Passthrough(_) => None,
            },
            rules: found.findings.iter().map(rule_dump).collect(),
        }
    }
}

fn rule_dump(finding: &policy::RuleFinding) -> RuleDump {
    use policy::Standing::{Behind, Decides, Differs, WouldDecide};
    RuleDump {
        rule: finding.rule.to_string(),
        action: finding.action.to_owned(),
        dry_run: finding.dry_run,
        standing: match finding.standing {
            Decides => "decides".to_owned(),
            WouldDecide => "would decide if it were no dry run".to_owned(),
            Behind => "matches, but another rule goes before it".to_owned(),
            Differs(mismatch) => format!("does not match: {mismatch}"),
        },
    }
}
