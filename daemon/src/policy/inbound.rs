//! Who may connect to a local workload. Denying rules first; then any allowing rule that speaks of
//! the workload, port and client will do. A client without a proved identity is admitted only by
//! words about such clients, never by a list of identities; one of another trust domain only by a rule
//! that names it, never by one for any identity. Start at [`plan_inbound`], which says
//! how to listen, and [`super::admit_inbound`], which decides.

use std::sync::Arc;

use super::UnmarkedTls;
use super::rule::any_matches;
use super::{DEFAULT_RULE, Denial, DenyReason, InboundAction, InboundRule, Permit, Policy};
use crate::spiffe::SpiffeId;
use crate::workload::{ClientAddr, ListenAddr, Mode};

/// How to receive a client, before it has said who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboundPlan {
    /// What to do with TLS that bears no mark of the mesh.
    pub unmarked_tls: UnmarkedTls,
    /// Whether a client in the clear could be admitted at all.
    pub plaintext: bool,
}

/// A connection as the rules see it; what the client shows is apart from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival<'a> {
    pub(super) local: Option<&'a SpiffeId>,
    pub(super) mode: Mode,
    pub(super) listen: ListenAddr,
    pub(super) client: ClientAddr,
}

/// A client as one may suppose it to be. [`Peer`](super::Peer) is the one that has proved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SupposedPeer<'a> {
    /// Has this identity.
    Identity(&'a SpiffeId),
    /// Speaks in the clear.
    Plaintext,
    /// Speaks TLS with the application itself.
    Passthrough,
}

/// The rule that decides, or none; and, if it denies, why.
type Ruling<'p> = Result<Option<&'p InboundRule>, (DenyReason, Option<&'p InboundRule>)>;

/// How to receive a client at the listener of `local` (`None`: a program without identity).
///
/// The first allowing rule for this workload, port and client address that says what to do with
/// unmarked TLS decides that. Where none says so it is terminated; but in a permissive scope,
/// where no rule speaks of the workload and port at all, it is passed through, since the
/// application may well speak TLS itself.
pub fn plan_inbound(
    policy: &Policy,
    local: Option<&SpiffeId>,
    mode: Mode,
    listen: ListenAddr,
    client: ClientAddr,
) -> InboundPlan {
    let untouched = InboundPlan { unmarked_tls: UnmarkedTls::Passthrough, plaintext: true };
    match (mode, local) {
        (Mode::Observe, _) => return untouched,
        (Mode::Strict, None) => {
            return InboundPlan { unmarked_tls: UnmarkedTls::Refuse, plaintext: false };
        }
        (Mode::Permissive | Mode::Strict, _) => {}
    }
    let arrival = Arrival { local, mode, listen, client };
    let mut allowing = speaking(policy, arrival, false).filter(|rule| !rule.denies()).peekable();
    if mode == Mode::Permissive && allowing.peek().is_none() {
        return untouched;
    }
    let mut plan = InboundPlan { unmarked_tls: UnmarkedTls::Terminate, plaintext: false };
    let mut said = None;
    for rule in allowing.filter(|rule| rule.from.contains(client.ip())) {
        if let InboundAction::Allow { plaintext, unmarked_tls } = rule.action {
            plan.plaintext |= plaintext;
            said = said.or(unmarked_tls);
        }
    }
    plan.unmarked_tls = match said.unwrap_or(UnmarkedTls::Terminate) {
        // Closed: without an SVID there is nothing to terminate with.
        UnmarkedTls::Terminate if local.is_none() => UnmarkedTls::Refuse,
        said => said,
    };
    plan
}

/// The decision on a client; that it is what `peer` says is up to the caller.
pub(super) fn judge(
    policy: &Policy,
    arrival: Arrival<'_>,
    peer: SupposedPeer<'_>,
) -> Result<Permit, Denial> {
    match (arrival.mode, arrival.local) {
        (Mode::Observe, _) => return Ok(Permit::new(&Arc::from(DEFAULT_RULE), policy.epoch)),
        (Mode::Strict, None) => {
            return Err(Denial::new(DenyReason::NoIdentity, None, policy.epoch));
        }
        (Mode::Permissive | Mode::Strict, _) => {}
    }
    let supposed = match peer {
        SupposedPeer::Identity(id) => Some(id),
        SupposedPeer::Plaintext | SupposedPeer::Passthrough => None,
    };
    let mut ends = arrival.local.into_iter().chain(supposed);
    if let Some(item) = ends.find_map(|id| policy.denied.id(id)) {
        return Err(item.denial(policy.epoch));
    }
    let ruling = rule_on(policy, arrival, peer, false);
    let rehearsed = rule_on(policy, arrival, peer, true);
    let otherwise = match rehearsed {
        Ok(rule) | Err((_, rule)) if rehearsed.is_ok() != ruling.is_ok() => rule,
        _ => None,
    };
    let otherwise = otherwise.filter(|rule| rule.dry_run).map(|rule| Arc::clone(&rule.name));
    match ruling {
        Ok(rule) => {
            let name = rule.map_or_else(|| Arc::from(DEFAULT_RULE), |rule| Arc::clone(&rule.name));
            Ok(Permit::new(&name, policy.epoch).rehearsed(otherwise))
        }
        Err((reason, rule)) => {
            let denial = Denial::new(reason, rule.map(|rule| &rule.name), policy.epoch);
            Err(denial.rehearsed(otherwise))
        }
    }
}

fn rule_on<'p>(
    policy: &'p Policy,
    arrival: Arrival<'_>,
    peer: SupposedPeer<'_>,
    dry_runs: bool,
) -> Ruling<'p> {
    let speaking = || speaking(policy, arrival, dry_runs);
    if let Some(rule) = speaking().find(|rule| refuses(rule, arrival.client, peer)) {
        return Err((DenyReason::RuleRefuses, Some(rule)));
    }
    let mut allowing = speaking().filter(|rule| !rule.denies());
    let Some(first) = allowing.clone().next() else {
        // Closed in strict: only what a rule names may enter.
        let permissive = arrival.mode == Mode::Permissive;
        return if permissive { Ok(None) } else { Err((DenyReason::NoRule, None)) };
    };
    let from = |rule: &&InboundRule| rule.from.contains(arrival.client.ip());
    match peer {
        SupposedPeer::Identity(id) => allowing
            .find(|rule| from(rule) && admits_identity(rule, id, arrival.local))
            .ok_or((DenyReason::PeerNotAllowed, Some(first))),
        SupposedPeer::Plaintext => allowing
            .find(|rule| from(rule) && admits_plaintext(rule))
            .ok_or((DenyReason::PlaintextRefused, Some(first))),
        // The first word on unmarked TLS counts, as it does in the plan.
        SupposedPeer::Passthrough => {
            match allowing.find(|rule| from(rule) && says_tls(rule).is_some()) {
                Some(rule) if says_tls(rule) == Some(UnmarkedTls::Passthrough) => Ok(rule),
                said => Err((DenyReason::UnmarkedTlsRefused, said.or(Some(first)))),
            }
        }
    }
    .map(Some)
}

