//! Why a process has its identity, or a connection its decision: the same questions that the proxy
//! asks, asked again and shown step by step. Decides nothing.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::dump::{DecisionDump, ExplainDump, IdentityDump, ProcessDump};
use crate::admin::{ExplainTarget, FlowSource, Refused};
use crate::audit::log::{self, Query};
use crate::audit::{self, Direction, Endpoint, Record};
use crate::identity;
use crate::policy::{self, SupposedPeer};
use crate::spiffe::{SpiffeId, parse_id};
use crate::sys::{clock, netns, sockets};
use crate::workload::{
    ClientAddr, ListenAddr, ListenerLookup, Mode, OriginalDst, ProcessClaim, Scope, Selector,
    Selectors,
};

use super::scopes::Placed;
use super::snapshots::{Daemon, scope_dump};

/// How long a question waits for records that are on their way to the log.
const FLUSH: Duration = Duration::from_secs(2);

impl Daemon {
    /// Explains whatever was asked about.
    pub(super) async fn explain_target(
        &self,
        target: &ExplainTarget,
    ) -> Result<ExplainDump, Refused> {
        match target {
            ExplainTarget::Process(pid) => self.explain_process(*pid).await,
            ExplainTarget::Connection(id) => self.explain_connection(id).await,
            ExplainTarget::Flow { source, destination } => {
                self.explain_flow(target, source, *destination).await
            }
        }
    }

    /// The facts about a process as they are now.
    fn claim(&self, pid: u32) -> Result<ProcessClaim, Refused> {
        let now = u64::try_from(clock::since_boot().as_nanos()).unwrap_or(u64::MAX);
        match sockets::claim_of(pid, &self.cgroups, self.netns, now) {
            Ok(Some(claim)) => Ok(claim),
            Ok(None) => Err(Refused::NotFound(format!("there is no process {pid}"))),
            Err(error) => Err(Refused::Failed(format!("process {pid} cannot be read: {error}"))),
        }
    }

    async fn explain_process(&self, pid: u32) -> Result<ExplainDump, Refused> {
        let claim = self.claim(pid)?;
        let mut dump = ExplainDump { subject: format!("process {pid}"), ..ExplainDump::default() };
        self.explain_claim(&mut dump, &claim).await;
        Ok(dump)
    }

    /// Fills in process, scope and identity; gives scope and SPIFFE ID.
    async fn explain_claim(
        &self,
        dump: &mut ExplainDump,
        claim: &ProcessClaim,
    ) -> (Option<Placed>, Option<SpiffeId>) {
        let explained: identity::Explanation = self.identities.explain(claim).await;
        dump.process = Some(match &explained.attestation {
            Ok(attestation) => ProcessDump::from(&attestation.evidence),
            Err(_) => ProcessDump::from(claim),
        });
        dump.identity = Some(IdentityDump::from(&explained));
        let scope = self.table.scope_of(claim);
        dump.scope = scope.as_ref().map(scope_dump);
        if scope.is_none() {
            dump.notes.push("the process is in no scope: its connections are observed".to_owned());
        }
        (scope, explained.entry.map(|entry| entry.spiffe_id.clone()))
    }

    async fn explain_connection(&self, id: &str) -> Result<ExplainDump, Refused> {
        let query = Query { connection: Some(id.to_owned()), ..Query::default() };
        let open = self.audit.open_connections();
        let record = match open.into_iter().find(|record| query.matches(record)) {
            Some(record) => Some(record),
            None => self.closed_record(query).await?,
        };
        let Some(record) = record else {
            return Err(Refused::NotFound(format!("no connection {id} is open or in the log")));
        };
        let mut dump =
            ExplainDump { subject: format!("connection {id}"), ..ExplainDump::default() };
        self.judge_again(&mut dump, &record);
        dump.record = Some(record);
        Ok(dump)
    }

