//! Who is measured, and where its two hops are.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use harness::{Lab, Server, uid};

use crate::stock::Papers;
use crate::{envoy, stock};

/// Who carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Peer {
    /// Nobody: the yardstick.
    Plain,
    /// This project, as shipped.
    Tacit,
    /// Envoy, TCP proxy at both ends.
    Envoy,
    /// `HAProxy` in TCP mode at both ends.
    Haproxy,
    /// nginx's stream module at both ends.
    Nginx,
    /// stunnel at both ends.
    Stunnel,
}

/// A relay at each end of the wire.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// Where its client side listens on node a.
    pub(crate) address: String,
    /// The cgroups of the client's hop and of the server's.
    pub(crate) hops: [PathBuf; 2],
    /// What is running.
    _relays: [Server; 2],
}

/// Where one relay listens, where it dials, and how wide it may run.
#[derive(Debug, Clone)]
pub(crate) struct Hop<'a> {
    /// Whether it is the client's side: it speaks TLS to where it dials.
    pub(crate) near: bool,
    pub(crate) listen: String,
    pub(crate) dial: String,
    pub(crate) papers: &'a Papers,
    /// Threads.
    pub(crate) width: usize,
}

impl Peer {
    /// As tables show it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain TCP",
            Self::Tacit => "Tacit",
            Self::Envoy => "Envoy",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Stunnel => "stunnel",
        }
    }

    /// Whether it claims that nobody on the wire can read along.
    pub(crate) fn claims_encryption(self) -> bool {
        self != Self::Plain
    }

    /// How its version is asked for, and the word with which the answer begins; none for what has
    /// none of its own.
    pub(crate) fn version_question(self) -> Result<Option<(PathBuf, &'static str, &'static str)>> {
        Ok(match self {
            Self::Plain | Self::Tacit => None,
            Self::Envoy => Some((envoy::binary()?, "--version", "version:")),
            Self::Haproxy => Some(("haproxy".into(), "-v", "version")),
            Self::Nginx => Some(("nginx".into(), "-v", "nginx/")),
            Self::Stunnel => Some(("stunnel4".into(), "-version", "stunnel ")),
        })
    }

    /// Starts it at both ends of a lab, in front of the server on port `app` of node b. None for
    /// those that need no relay of their own.
    pub(crate) fn tunnel(
        self,
        lab: &Lab,
        papers: &Papers,
        app: u16,
        width: usize,
    ) -> Result<Option<Tunnel>> {
        let (near_port, far_port) = match self {
            Self::Plain | Self::Tacit => return Ok(None),
            Self::Envoy => (7101, 7201),
            Self::Haproxy => (7102, 7202),
            Self::Nginx => (7103, 7203),
            Self::Stunnel => (7104, 7204),
        };
        let (address, wire) =
            (format!("127.0.0.1:{near_port}"), format!("{}:{far_port}", lab.b.ip));
        let hop = |near: bool, listen: &str, dial: &str| {
            let (listen, dial) = (listen.to_owned(), dial.to_owned());
            Hop { near, listen, dial, papers, width }
        };
        let corner = self.name();
        let (a, b) = (lab.a.corner(corner, uid::OTHER)?, lab.b.corner(corner, uid::OTHER)?);
        let start = match self {
            Self::Haproxy => stock::haproxy,
            Self::Nginx => stock::nginx,
            Self::Stunnel => stock::stunnel,
            Self::Envoy | Self::Plain | Self::Tacit => envoy::start,
        };
        let far = start(&b, &hop(false, &wire, &format!("127.0.0.1:{app}")), far_port)?;
        let near = start(&a, &hop(true, &address, &wire), near_port)?;
        let hops = [a.cgroup().to_owned(), b.cgroup().to_owned()];
        Ok(Some(Tunnel { address, hops, _relays: [near, far] }))
    }
}
