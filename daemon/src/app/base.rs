//! What the daemon is built on before it captures anything: log, authority, control sockets; and
//! how configuration becomes the settings of each part.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use crate::admin::{AdminSocket, Changes, HealthListener, Readiness, Snapshots};
use crate::api::{self, ApiLimits, ApiParts, Bequest, WorkloadSocket};
use crate::attest::{AttestSettings, Attestor};
use crate::audit::log::Before;
use crate::audit::{self, Audit, AuditSettings, Clock, Direction, Overflow, Record, Writer};
use crate::config::{Config, FederationConfig, ProxyConfig, ReloadHandle};
use crate::federation::{Bounds, FetchSettings, Fetcher, FetcherParts};
use crate::files::Standings;
use crate::identity::{CaSettings, Identities, IdentitySettings, Issuer, LocalCa};
use crate::metrics::Metrics;
use crate::policy::{DenyList, DenyReason};
use crate::proxy::ProxySettings;
use crate::registry::Registry;
use crate::shutdown::Tasks;
use crate::state::ForeignBundles;
use crate::sys::cgroup::Cgroups;
use crate::sys::clock;

use super::StartError;
use super::drains::Drains;
use super::endpoints::Endpoints;
use super::sockets::{Estate, name};
use super::succession::Passable;

/// Where the embedded CA keeps its files, below the state directory.
pub(super) const CA_FOLDER: &str = "ca";

/// The parts that need no kernel.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) readiness: Readiness,
    pub(super) metrics: Arc<Metrics>,
    pub(super) audit: Audit,
    pub(super) bundles: ForeignBundles,
    pub(super) ca: Arc<LocalCa>,
    endpoints: Option<Endpoints>,
    workload_socket: Option<WorkloadSocket>,
    socket: AdminSocket,
    health: Option<HealthListener>,
}

impl Base {
    /// Opens log, authority and control sockets: those that were passed on, and the rest anew.
    /// After a daemon that drains also gives the opening records of its connections.
    pub(super) async fn open(
        config: &Config,
        before: Before,
        estate: &mut Estate,
    ) -> Result<(Self, Writer, Vec<Record>), StartError> {
        let directions = [Direction::Outbound.as_str(), Direction::Inbound.as_str()];
        let metrics = Arc::new(Metrics::new(&directions, &DenyReason::ALL.map(DenyReason::as_str)));
        let clock = Clock { now: clock::now, since_boot: clock::since_boot };
        let opened =
            Audit::open_after(&audit_settings(config), before, clock, Arc::clone(&metrics));
        let (audit, writer, open) = opened.map_err(StartError::Audit)?;
        let node = &config.node;
        let mut ca = CaSettings::new(
            node.state_dir.join(CA_FOLDER),
            node.trust_domain.clone(),
            node.name.clone(),
        );
        ca.backdate = config.issuer.backdate;
        let ca = Arc::new(LocalCa::open(ca)?);
        let known = Arc::clone(&ca);
        let bundles = ForeignBundles::open(
            &node.state_dir,
            node.trust_domain.clone(),
            &config.relationships,
            Box::new(move |others| known.trust(others)),
        )?;
        let issuer: Arc<dyn Issuer> = Arc::<LocalCa>::clone(&ca);
        let endpoints = Some(Endpoints::open(config, &issuer, estate).await?);
        let health = health(config, estate).await?;
        // Before the control socket, whose directories would be closed to everybody else.
        let workload_socket = workload_socket(config, estate)?;
        let socket = match before {
            Before::Gone => AdminSocket::bind(&config.admin.socket)?,
            Before::Draining(_) | Before::Myself => AdminSocket::supersede(&config.admin.socket)?,
        };
        let readiness = Readiness::default();
        let base = Self {
            readiness,
            metrics,
            audit,
            bundles,
            ca,
            endpoints,
            workload_socket,
            socket,
            health,
        };
        Ok((base, writer, open))
    }

