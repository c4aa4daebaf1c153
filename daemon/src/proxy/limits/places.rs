//! Places for connections, of the node and of each workload; and, for those who are not admitted yet,
//! what the other files of this folder grant.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::newcomers::{Newcomer, NewcomerLimits, Newcomers};
use super::turns::{TurnLimits, Turns};
use crate::audit::{Direction, Outcome};
use crate::identity::WorkloadIdentity;
use crate::policy::DenyReason;
use crate::proxy::state::ProxySettings;
use crate::spiffe::SpiffeId;
use crate::workload::{CgroupId, ProcessClaim};

/// How long a handshake may hold its turn. Chosen: ten times what one takes over a slow line.
const LEASE: Duration = Duration::from_secs(1);
/// Of a workload's places, what clients may have that have not proved who they are: half.
const NEWCOMER_SHARE: usize = 2;

/// Whose connections are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::proxy) enum Owner {
    /// Those of one identity.
    Identity(SpiffeId),
    /// Those of one user in one cgroup that have none.
    Process(u32, CgroupId),
}

/// Which addresses at the other end count as one: an IPv4 address, or an IPv6 network of 64 bits,
/// which one host has to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::proxy) struct Remote(IpAddr);

/// How many connections there may be at a time.
#[derive(Debug)]
pub(in crate::proxy) struct Limits {
    node: Arc<Semaphore>,
    /// Each direction has its own: strangers who dial in do not hold up those who dial out.
    handshakes_in: Arc<Turns<Owner, Remote>>,
    handshakes_out: Arc<Turns<Owner, Remote>>,
    newcomers: Arc<Newcomers<Owner, Remote>>,
    each: usize,
    workloads: Mutex<HashMap<Owner, Arc<Semaphore>>>,
}

/// A place within a limit, for as long as the connection lives.
pub(in crate::proxy) type Place = OwnedSemaphorePermit;

impl Owner {
    /// Whose the connections of this process are.
    pub(in crate::proxy) fn of(identity: Option<&WorkloadIdentity>, claim: &ProcessClaim) -> Self {
        identity.map_or(Self::Process(claim.uid, claim.cgroup), |identity| {
            Self::Identity(identity.entry.spiffe_id.clone())
        })
    }
}

impl From<IpAddr> for Remote {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & (u128::MAX << 64);
                Self(IpAddr::V6(Ipv6Addr::from(network)))
            }
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

impl Limits {
    pub(in crate::proxy) fn new(settings: &ProxySettings) -> Self {
        let each = settings.workload_limit.min(Semaphore::MAX_PERMITS);
        let turns = TurnLimits {
            at_once: settings.handshake_limit,
            per_second: settings.handshake_rate,
            per_second_each: settings.handshake_rate_each,
        };
        let newcomers = NewcomerLimits {
            all: settings.newcomer_limit,
            each: each.div_ceil(NEWCOMER_SHARE),
            from_one: settings.newcomer_limit_each,
        };
        Self {
            node: Arc::new(Semaphore::new(settings.node_limit.min(Semaphore::MAX_PERMITS))),
            handshakes_in: Turns::new(turns),
            handshakes_out: Turns::new(turns),
            newcomers: Newcomers::new(newcomers),
            each,
            workloads: Mutex::default(),
        }
    }

    /// Runs a handshake when it is its turn; none if both do not fit into `timeout`. While its peer
    /// keeps it waiting, others have the turn.
    ///
    /// # Cancel safety
    /// As cancel safe as the handshake.
    pub(in crate::proxy) async fn shake<T>(
        &self,
        direction: Direction,
        (owner, remote): (&Owner, Remote),
        (socket, timeout): (&TcpStream, Duration),
        handshake: impl Future<Output = T>,
    ) -> Option<T> {
        let turns = match direction {
            Direction::Inbound => &self.handshakes_in,
            Direction::Outbound => &self.handshakes_out,
        };
        let mut handshake = pin!(handshake);
        let in_turn = async {
            let mut is_new = true;
            loop {
                let turn = turns.take(owner, &remote, is_new).await;
                tokio::select! {
                    biased;
                    done = &mut handshake => return done,
                    () = tokio::time::sleep(LEASE) => {}
                }
                drop(turn);
                is_new = false;
                // An error is for the handshake to find.
                let _goes_on = socket.readable().await.is_ok();
            }
        };
        tokio::time::timeout(timeout, in_turn).await.ok()
    }

    /// A place for a client that has not proved who it is.
    ///
    /// # Errors
    /// There is none.
    pub(in crate::proxy) fn newcomer(
        &self,
        owner: &Owner,
        remote: Remote,
    ) -> Result<Newcomer<Owner, Remote>, Outcome> {
        let newcomer = self.newcomers.enter(owner.clone(), remote);
        newcomer.ok_or(Outcome::Denied(DenyReason::UnprovedLimit))
    }

    /// A place among the connections of the node.
    pub(in crate::proxy) fn on_node(&self) -> Result<Place, Outcome> {
        let place = Arc::clone(&self.node).try_acquire_owned();
        place.map_err(|_full| Outcome::Denied(DenyReason::NodeLimit))
    }

    /// A place among the connections of a workload.
    pub(in crate::proxy) fn of_workload(&self, owner: &Owner) -> Result<Place, Outcome> {
        let mut workloads = self.workloads.lock().unwrap_or_else(PoisonError::into_inner);
        let places =
            workloads.entry(owner.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.each)));
        let place = Arc::clone(places).try_acquire_owned();
        place.map_err(|_full| Outcome::Denied(DenyReason::WorkloadLimit))
    }

    /// Lets handshakes in as time passes. Never ends.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(in crate::proxy) async fn pass_time(&self) {
        tokio::join!(self.handshakes_in.pass_time(), self.handshakes_out.pass_time());
    }

    /// Forgets the workloads without connections.
    pub(in crate::proxy) fn sweep(&self) {
        self.handshakes_in.sweep();
        self.handshakes_out.sweep();
        let mut workloads = self.workloads.lock().unwrap_or_else(PoisonError::into_inner);
        workloads.retain(|_, places| places.available_permits() < self.each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_remote_with_all_its_addresses() {
        let remote = |text: &str| Remote::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(remote("2001:db8::1"), remote("2001:db8::ffff:1"));
        assert_ne!(remote("2001:db8::1"), remote("2001:db8:0:1::1"));
        assert_eq!(remote("::ffff:192.0.2.1"), remote("192.0.2.1"));
        assert_ne!(remote("192.0.2.1"), remote("192.0.2.2"));
    }
}
