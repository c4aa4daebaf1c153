//! Rules and policies, in few words.

use crate::policy::{
    InboundAction, InboundRule, Networks, OutboundAction, OutboundRule, PeerPattern, Policy,
    UnmarkedTls,
};
use crate::workload::PortSet;

pub(super) fn policy(
    outbound: impl IntoIterator<Item = OutboundRule>,
    inbound: impl IntoIterator<Item = InboundRule>,
) -> Policy {
    Policy {
        epoch: 1,
        outbound: outbound.into_iter().collect(),
        inbound: inbound.into_iter().collect(),
        ..Policy::default()
    }
}

pub(super) fn outbound(action: OutboundAction) -> OutboundRule {
    OutboundRule {
        name: "out".into(),
        workloads: vec![],
        to: Networks::default(),
        ports: PortSet::all(),
        action,
        dry_run: false,
    }
}

pub(super) fn to_peer(id: &str) -> OutboundRule {
    let peers = [PeerPattern::parse(id).unwrap()].into();
    outbound(OutboundAction::Mtls { peers, alpn: [].into(), sni: None })
}

pub(super) fn inbound(peers: &[&str], action: InboundAction) -> InboundRule {
    InboundRule {
        name: "in".into(),
        workloads: vec![],
        ports: PortSet::all(),
        from: Networks::default(),
        peers: peers.iter().map(|id| PeerPattern::parse(id).unwrap()).collect(),
        action,
        dry_run: false,
    }
}

pub(super) fn allow(peers: &[&str]) -> InboundRule {
    inbound(peers, InboundAction::Allow { plaintext: false, unmarked_tls: None })
}

pub(super) fn allow_plaintext(peers: &[&str]) -> InboundRule {
    inbound(peers, InboundAction::Allow { plaintext: true, unmarked_tls: None })
}

pub(super) fn unmarked(peers: &[&str], what: UnmarkedTls) -> InboundRule {
    inbound(peers, InboundAction::Allow { plaintext: false, unmarked_tls: Some(what) })
}