    /// The sockets that can be given to a successor, and whose file it is that stays.
    pub(super) fn passable(&self, to: &mut Passable) -> io::Result<Bequest> {
        if let Some(health) = &self.health {
            to.add(name::METRICS, health)?;
        }
        if let Some(endpoints) = &self.endpoints {
            endpoints.passable(to)?;
        }
        match &self.workload_socket {
            Some(socket) => {
                to.add(name::WORKLOAD_API, socket)?;
                Ok(socket.bequest())
            }
            None => Ok(Bequest::default()),
        }
    }

    /// Who is who, by these entries.
    pub(super) fn identities(
        &self,
        config: &Config,
        registry: watch::Receiver<Arc<Registry>>,
        denied: watch::Receiver<Arc<DenyList>>,
    ) -> Identities {
        let attestor = Attestor::new(AttestSettings {
            digest_limit_bytes: config.attest.digest_limit_bytes,
            deadline: config.attest.deadline,
            ..AttestSettings::default()
        });
        let settings = IdentitySettings {
            svid_ttl: config.issuer.svid_ttl,
            jwt_svid_ttl: config.issuer.jwt_svid_ttl,
            jwt_issuer: config.oidc.issuer.clone(),
            ..IdentitySettings::default()
        };
        let issuer: Arc<LocalCa> = Arc::clone(&self.ca);
        Identities::new(attestor, registry, denied, issuer, settings)
    }

    /// Serves programs that know SPIFFE, if the configuration wants it.
    pub(super) fn serve_workloads(
        &mut self,
        tasks: &mut Tasks,
        config: &Config,
        identities: &Identities,
        cgroups: &Cgroups,
    ) {
        let Some(socket) = self.workload_socket.take() else { return };
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let limits = ApiLimits {
            connections: count(config.workload_api.max_connections),
            connections_per_cgroup: count(config.workload_api.max_connections_per_cgroup),
            requests_per_second: config.workload_api.requests_per_second,
        };
        let parts = ApiParts {
            socket,
            identities: identities.clone(),
            audit: self.audit.clone(),
            cgroups: cgroups.clone(),
            limits,
        };
        tasks.spawn("Workload API", api::serve(parts, tasks.stop()));
    }

    /// How files with SVIDs stand is asked for, too.
    pub(super) fn watch_files(&self) -> Standings {
        let standings = Standings::default();
        let asked = standings.clone();
        self.readiness.probe("SVIDs in files", move || asked.all());
        standings
    }

    /// Serves whoever asks the ports that the configuration names; gives the own bundle as it is
    /// published.
    pub(super) fn serve_endpoints(&mut self, tasks: &mut Tasks) -> watch::Receiver<Arc<str>> {
        let Some(endpoints) = self.endpoints.take() else {
            return watch::channel(Arc::from("")).1;
        };
        let published = endpoints.document();
        endpoints.serve(tasks);
        published
    }

    /// Keeps the bundles of other trust domains fresh.
    pub(super) fn fetch_bundles(&self, tasks: &mut Tasks, config: &Config) -> Fetcher {
        let FederationConfig { shortest_refresh, longest_refresh, fetch_timeout } =
            config.federation;
        let fetcher = Fetcher::new(FetcherParts {
            bundles: self.bundles.clone(),
            in_force: self.ca.bundles(),
            audit: self.audit.clone(),
            metrics: Arc::clone(&self.metrics),
            settings: FetchSettings {
                bounds: Bounds { shortest: shortest_refresh, longest: longest_refresh },
                timeout: fetch_timeout,
            },
        });
        tasks.spawn("bundles of others", fetcher.clone().run(tasks.stop()));
        let status = fetcher.clone();
        self.readiness.note("bundles of others", move || {
            let failing: Vec<_> = status
                .status()
                .into_iter()
                .filter_map(|(domain, it)| Some(format!("{domain}: {}", it.last_error?)))
                .collect();
            (!failing.is_empty()).then(|| failing.join("; "))
        });
        fetcher
    }