    /// What entries and rules in force now say of what was recorded then.
    fn judge_again(&self, dump: &mut ExplainDump, record: &Record) {
        dump.notes.push("judged by the entries and rules in force now".to_owned());
        let names = self.table.current();
        let scope = names.iter().find(|placed| Some(placed.name()) == record.scope);
        dump.scope = scope.map(scope_dump);
        let mode = scope.map_or(Mode::Observe, |placed| placed.scope.mode);
        if let Some(process) = &record.process {
            let registry = Arc::clone(&self.entries.registry().borrow());
            let selectors = recorded_selectors(process);
            let (found, near) = (registry.find(&selectors), registry.near_misses(&selectors));
            let entry = found.entry.as_ref();
            let denied = entry.and_then(|entry| self.identities.denied(&entry.spiffe_id));
            let denied = denied.map(|item| item.to_string());
            let recorded = IdentityDump::recorded(&selectors, &found, &near);
            dump.identity = Some(IdentityDump { denied, ..recorded });
        }
        let id = |end: &Option<Endpoint>| parse_id(end.as_ref()?.spiffe_id.as_deref()?).ok();
        let at = |end: &Option<Endpoint>| end.as_ref()?.address.as_ref()?.parse().ok();
        let (Some(remote), false) = (at(&record.peer), mode == Mode::Observe) else { return };
        let (local, peer) = (id(&record.local), id(&record.peer));
        let policy = Arc::clone(&self.policy.borrow());
        dump.decision = if record.direction.as_deref() == Some(Direction::Outbound.as_str()) {
            let dst = OriginalDst::new(remote);
            let found = policy::explain_outbound(&policy, local.as_ref(), mode, dst, peer.as_ref());
            Some(DecisionDump::new(Direction::Outbound, &found))
        } else {
            let Some(here) = at(&record.local) else { return };
            let supposed = match (&peer, record.protection.as_deref()) {
                (Some(peer), _) => SupposedPeer::Identity(peer),
                (None, Some("passthrough")) => SupposedPeer::Passthrough,
                (None, _) => SupposedPeer::Plaintext,
            };
            let (here, remote) = (ListenAddr::new(here), ClientAddr::new(remote));
            let found =
                policy::explain_inbound(&policy, local.as_ref(), mode, here, remote, supposed);
            Some(DecisionDump::new(Direction::Inbound, &found))
        };
    }

    /// The last record of a connection in the log.
    async fn closed_record(&self, query: Query) -> Result<Option<Record>, Refused> {
        let path = self.reload.config().borrow().audit.path.clone();
        let is_whole = self.audit.flush(FLUSH).await;
        let search = move || {
            let mut last = None;
            log::lines(&path, &query, |_line, record| {
                last = Some(record.clone());
                ControlFlow::Continue(())
            })
            .map(|_follow| last)
        };
        let found = tokio::task::spawn_blocking(search)
            .await
            .map_err(|error| Refused::Failed(error.to_string()))?
            .map_err(|error| Refused::Failed(format!("the log cannot be read: {error}")))?;
        match (found, is_whole) {
            (None, false) => Err(Refused::Failed(
                "it is not in the log, which takes no records now: see `tacit status`".to_owned(),
            )),
            (found, _) => Ok(found),
        }
    }

    async fn explain_flow(
        &self,
        target: &ExplainTarget,
        source: &FlowSource,
        destination: SocketAddr,
    ) -> Result<ExplainDump, Refused> {
        let mut dump = ExplainDump { subject: target.to_string(), ..ExplainDump::default() };
        let (mode, local) = match source {
            FlowSource::Process(pid) => {
                let claim = self.claim(*pid)?;
                let (placed, local) = self.explain_claim(&mut dump, &claim).await;
                let Some(placed) = placed else { return Ok(dump) };
                // A process that may not be looked at is taken for one of this namespace.
                let is_foreign = netns::is_own(*pid).is_ok_and(|own| own == Some(false));
                if let Some(note) = left_out(&placed.scope, is_foreign, destination) {
                    dump.notes.push(note);
                    return Ok(dump);
                }
                (placed.scope.mode, local)
            }
            FlowSource::Identity(id) => {
                dump.notes.push("as if the workload were in a strict scope".to_owned());
                (Mode::Strict, Some(id.clone()))
            }
            FlowSource::Address(address) => {
                return self.explain_inbound(dump, *address, destination).await;
            }
        };
        let policy = Arc::clone(&self.policy.borrow());
        let dst = OriginalDst::new(destination);
        let found = policy::explain_outbound(&policy, local.as_ref(), mode, dst, None);
        dump.decision = Some(DecisionDump::new(Direction::Outbound, &found));
        Ok(dump)
    }

