//! Where it is measured: a lab without daemons for plain TCP and the stock relays, a lab with a
//! daemon on each node for Tacit. Both are two namespaces joined by a veth, and run side by side.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use harness::{Group, Lab, Node, Pod, Rules, Server, load, uid};

use crate::cpu::width;
use crate::peer::{Peer, Tunnel};
use crate::stock::Papers;

/// Where the server listens in both labs.
pub(crate) const PORT: u16 = 7000;

/// The rules of the lab with daemons; these say what they would say in production.
pub(crate) fn rules() -> Rules {
    Rules::client_calls_server().log("info")
}

/// Both labs with everything that runs in them.
#[derive(Debug)]
pub(crate) struct Ground {
    // Relays and servers end before the labs that they run in.
    tunnels: BTreeMap<Peer, Tunnel>,
    _servers: [Server; 2],
    /// Without daemons.
    pub(crate) bare: Lab,
    /// With a daemon on each node.
    pub(crate) meshed: Lab,
}

impl Ground {
    /// Starts the labs, the servers, and these peers.
    pub(crate) fn start(peers: &[Peer]) -> Result<Self> {
        let meshed = Lab::start(&rules())?;
        let bare = Lab::without_daemons()?;
        for node in [&bare.a, &bare.b, &meshed.a, &meshed.b] {
            never_pace(node)?;
        }
        let servers = [serve(&meshed.server())?, serve(&outside(&bare.b))?];
        let papers = Papers::issue(&meshed)?;
        let mut tunnels = BTreeMap::new();
        for peer in peers {
            let tunnel = peer
                .tunnel(&bare, &papers, PORT, width())
                .with_context(|| format!("cannot start {}", peer.name()))?;
            tunnels.extend(tunnel.map(|tunnel| (*peer, tunnel)));
        }
        Ok(Self { tunnels, _servers: servers, bare, meshed })
    }

    /// The node on which a peer's client is.
    pub(crate) fn near(&self, peer: Peer) -> &Node {
        if peer == Peer::Tacit { &self.meshed.a } else { &self.bare.a }
    }

    /// Where a client of a peer runs.
    pub(crate) fn client(&self, peer: Peer) -> Pod {
        if peer == Peer::Tacit { self.meshed.client() } else { outside(&self.bare.a) }
    }

    /// Where it connects to.
    pub(crate) fn address(&self, peer: Peer) -> String {
        match self.tunnels.get(&peer) {
            Some(tunnel) => tunnel.address.clone(),
            None => format!("{}:{PORT}", self.bare.b.ip),
        }
    }

    /// The cgroups of a peer's hops: the client's, then the server's. None for plain TCP.
    pub(crate) fn hops(&self, peer: Peer) -> Option<[PathBuf; 2]> {
        if peer == Peer::Tacit {
            let lab = &self.meshed;
            return Some([&lab.a, &lab.b].map(|node| node.daemon_pod().cgroup().to_owned()));
        }
        self.tunnels.get(&peer).map(|tunnel| tunnel.hops.clone())
    }

    /// Runs a load over a peer: its verb, then its options. Gives what it printed.
    pub(crate) fn load(&self, peer: Peer, verb: &str, options: &[&str]) -> Result<String> {
        let address = self.address(peer);
        let words = [&[verb, &address], options].concat();
        self.client(peer)
            .must(load()?, &words)
            .with_context(|| format!("{} over {}", words.join(" "), peer.name()))
    }
}

/// The server that every load talks to.
pub(crate) fn serve(pod: &Pod) -> Result<Server> {
    pod.serve(load()?, &["serve", &format!("0.0.0.0:{PORT}")], PORT)
}

/// A place in no scope.
pub(crate) fn outside(node: &Node) -> Pod {
    node.pod(Group::Outside, uid::STRANGER)
}

/// Takes Reno for congestion control, whatever the host prefers: every kernel has it, every
/// namespace may choose it, and it paces nothing by a clock, for which a veth gives no reason.
pub(crate) fn never_pace(node: &Node) -> Result<()> {
    let set = ["-qw", "net.ipv4.tcp_congestion_control=reno"];
    node.in_netns("sysctl", &set)?.ok()?;
    Ok(())
}
