//! What all connections of the proxy share.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::FlowSource;
use super::limits::Limits;
use super::live::{Life, Live, Modes, ScopeOf, Standing};
use super::local::Local;
use super::relay::Inbox;
use super::tls::Tls;
use crate::audit::{Audit, CutReason, Outcome};
use crate::identity::Identities;
use crate::metrics::Metrics;
use crate::policy::{DenyList, Policy};
use crate::spiffe::BundleSet;

/// How long the proxy waits, and how much it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySettings {
    /// For a connection to the peer or to the local listener.
    pub connect_timeout: Duration,
    /// For a TLS handshake, from its first byte.
    pub handshake_timeout: Duration,
    /// For the first byte of a client, which tells TLS from plaintext.
    pub first_byte_timeout: Duration,
    /// After which a connection that carries nothing is ended, at the latest after twice this;
    /// never if absent.
    pub idle_timeout: Option<Duration>,
    /// How long sent data may stay unacknowledged (`TCP_USER_TIMEOUT`); the kernel's own if absent.
    pub user_timeout: Option<Duration>,
    /// After which a silent peer is probed.
    pub keepalive: Duration,
    /// How long connections may go on after the daemon was asked to stop.
    pub drain_timeout: Duration,
    /// Connections of the node at a time.
    pub node_limit: usize,
    /// Connections of one workload at a time.
    pub workload_limit: usize,
    /// Handshakes at a time; further ones wait for their turn.
    pub handshake_limit: usize,
    /// Handshakes that begin in a second; further ones wait.
    pub handshake_rate: u32,
    /// The same, of one workload.
    pub handshake_rate_each: u32,
    /// Clients at a time that have not proved who they are.
    pub newcomer_limit: usize,
    /// The same, of one client address at one workload.
    pub newcomer_limit_each: usize,
    /// What one direction of one connection may buffer, bytes.
    pub buffer_bytes: usize,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(3),
            idle_timeout: Some(Duration::from_hours(2)),
            user_timeout: Some(Duration::from_mins(1)),
            keepalive: Duration::from_mins(3),
            drain_timeout: Duration::from_secs(30),
            node_limit: 50_000,
            workload_limit: 10_000,
            handshake_limit: 1_000,
            handshake_rate: 5_000,
            handshake_rate_each: 2_500,
            newcomer_limit: 10_000,
            newcomer_limit_each: 1_000,
            buffer_bytes: 64 << 10,
        }
    }
}

/// What a proxy is made of.
#[expect(missing_debug_implementations, reason = "holds a function, and is taken apart at once")]
pub struct ProxyParts {
    /// Says who a local process is.
    pub identities: Identities,
    /// The authorities of every trust domain, as they are now.
    pub bundles: watch::Receiver<Arc<BundleSet>>,
    /// The rules, as they are now.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// The modes of scopes, as they are now.
    pub modes: watch::Receiver<Arc<Modes>>,
    /// Says which scope a process is in now.
    pub scope_of: ScopeOf,
    /// Whether entries, rules and modes belong together: not while another configuration is put into
    /// force.
    pub settled: watch::Receiver<bool>,
    /// Where connections are recorded.
    pub audit: Audit,
    /// Where they are counted.
    pub metrics: Arc<Metrics>,
    /// What the kernel knows of them.
    pub flows: Arc<dyn FlowSource>,
    /// How long to wait and how much to carry.
    pub settings: ProxySettings,
}

/// What all connections share.
#[derive(Debug)]
pub struct Proxy {
    pub(super) identities: Identities,
    pub(super) bundles: watch::Receiver<Arc<BundleSet>>,
    pub(super) policy: watch::Receiver<Arc<Policy>>,
    settled: watch::Receiver<bool>,
    pub(super) audit: Audit,
    pub(super) metrics: Arc<Metrics>,
    pub(super) flows: Arc<dyn FlowSource>,
    pub(super) settings: ProxySettings,
    pub(super) live: Arc<Live>,
    pub(super) limits: Limits,
    pub(super) tls: Tls,
}

impl Proxy {
    /// A proxy without connections.
    pub fn new(parts: ProxyParts) -> Arc<Self> {
        let live =
            Live::new(parts.policy.clone(), parts.bundles.clone(), (parts.modes, parts.scope_of));
        Arc::new(Self {
            limits: Limits::new(&parts.settings),
            live: Arc::new(live),
            tls: Tls::default(),
            identities: parts.identities,
            bundles: parts.bundles,
            policy: parts.policy,
            settled: parts.settled,
            audit: parts.audit,
            metrics: parts.metrics,
            flows: parts.flows,
            settings: parts.settings,
        })
    }

    /// Waits until entries, rules and modes belong together.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn settled(&self) {
        // Closed at the end of the daemon: what is in force then stays so.
        let _closed = self.settled.clone().wait_for(|settled| *settled).await.is_err();
    }

    /// Enters a decided connection among the live ones. What it was decided by may have changed since,
    /// or have been of two configurations: it is held against what is in force once that is settled.
    ///
    /// # Errors
    /// By the entries in force now, the local workload is not who it was said to be.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn enter(&self, local: &Local, standing: Standing) -> Result<Life, Outcome> {
        self.settled().await;
        if !local.is_still_named(self) {
            return Err(Outcome::Cut(CutReason::IdentityChanged));
        }
        Ok(self.live.enter(standing))
    }

    /// How many live connections this deny list cuts.
    pub fn connections_denied(&self, list: &DenyList) -> usize {
        self.live.denied(list)
    }

    /// How many live connections have an authority of this key id in either side's chain: they end
    /// when it is no longer trusted.
    pub fn connections_under(&self, authority: &str) -> usize {
        self.live.under(authority)
    }

    /// Cuts what may no longer be, by one whole configuration.
    pub(super) async fn check_live(&self) {
        self.settled().await;
        self.live.check_all();
    }

    /// A buffer for what one socket receives.
    pub(super) fn inbox(&self) -> Inbox {
        Inbox::new(self.settings.buffer_bytes)
    }

    /// The rules now.
    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.borrow())
    }

    /// The authorities now.
    pub(super) fn bundles(&self) -> Arc<BundleSet> {
        Arc::clone(&self.bundles.borrow())
    }
}