    /// Adds what readiness asks each time.
    pub(super) fn watch(&self, identities: &Identities, reload: &ReloadHandle, drains: &Drains) {
        let drains = drains.clone();
        self.readiness.probe("takes connections", move || {
            if drains.begun() { Err("it drains".to_owned()) } else { Ok(()) }
        });
        let audit = self.audit.clone();
        self.readiness.probe("audit log", move || match audit.health().problem {
            Some(problem) => Err(problem),
            None => Ok(()),
        });
        let identities = identities.clone();
        self.readiness.probe("SVIDs", move || {
            let missing: Vec<_> = identities
                .svids()
                .into_iter()
                .filter(|status| status.svid.is_none())
                .map(|status| status.spiffe_id.to_string())
                .collect();
            if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("none for {}", missing.join(", ")))
            }
        });
        let config = reload.config();
        self.readiness.probe("host names", move || {
            let unresolved: Vec<_> = config.borrow().unresolved.iter().cloned().collect();
            if unresolved.is_empty() {
                Ok(())
            } else {
                Err(format!("not looked up yet: {}", unresolved.join(", ")))
            }
        });
        let status = reload.status();
        self.readiness.probe("configuration", move || match &status.borrow().error {
            Some(error) => Err(error.to_string()),
            None => Ok(()),
        });
    }

    /// Answers on the control sockets.
    pub(super) fn serve(
        self,
        tasks: &mut Tasks,
        daemon: Arc<dyn Snapshots>,
        changes: Arc<dyn Changes>,
    ) {
        tasks.spawn("control socket", self.socket.serve(daemon, changes, tasks.stop()));
        if let Some(health) = self.health {
            tasks.spawn("health", health.serve(self.metrics, self.readiness, tasks.stop()));
        }
    }
}

async fn health(
    config: &Config,
    estate: &mut Estate,
) -> Result<Option<HealthListener>, StartError> {
    let Some(address) = config.admin.metrics_listen else { return Ok(None) };
    let opened = match estate.tcp(name::METRICS, address) {
        Some(listener) => HealthListener::take_over(listener),
        None => HealthListener::bind(address).await,
    };
    opened.map(Some).map_err(|source| StartError::Listen { address, source })
}

fn workload_socket(
    config: &Config,
    estate: &mut Estate,
) -> Result<Option<WorkloadSocket>, StartError> {
    let api = &config.workload_api;
    if !api.enabled {
        return Ok(None);
    }
    let socket = match estate.unix(name::WORKLOAD_API, &api.socket) {
        Some(listener) => {
            let socket = WorkloadSocket::take_over(&api.socket, listener)?;
            // Until this daemon serves, it is another's.
            socket.bequest().made(true);
            socket
        }
        None => WorkloadSocket::bind(&api.socket)?,
    };
    estate.keep(name::WORKLOAD_API, &socket);
    Ok(Some(socket))
}

fn audit_settings(config: &Config) -> AuditSettings {
    let audit = &config.audit;
    AuditSettings {
        path: audit.path.clone(),
        state_dir: config.node.state_dir.join(audit::STATE_FOLDER),
        node: config.node.name.clone(),
        rotate_bytes: audit.rotate_bytes,
        keep: audit.keep,
        queue: usize::try_from(audit.queue).unwrap_or(usize::MAX),
        overflow: Overflow::Block,
        open_after: audit.open_after,
        sync_every: std::time::Duration::from_secs(1),
    }
}

/// Timeouts and limits as the proxy takes them.
pub(super) fn proxy_settings(config: &ProxyConfig) -> ProxySettings {
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    ProxySettings {
        connect_timeout: config.connect_timeout,
        handshake_timeout: config.handshake_timeout,
        first_byte_timeout: config.first_byte_timeout,
        idle_timeout: config.idle_timeout,
        user_timeout: config.user_timeout,
        keepalive: config.keepalive,
        drain_timeout: config.drain_timeout,
        node_limit: count(config.max_connections),
        workload_limit: count(config.max_connections_per_workload),
        handshake_limit: count(config.max_handshakes),
        handshake_rate: config.max_handshake_rate,
        handshake_rate_each: config.max_handshake_rate_per_workload,
        newcomer_limit: count(config.max_unproved),
        newcomer_limit_each: count(config.max_unproved_per_client),
        buffer_bytes: usize::try_from(config.buffer_bytes).unwrap_or(usize::MAX),
    }
}
