//! Rules as text, as the reference reads them, and what they become for the real evaluator.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::policy::*;
use crate::spiffe::{SpiffeId, parse_id};
use crate::workload::{ClientAddr, ListenAddr, OriginalDst, PortSet};

/// A rule of either direction; `action` is a word of the configuration.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) workloads: Vec<&'static str>,
    /// Destinations or clients; `None` is any.
    pub(super) networks: Option<Vec<&'static str>>,
    pub(super) port: Option<u16>,
    pub(super) action: &'static str,
    pub(super) peers: Vec<&'static str>,
    pub(super) unmarked: Option<UnmarkedTls>,
    pub(super) plaintext: bool,
    pub(super) dry_run: bool,
}

impl Spec {
    pub(super) fn new(action: &'static str) -> Self {
        Self {
            workloads: Vec::new(),
            networks: None,
            port: None,
            action,
            peers: Vec::new(),
            unmarked: None,
            plaintext: false,
            dry_run: false,
        }
    }

    pub(super) fn peers(mut self, peers: &[&'static str]) -> Self {
        self.peers = peers.to_vec();
        self
    }

    pub(super) fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    pub(super) fn networks(mut self, networks: &[&'static str]) -> Self {
        self.networks = Some(networks.to_vec());
        self
    }

    pub(super) fn workloads(mut self, workloads: &[&'static str]) -> Self {
        self.workloads = workloads.to_vec();
        self
    }

    pub(super) fn dry(mut self) -> Self {
        self.dry_run = true;
        self
    }

    fn outbound(&self, name: String) -> OutboundRule {
        OutboundRule {
            name: name.into(),
            workloads: patterns(&self.workloads),
            to: self.addresses(),
            ports: self.ports(),
            action: match self.action {
                "mtls" => OutboundAction::Mtls {
                    peers: patterns(&self.peers).into(),
                    alpn: Arc::from([]),
                    sni: None,
                },
                "plaintext" => OutboundAction::Plaintext,
                _ => OutboundAction::Refuse,
            },
            dry_run: self.dry_run,
        }
    }

    fn inbound(&self, name: String) -> InboundRule {
        let (plaintext, unmarked_tls) = (self.plaintext, self.unmarked);
        InboundRule {
            name: name.into(),
            workloads: patterns(&self.workloads),
            ports: self.ports(),
            from: self.addresses(),
            peers: patterns(&self.peers),
            action: match self.action {
                "allow" => InboundAction::Allow { plaintext, unmarked_tls },
                _ => InboundAction::Deny,
            },
            dry_run: self.dry_run,
        }
    }

    fn ports(&self) -> PortSet {
        PortSet::parse(&self.port.iter().map(u16::to_string).collect::<Vec<_>>()).unwrap()
    }

    fn addresses(&self) -> Networks {
        match &self.networks {
            None => Networks::Any,
            Some(networks) => Networks::of(networks.iter().map(|network| network.parse().unwrap())),
        }
    }
}

fn patterns(texts: &[&str]) -> Vec<PeerPattern> {
    texts.iter().map(|text| PeerPattern::parse(text).unwrap()).collect()
}

/// Rules are named `r0`, `r1` and so on.
pub(super) fn outbound(specs: &[Spec]) -> Policy {
    let rules = specs.iter().enumerate().map(|(n, spec)| spec.outbound(format!("r{n}")));
    Policy { epoch: 7, outbound: rules.collect(), ..Policy::default() }
}

/// Rules are named `r0`, `r1` and so on.
pub(super) fn inbound(specs: &[Spec]) -> Policy {
    let rules = specs.iter().enumerate().map(|(n, spec)| spec.inbound(format!("r{n}")));
    Policy { epoch: 7, inbound: rules.collect(), ..Policy::default() }
}

pub(super) fn id(text: &str) -> SpiffeId {
    parse_id(text).unwrap()
}

pub(super) fn socket(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port)
}

pub(super) fn dst(ip: &str, port: u16) -> OriginalDst {
    OriginalDst::new(socket(ip, port))
}

pub(super) fn listen(port: u16) -> ListenAddr {
    ListenAddr::new(socket("10.9.9.9", port))
}

pub(super) fn client(ip: &str) -> ClientAddr {
    ClientAddr::new(socket(ip, 40000))
}
