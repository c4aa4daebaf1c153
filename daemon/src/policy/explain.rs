//! Why a decision came out as it did: rule by rule, what matched or the first thing that did not.
//! For people who ask; it gives no [`Permit`](super::Permit), since its peers are supposed ones.

use std::fmt;
use std::sync::Arc;

use super::inbound::{Arrival, SupposedPeer, admits_identity, judge};
use super::outbound::deciding_rule;
use super::rule::any_matches;
use super::{Denial, DenyReason, InboundAction, InboundRule, OutboundAction, OutboundPlan};
use super::{OutboundRule, Policy, UnmarkedTls, plan_outbound};
use crate::spiffe::SpiffeId;
use crate::workload::{ClientAddr, ListenAddr, Mode, OriginalDst};

/// All rules of a direction, held against one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What would be done.
    pub judgement: Judgement,
    /// Each rule in the order of the file.
    pub findings: Vec<RuleFinding>,
}

/// What would be done with a connection, and by which rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Mutual TLS.
    Mtls(Arc<str>),
    /// In the clear.
    Plaintext(Arc<str>),
    /// TLS of the application, passed through.
    Passthrough(Arc<str>),
    /// Refused.
    Denied(Denial),
}

/// One rule, held against one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFinding {
    /// Name of the rule.
    pub rule: Arc<str>,
    /// Its action, as the configuration spells it.
    pub action: &'static str,
    /// Whether it decides nothing.
    pub dry_run: bool,
    /// How it stands to the connection.
    pub standing: Standing,
}

/// How a rule stands to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It decides.
    Decides,
    /// It would decide if it were no dry run.
    WouldDecide,
    /// It matches, but another rule goes before it.
    Behind,
    /// It does not match; this is the first thing that differs.
    Differs(Mismatch),
}

/// The first thing in which a rule and a connection differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// The rule speaks of other workloads.
    Workload,
    /// The rule asks for mTLS, and the program has no identity.
    NoIdentity,
    /// The rule speaks of other ports.
    Port,
    /// The rule speaks of other addresses.
    Address,
    /// The rule speaks of other peers.
    Peer,
    /// The rule speaks of peers with an identity, and this one shows none.
    Anonymous,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Workload => "it speaks of other workloads",
            Self::NoIdentity => "it asks for mTLS and the program has no identity",
            Self::Port => "it speaks of other ports",
            Self::Address => "it speaks of other addresses",
            Self::Peer => "it speaks of other peers",
            Self::Anonymous => "it says nothing of peers that prove no identity",
        })
    }
}

/// Holds all outbound rules against a connection. `peer` is the identity that the server is
/// supposed to have; without it the peers of mTLS rules are taken to match.
pub fn explain_outbound(
    policy: &Policy,
    local: Option<&SpiffeId>,
    mode: Mode,
    dst: OriginalDst,
    peer: Option<&SpiffeId>,
) -> Explanation {
    let judgement = match plan_outbound(policy, local, mode, dst) {
        OutboundPlan::Mtls(expectation) => match peer.map(|peer| expectation.judge(peer)) {
            Some(Err(denial)) => Judgement::Denied(denial),
            Some(Ok(_)) | None => Judgement::Mtls(Arc::clone(expectation.rule())),
        },
        OutboundPlan::Plaintext(permit) => Judgement::Plaintext(Arc::clone(permit.rule())),
        OutboundPlan::Deny(denial) => Judgement::Denied(denial),
    };
    let by_list =
        matches!(&judgement, Judgement::Denied(it) if it.reason() == DenyReason::DenyListed);
    let judged = judged_by_rules(mode, local) && !by_list;
    let decides = judged.then(|| deciding_rule(policy, local, dst, false)).flatten();
    let would = judged.then(|| deciding_rule(policy, local, dst, true)).flatten();
    let finding = |rule: &OutboundRule| RuleFinding {
        rule: Arc::clone(&rule.name),
        action: rule.action.as_str(),
        dry_run: rule.dry_run,
        standing: if decides.is_some_and(|it| std::ptr::eq(it, rule)) {
            Standing::Decides
        } else if rule.dry_run && would.is_some_and(|it| std::ptr::eq(it, rule)) {
            Standing::WouldDecide
        } else {
            differs_outbound(rule, local, dst).map_or(Standing::Behind, Standing::Differs)
        },
    };
    Explanation { judgement, findings: policy.outbound.iter().map(finding).collect() }
}

