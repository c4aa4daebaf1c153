//! Decisions on peers that have proved who they are. The only way to a [`Permit`] for a peer with
//! an identity is a [`PeerIdentity`], and only a finished verification makes one.
//! The rechecks ask the same questions again, for connections that outlive a change of policy.

use super::inbound::{Arrival, SupposedPeer, judge};
use super::{Denial, DenyReason, Expectation, OutboundPlan, Permit, Policy, plan_outbound};
use crate::spiffe::{PeerIdentity, SpiffeId};
use crate::workload::{ClientAddr, ListenAddr, Mode, OriginalDst};

/// A client as it has shown itself.
#[derive(Debug, Clone, Copy)]
pub enum Peer<'a> {
    /// Proved this identity in the handshake.
    Verified(&'a PeerIdentity),
    /// Speaks in the clear.
    Plaintext,
    /// Speaks TLS with the application itself.
    Passthrough,
}

/// What an outbound connection was admitted by.
#[derive(Debug, Clone, Copy)]
pub struct LiveOutbound<'a> {
    /// The local workload.
    pub local: Option<&'a SpiffeId>,
    /// Mode of its scope now.
    pub mode: Mode,
    /// Where it connected to.
    pub dst: OriginalDst,
    /// The peer that was verified; `None` for a connection in the clear.
    pub peer: Option<&'a PeerIdentity>,
}

/// What an inbound connection was admitted by.
#[derive(Debug, Clone, Copy)]
pub struct LiveInbound<'a> {
    /// The local workload.
    pub local: Option<&'a SpiffeId>,
    /// Mode of its scope now.
    pub mode: Mode,
    /// The address that the client connected to.
    pub listen: ListenAddr,
    /// The client's address.
    pub client: ClientAddr,
    /// The client as it showed itself.
    pub peer: Peer<'a>,
}

impl Expectation {
    /// The decision on the peer that the handshake has found.
    pub fn confirm(&self, peer: &PeerIdentity) -> Result<Permit, Denial> {
        match self.denied().peer(peer) {
            Some(item) => Err(item.denial(self.epoch())),
            None => self.judge(peer.id()),
        }
    }
}

/// Decides on a client of the workload `local` (`None`: a program without identity).
///
/// Who is on the deny list is refused first; then a denying rule refuses whoever it speaks of, before any rule admits. Where no allowing rule
/// speaks of the workload and port, strict refuses and permissive admits under the rule name
/// [`super::DEFAULT_RULE`]. In a strict scope a program without identity receives nobody.
pub fn admit_inbound(
    policy: &Policy,
    local: Option<&SpiffeId>,
    mode: Mode,
    listen: ListenAddr,
    client: ClientAddr,
    peer: Peer<'_>,
) -> Result<Permit, Denial> {
    if let Peer::Verified(identity) = peer
        && mode != Mode::Observe
        && let Some(item) = policy.denied.peer(identity)
    {
        return Err(item.denial(policy.epoch));
    }
    let supposed = match peer {
        Peer::Verified(identity) => SupposedPeer::Identity(identity.id()),
        Peer::Plaintext => SupposedPeer::Plaintext,
        Peer::Passthrough => SupposedPeer::Passthrough,
    };
    judge(policy, Arrival { local, mode, listen, client }, supposed)
}

/// Whether a live outbound connection would be admitted under this policy. One that runs over
/// mTLS also stands where plaintext would do.
pub fn recheck_outbound(policy: &Policy, live: &LiveOutbound<'_>) -> Result<Permit, Denial> {
    match (plan_outbound(policy, live.local, live.mode, live.dst), live.peer) {
        (OutboundPlan::Mtls(expectation), Some(peer)) => expectation.confirm(peer),
        (OutboundPlan::Mtls(expectation), None) => {
            let (rule, epoch) = (expectation.rule(), expectation.epoch());
            Err(Denial::new(DenyReason::PlaintextRefused, Some(rule), epoch))
        }
        (OutboundPlan::Plaintext(permit), _) => Ok(permit),
        (OutboundPlan::Deny(denial), _) => Err(denial),
    }
}

/// Whether a live inbound connection would be admitted under this policy.
pub fn recheck_inbound(policy: &Policy, live: &LiveInbound<'_>) -> Result<Permit, Denial> {
    admit_inbound(policy, live.local, live.mode, live.listen, live.client, live.peer)
}
