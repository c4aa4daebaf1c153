//! What answers on the control socket, put together.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::{mpsc, watch};

use crate::admin::{Changes, Snapshots};
use crate::config::{Config, ReloadHandle};
use crate::federation::Fetcher;

use super::authorities::Authorities;
use super::base::Base;
use super::changes::Operations;
use super::denials::Denials;
use super::drains::Drains;
use super::in_force::InForce;
use super::reign::Governor;
use super::snapshots::Daemon;
use super::succession::Candidate;
use super::tasks::Loaded;

/// What is answered on the control socket.
pub(super) struct Surface {
    pub(super) socket: PathBuf,
    pub(super) daemon: Arc<dyn Snapshots>,
    pub(super) changes: Arc<dyn Changes>,
}

/// What can be asked for that nobody else has.
pub(super) struct Asked {
    pub(super) path: PathBuf,
    pub(super) loaded: Loaded,
    pub(super) reload: ReloadHandle,
    pub(super) authorities: Authorities,
    pub(super) denials: Denials,
    pub(super) published: watch::Receiver<Arc<str>>,
    pub(super) fetcher: Fetcher,
    pub(super) drains: Drains,
}

impl Asked {
    /// What answers on the control socket; who comes in by it to take over; and what keeps it from
    /// changing anything.
    pub(super) fn surface(
        self,
        config: &Config,
        base: &Base,
        governor: &Governor,
        in_force: &InForce,
    ) -> (Surface, mpsc::Receiver<Candidate>, Arc<AtomicBool>) {
        let Self { path, loaded, reload, authorities, denials, published, fetcher, drains } = self;
        let (socket, frozen) = (config.admin.socket.clone(), Arc::new(AtomicBool::new(false)));
        let (door, candidates) = mpsc::channel(1);
        let changes = Arc::new(Operations {
            audit: base.audit.clone(),
            entries: in_force.entries.clone(),
            bundles: base.bundles.clone(),
            authorities: authorities.clone(),
            denials: denials.clone(),
            frozen: Arc::clone(&frozen),
            socket: socket.clone(),
            door,
            drains: drains.clone(),
        });
        let daemon = Arc::new(Daemon {
            started: loaded.at(),
            loaded,
            path,
            kernel: Arc::clone(&governor.kernel),
            counters: Arc::clone(&governor.counters),
            audit: base.audit.clone(),
            identities: governor.identities.clone(),
            authorities,
            denials,
            entries: in_force.entries.clone(),
            bundles: base.bundles.clone(),
            published,
            fetcher,
            policy: in_force.policy.subscribe(),
            reload,
            readiness: base.readiness.clone(),
            table: governor.table.clone(),
            cgroups: governor.cgroups.clone(),
            netns: governor.netns,
            bypasses: governor.bypasses.clone(),
            drains,
        });
        (Surface { socket, daemon, changes }, candidates, frozen)
    }
}