/// The rules about this workload and port, in order.
fn speaking<'p>(
    policy: &'p Policy,
    arrival: Arrival<'_>,
    dry_runs: bool,
) -> impl Iterator<Item = &'p InboundRule> + Clone {
    policy.inbound.iter().filter(move |rule| {
        (dry_runs || !rule.dry_run)
            && rule.speaks_of(arrival.local)
            && rule.ports.contains(arrival.listen.port())
    })
}

fn refuses(rule: &InboundRule, client: ClientAddr, peer: SupposedPeer<'_>) -> bool {
    let about_peer = match peer {
        SupposedPeer::Identity(id) => rule.peers.is_empty() || any_matches(&rule.peers, id),
        // A list of identities says nothing of those who show none.
        SupposedPeer::Plaintext | SupposedPeer::Passthrough => rule.peers.is_empty(),
    };
    rule.denies() && rule.from.contains(client.ip()) && about_peer
}

/// Whether the rule's list of identities holds this one. An empty list is any of the workload's own
/// trust domain. Closed: whoever federates for one connection has not let in everybody else.
pub(super) fn admits_identity(rule: &InboundRule, id: &SpiffeId, local: Option<&SpiffeId>) -> bool {
    let is_own = local.is_none_or(|local| local.trust_domain() == id.trust_domain());
    any_matches(&rule.peers, id) || (rule.peers.is_empty() && is_own)
}

fn admits_plaintext(rule: &InboundRule) -> bool {
    matches!(rule.action, InboundAction::Allow { plaintext: true, .. })
}

fn says_tls(rule: &InboundRule) -> Option<UnmarkedTls> {
    match rule.action {
        InboundAction::Allow { unmarked_tls, .. } => unmarked_tls,
        InboundAction::Deny => None,
    }
}
