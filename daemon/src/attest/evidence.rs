//! What an attestation says: the selectors that entries are matched against, spelled as SPIRE spells
//! them, and the facts behind them that audit records carry. Selectors of user and group are of the
//! effective ids. Source: SPIRE `doc/plugin_agent_workloadattestor_unix.md` and `…_systemd.md`;
//! `cgroup:path` is ours.

use std::path::Path;
use std::sync::Arc;

use super::names::Named;
use super::systemd;
use crate::workload::{
    ClaimSource, Doubts, NetnsCookie, ProcessClaim, ProcessKey, Selector, Selectors,
};

/// A process, attested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// Every selector that is provably true of the process at the time of the act.
    pub selectors: Selectors,
    /// What could not be found out.
    pub doubts: Doubts,
    /// The facts behind them.
    pub evidence: ProcessEvidence,
}

/// The facts about an attested process, as audit records carry them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessEvidence {
    /// Which process.
    pub process: ProcessKey,
    /// Effective user id at the act.
    pub uid: u32,
    /// Effective group id at the act.
    pub gid: u32,
    /// Real user id at the act.
    pub real_uid: u32,
    /// Path of the executable, if the host's file of that path is the one that runs.
    pub exe: Option<String>,
    /// SHA-256 of the executable that ran, in lower-case hexadecimal.
    pub exe_sha256: Option<String>,
    /// Cgroup path below the cgroup2 mount, with a leading `/`.
    pub cgroup: Option<String>,
    /// The outermost unit of the system manager, as systemd spells it.
    pub unit: Option<String>,
    /// Network namespace of the socket.
    pub netns: NetnsCookie,
    /// How the facts were come by.
    pub source: ClaimSource,
    /// The process had exited when it was attested: only recorded facts and cached digests count.
    pub exited: bool,
}

/// All that is known of a process, recorded and added.
#[derive(Debug)]
pub(super) struct Facts {
    /// What the kernel recorded.
    pub(super) claim: ProcessClaim,
    /// The path of the recorded cgroup.
    pub(super) cgroup: Option<Arc<str>>,
    /// Whether cgroup paths are those of a systemd host.
    pub(super) systemd_host: bool,
    /// Verified path of the executable.
    pub(super) path: Option<String>,
    /// Digest of the executable.
    pub(super) hex: Option<Arc<str>>,
    /// What could not be found out, but for names.
    pub(super) doubts: Doubts,
    /// Supplementary groups.
    pub(super) groups: Vec<u32>,
    /// Whether the process had exited.
    pub(super) exited: bool,
}

/// Names every fact.
pub(super) fn attestation(facts: Facts, named: &Named) -> Attestation {
    let unit = facts.cgroup.as_deref().filter(|_| facts.systemd_host).and_then(systemd::unit_of);
    let unit = unit.map(str::to_owned);
    let doubts = Doubts { user: named.user_unsaid, groups: named.groups_unsaid, ..facts.doubts };
    let mut selectors = unix(&facts, named);
    selectors
        .extend(facts.cgroup.iter().map(|path| Selector::new("cgroup", format!("path:{path}"))));
    selectors.extend(unit.iter().map(|unit| Selector::new("systemd", format!("id:{unit}"))));
    let evidence = ProcessEvidence {
        process: facts.claim.process,
        uid: facts.claim.uid,
        gid: facts.claim.gid,
        real_uid: facts.claim.real_uid,
        exe: facts.path,
        exe_sha256: facts.hex.map(|hex| hex.as_ref().to_owned()),
        cgroup: facts.cgroup.map(|path| path.as_ref().to_owned()),
        unit,
        netns: facts.claim.netns,
        source: facts.claim.source,
        exited: facts.exited,
    };
    Attestation { selectors, doubts, evidence }
}

fn unix(facts: &Facts, named: &Named) -> Selectors {
    let selector = |key: &str, value: &str| Selector::new("unix", format!("{key}:{value}"));
    let (uid, gid) = (facts.claim.uid, facts.claim.gid);
    let mut selectors =
        Selectors::from([selector("uid", &uid.to_string()), selector("gid", &gid.to_string())]);
    let group = |gid: &u32| named.groups.get(gid);
    selectors.extend(named.user.iter().map(|name| selector("user", name)));
    selectors.extend(group(&gid).map(|name| selector("group", name)));
    for gid in &facts.groups {
        selectors.insert(selector("supplementary_gid", &gid.to_string()));
        selectors.extend(group(gid).map(|name| selector("supplementary_group", name)));
    }
    selectors.extend(facts.path.as_deref().map(|path| selector("path", path)));
    selectors.extend(facts.hex.as_deref().map(|hex| selector("sha256", hex)));
    selectors
}

/// A path as a selector can carry it: text, absolute.
pub(super) fn path_value(path: &Path) -> Option<String> {
    path.is_absolute().then(|| path.to_str().map(str::to_owned)).flatten()
}
