//! What becomes of a connection that a local workload opens. Refusing rules first, then the others
//! in the order of the file; the first that matches decides. Start at [`plan_outbound`].

use std::sync::Arc;

use super::rule::any_matches;
use super::{DEFAULT_RULE, Denial, DenyList, DenyReason, OutboundAction, OutboundRule};
use super::{PeerPattern, Permit, Policy};
use crate::spiffe::SpiffeId;
use crate::workload::{Mode, OriginalDst};

/// What is to be done, as far as it is known before the peer has proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboundPlan {
    /// Mutual TLS with a peer that meets the expectation.
    Mtls(Expectation),
    /// In the clear.
    Plaintext(Permit),
    /// Refused.
    Deny(Denial),
}

/// Which peer an outbound connection must find, and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    rule: Arc<str>,
    epoch: u64,
    peers: Arc<[PeerPattern]>,
    alpn: Arc<[Vec<u8>]>,
    sni: Option<Arc<str>>,
    denied: Arc<DenyList>,
    rehearsal: Option<Rehearsal>,
}

/// The dry-run rule that would have decided.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rehearsal {
    rule: Arc<str>,
    action: OutboundAction,
}

/// Decides on a connection of `local` (`None`: a program without identity) to `dst`.
///
/// In a strict scope a program without identity is refused whatever the rules say, and so is what
/// no rule speaks of. In a permissive scope what no rule speaks of goes out in the clear; a
/// program without identity is judged only by rules that name no workloads and ask for no mTLS.
/// An observed connection is always left alone. A workload on the deny list is refused before any
/// rule is asked.
pub fn plan_outbound(
    policy: &Policy,
    local: Option<&SpiffeId>,
    mode: Mode,
    dst: OriginalDst,
) -> OutboundPlan {
    let default = || Permit::new(&Arc::from(DEFAULT_RULE), policy.epoch);
    match (mode, local) {
        (Mode::Observe, _) => return OutboundPlan::Plaintext(default()),
        // Closed: who the program is cannot be said, so no rule can have meant it.
        (Mode::Strict, None) => {
            return OutboundPlan::Deny(Denial::new(DenyReason::NoIdentity, None, policy.epoch));
        }
        (Mode::Permissive | Mode::Strict, _) => {}
    }
    if let Some(item) = local.and_then(|id| policy.denied.id(id)) {
        return OutboundPlan::Deny(item.denial(policy.epoch));
    }
    let decides = |dry_runs| deciding_rule(policy, local, dst, dry_runs);
    let rehearsal = decides(true)
        .filter(|rule| rule.dry_run)
        .map(|rule| Rehearsal { rule: Arc::clone(&rule.name), action: rule.action.clone() });
    match decides(false) {
        Some(rule) => follow(rule, policy, rehearsal),
        None if mode == Mode::Permissive => plaintext(default(), rehearsal),
        // Closed: strict means that only what a rule names may leave.
        None => refuse(DenyReason::NoRule, None, policy.epoch, rehearsal),
    }
}

impl Expectation {
    /// Name of the rule.
    pub fn rule(&self) -> &Arc<str> {
        &self.rule
    }

    /// ALPN protocols to offer, in order; none if empty.
    pub fn alpn(&self) -> &[Vec<u8>] {
        &self.alpn
    }

    /// Server name to send; none if absent.
    pub fn sni(&self) -> Option<&str> {
        self.sni.as_deref()
    }

    /// The identities that would do.
    pub fn peers(&self) -> &[PeerPattern] {
        &self.peers
    }

    /// Who is denied, whoever would do.
    pub(super) fn denied(&self) -> &DenyList {
        &self.denied
    }

    /// Whether this identity would do. No permission: for checks inside the handshake and for
    /// explanations.
    pub fn admits(&self, peer: &SpiffeId) -> bool {
        any_matches(&self.peers, peer)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The decision on a peer of this identity; that it is proved is up to the caller.
    pub(super) fn judge(&self, peer: &SpiffeId) -> Result<Permit, Denial> {
        if let Some(item) = self.denied.id(peer) {
            return Err(item.denial(self.epoch));
        }
        let admitted = self.admits(peer);
        let otherwise = self.rehearsal.as_ref().filter(|rehearsal| match &rehearsal.action {
            OutboundAction::Mtls { peers, .. } => any_matches(peers, peer) != admitted,
            OutboundAction::Plaintext => true,
            OutboundAction::Refuse => admitted,
        });
        let otherwise = otherwise.map(|rehearsal| Arc::clone(&rehearsal.rule));
        if admitted {
            return Ok(Permit::new(&self.rule, self.epoch).rehearsed(otherwise));
        }
        let denial = Denial::new(DenyReason::PeerNotAllowed, Some(&self.rule), self.epoch);
        Err(denial.rehearsed(otherwise))
    }
}

/// The first matching rule, refusing ones first.
pub(super) fn deciding_rule<'p>(
    policy: &'p Policy,
    local: Option<&SpiffeId>,
    dst: OriginalDst,
    dry_runs: bool,
) -> Option<&'p OutboundRule> {
    let matching = || {
        policy
            .outbound
            .iter()
            .filter(move |rule| (dry_runs || !rule.dry_run) && matches(rule, local, dst))
    };
    matching().find(|rule| rule.action == OutboundAction::Refuse).or_else(|| matching().next())
}

fn matches(rule: &OutboundRule, local: Option<&SpiffeId>, dst: OriginalDst) -> bool {
    // Without an identity there is nothing to authenticate with, so mTLS cannot be meant.
    let possible = local.is_some() || !matches!(rule.action, OutboundAction::Mtls { .. });
    possible
        && rule.speaks_of(local)
        && rule.ports.contains(dst.port())
        && rule.to.contains(dst.ip())
}

fn follow(rule: &OutboundRule, policy: &Policy, rehearsal: Option<Rehearsal>) -> OutboundPlan {
    let epoch = policy.epoch;
    match &rule.action {
        OutboundAction::Mtls { peers, alpn, sni } => OutboundPlan::Mtls(Expectation {
            rule: Arc::clone(&rule.name),
            epoch,
            peers: Arc::clone(peers),
            alpn: Arc::clone(alpn),
            sni: sni.as_ref().map(Arc::clone),
            denied: Arc::clone(&policy.denied),
            rehearsal,
        }),
        OutboundAction::Plaintext => plaintext(Permit::new(&rule.name, epoch), rehearsal),
        OutboundAction::Refuse => {
            refuse(DenyReason::RuleRefuses, Some(&rule.name), epoch, rehearsal)
        }
    }
}

fn plaintext(permit: Permit, rehearsal: Option<Rehearsal>) -> OutboundPlan {
    let otherwise = rehearsal.filter(|it| it.action != OutboundAction::Plaintext);
    OutboundPlan::Plaintext(permit.rehearsed(otherwise.map(|it| it.rule)))
}

fn refuse(
    reason: DenyReason,
    rule: Option<&Arc<str>>,
    epoch: u64,
    rehearsal: Option<Rehearsal>,
) -> OutboundPlan {
    let otherwise = rehearsal.filter(|it| it.action != OutboundAction::Refuse);
    OutboundPlan::Deny(Denial::new(reason, rule, epoch).rehearsed(otherwise.map(|it| it.rule)))
}