/// Holds all inbound rules against a connection of a client that is supposed to be `peer`.
pub fn explain_inbound(
    policy: &Policy,
    local: Option<&SpiffeId>,
    mode: Mode,
    listen: ListenAddr,
    client: ClientAddr,
    peer: SupposedPeer<'_>,
) -> Explanation {
    let arrival = Arrival { local, mode, listen, client };
    let decision = judge(policy, arrival, peer);
    let (decides, would) = match &decision {
        Ok(permit) => (Some(Arc::clone(permit.rule())), permit.dry_run().map(Arc::clone)),
        Err(denial) => {
            let by_rule = denial.reason() == DenyReason::RuleRefuses;
            (denial.rule().filter(|_| by_rule).map(Arc::clone), denial.dry_run().map(Arc::clone))
        }
    };
    let judgement = match decision {
        Err(denial) => Judgement::Denied(denial),
        Ok(permit) => {
            let rule = Arc::clone(permit.rule());
            match peer {
                SupposedPeer::Identity(_) => Judgement::Mtls(rule),
                SupposedPeer::Plaintext => Judgement::Plaintext(rule),
                SupposedPeer::Passthrough => Judgement::Passthrough(rule),
            }
        }
    };
    let finding = |rule: &InboundRule| RuleFinding {
        rule: Arc::clone(&rule.name),
        action: rule.action.as_str(),
        dry_run: rule.dry_run,
        standing: if !rule.dry_run && decides.as_ref() == Some(&rule.name) {
            Standing::Decides
        } else if rule.dry_run && would.as_ref() == Some(&rule.name) {
            Standing::WouldDecide
        } else {
            differs_inbound(rule, arrival, peer).map_or(Standing::Behind, Standing::Differs)
        },
    };
    Explanation { judgement, findings: policy.inbound.iter().map(finding).collect() }
}

/// Whether rules are asked at all.
fn judged_by_rules(mode: Mode, local: Option<&SpiffeId>) -> bool {
    match mode {
        Mode::Observe => false,
        Mode::Permissive => true,
        Mode::Strict => local.is_some(),
    }
}

fn differs_outbound(
    rule: &OutboundRule,
    local: Option<&SpiffeId>,
    dst: OriginalDst,
) -> Option<Mismatch> {
    let asks_for_mtls = matches!(rule.action, OutboundAction::Mtls { .. });
    first_true([
        (!rule.speaks_of(local), Mismatch::Workload),
        (asks_for_mtls && local.is_none(), Mismatch::NoIdentity),
        (!rule.ports.contains(dst.port()), Mismatch::Port),
        (!rule.to.contains(dst.ip()), Mismatch::Address),
    ])
}

fn differs_inbound(
    rule: &InboundRule,
    arrival: Arrival<'_>,
    peer: SupposedPeer<'_>,
) -> Option<Mismatch> {
    let peer = match (peer, rule.action) {
        (SupposedPeer::Identity(id), InboundAction::Allow { .. }) => {
            (!admits_identity(rule, id, arrival.local), Mismatch::Peer)
        }
        (SupposedPeer::Identity(id), InboundAction::Deny) => {
            let listed = rule.peers.is_empty() || any_matches(&rule.peers, id);
            (!listed, Mismatch::Peer)
        }
        (_, InboundAction::Deny) => (!rule.peers.is_empty(), Mismatch::Anonymous),
        (SupposedPeer::Plaintext, InboundAction::Allow { plaintext, .. }) => {
            (!plaintext, Mismatch::Anonymous)
        }
        (SupposedPeer::Passthrough, InboundAction::Allow { unmarked_tls, .. }) => {
            (unmarked_tls != Some(UnmarkedTls::Passthrough), Mismatch::Anonymous)
        }
    };
    first_true([
        (!rule.speaks_of(arrival.local), Mismatch::Workload),
        (!rule.ports.contains(arrival.listen.port()), Mismatch::Port),
        (!rule.from.contains(arrival.client.ip()), Mismatch::Address),
        peer,
    ])
}

fn first_true<const N: usize>(checks: [(bool, Mismatch); N]) -> Option<Mismatch> {
    checks.into_iter().find_map(|(differs, mismatch)| differs.then_some(mismatch))
}