    /// What would be done with a connection from this address to a listener of this host.
    async fn explain_inbound(
        &self,
        mut dump: ExplainDump,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<ExplainDump, Refused> {
        let at = ListenAddr::new(to);
        let listener = match self.kernel.listener(at) {
            ListenerLookup::Found(listener) => listener,
            ListenerLookup::Ambiguous(listener) => {
                dump.notes.push("the holders of the listening socket disagree".to_owned());
                listener
            }
            ListenerLookup::Missing => {
                return Err(Refused::NotFound(format!("nobody on this host listens on {to}")));
            }
        };
        let (_, local) = self.explain_claim(&mut dump, &listener.claim).await;
        let policy = Arc::clone(&self.policy.borrow());
        let client = ClientAddr::new(from);
        let found = policy::explain_inbound(
            &policy,
            local.as_ref(),
            listener.mode,
            at,
            client,
            SupposedPeer::Plaintext,
        );
        dump.notes.push("as if the client spoke plaintext".to_owned());
        dump.decision = Some(DecisionDump::new(Direction::Inbound, &found));
        Ok(dump)
    }
}

/// Why a connection of a process in this scope never reaches the daemon, if it does not: what the
/// connect programs decide, in their order.
fn left_out(scope: &Scope, is_foreign: bool, to: SocketAddr) -> Option<String> {
    let fate = |reason: &str| match scope.mode {
        Mode::Strict => format!("the kernel programs refuse it ({reason})"),
        Mode::Observe | Mode::Permissive => "it is not captured: only observed".to_owned(),
    };
    if scope.mode == Mode::Observe {
        return Some("the scope is observed: the connection is not captured".to_owned());
    }
    if !scope.outbound_ports.contains(to.port()) {
        let what = "is not among the scope's outbound_ports: the connection is not captured";
        return Some(format!("port {} {what}", to.port()));
    }
    if is_foreign {
        let fate = fate("foreign_netns");
        return Some(format!("the process is in a network namespace of its own: {fate}"));
    }
    match to.ip().to_canonical() {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            Some(format!("the destination is link-local: {}", fate("link_local")))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// What a record says of its process, as selectors: those that need a look at the process itself
/// (groups) are missing.
fn recorded_selectors(process: &audit::Process) -> Selectors {
    let unix = |value: String| Selector::new("unix", value);
    let mut selectors = Selectors::from([
        unix(format!("uid:{}", process.uid)),
        unix(format!("gid:{}", process.gid)),
    ]);
    selectors.extend(process.exe.as_ref().map(|exe| unix(format!("path:{exe}"))));
    selectors.extend(process.exe_sha256.as_ref().map(|digest| unix(format!("sha256:{digest}"))));
    let cgroup = process.cgroup.as_ref();
    selectors.extend(cgroup.map(|path| Selector::new("cgroup", format!("path:{path}"))));
    let id = process.unit.as_ref();
    selectors.extend(id.map(|id| Selector::new("systemd", format!("id:{id}"))));
    selectors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{FailMode, OtherTransports, PortSet};

    #[test]
    fn what_the_programs_leave_out_is_said() {
        let scope = |mode| Scope {
            cgroup: "/a".to_owned(),
            uid: None,
            mode,
            fail: FailMode::Closed,
            other_transports: OtherTransports::Allow,
            inbound_ports: PortSet::all(),
            outbound_ports: PortSet::parse(&["80"]).unwrap(),
        };
        let check = |mode, own: bool, to: &str, part: Option<&str>| {
            let said = left_out(&scope(mode), !own, to.parse().unwrap());
            assert_eq!(said.is_some(), part.is_some(), "{said:?}");
            assert!(part.is_none_or(|part| said.as_ref().unwrap().contains(part)), "{said:?}");
        };
        check(Mode::Permissive, true, "10.0.0.1:80", None);
        check(Mode::Permissive, true, "10.0.0.1:81", Some("port 81 is not among"));
        check(Mode::Permissive, true, "[fe80::1]:80", Some("link-local: it is not captured"));
        check(Mode::Permissive, false, "10.0.0.1:80", Some("namespace of its own: it is not"));
        check(Mode::Observe, true, "10.0.0.1:80", Some("the scope is observed"));
        check(Mode::Strict, true, "[fe80::1]:80", Some("refuse it (link_local)"));
        check(Mode::Strict, false, "10.0.0.1:80", Some("refuse it (foreign_netns)"));
        check(Mode::Strict, true, "[2001:db8::1]:80", None);
    }
}
