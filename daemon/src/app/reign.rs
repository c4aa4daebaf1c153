//! What only one daemon of an instance may do at a time: it gives signs of life, tells the programs of
//! scopes, routes and listeners, and reads what they tell. It begins at the start, ends when a
//! successor takes over, and begins anew if that comes to nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::audit::Audit;
use crate::bpf::{EventStream, Kernel, KernelCounters};
use crate::files::{self, FilesParts, Standings};
use crate::identity::Identities;
use crate::metrics::Metrics;
use crate::shutdown::Tasks;
use crate::sys::cgroup::Cgroups;
use crate::sys::clock;
use crate::sys::route_changes::RouteChanges;
use crate::workload::{FileSet, NetnsCookie};

use super::bypasses::Bypasses;
use super::connections::PassingBy;
use super::events::{self, LostEvents, Recorder};
use super::listeners::ListenerTable;
use super::scopes::ScopeTable;
use super::start_error::StartError;
use super::tasks::{self, Numbers};

/// Longer than any of it takes to end.
const END: Duration = Duration::from_secs(5);

/// All that it takes.
#[derive(Debug, Clone)]
pub(super) struct Governor {
    pub(super) kernel: Arc<Kernel>,
    pub(super) audit: Audit,
    pub(super) metrics: Arc<Metrics>,
    pub(super) identities: Identities,
    pub(super) counters: Arc<KernelCounters>,
    pub(super) table: ScopeTable,
    pub(super) cgroups: Cgroups,
    pub(super) netns: NetnsCookie,
    /// SVIDs that are kept in files, how they stand, and the cgroup of commands that are run then.
    pub(super) files: watch::Sender<Arc<Vec<FileSet>>>,
    pub(super) standings: Standings,
    pub(super) commands: PathBuf,
    pub(super) state_dir: PathBuf,
    pub(super) observe: bool,
    pub(super) passing: PassingBy,
    pub(super) bypasses: Bypasses,
    /// What is dialled while there is no daemon waits for the next.
    pub(super) kept: bool,
}

/// What is being done.
#[derive(Debug)]
pub(super) struct Reign {
    /// What ends when the daemon drains.
    rule: Tasks,
    /// What goes on until the last connection has ended.
    ear: Tasks,
}

impl Governor {
    /// Begins. The programs know already who the daemon is.
    pub(super) fn begin(&self) -> Result<Reign, StartError> {
        let (mut rule, mut ear) = (Tasks::new(), Tasks::new());
        let changes = RouteChanges::listen()
            .map_err(|source| StartError::Machine { what: "changes of routes", source })?;
        let kernel = &self.kernel;
        let events = EventStream::open(kernel)?;
        rule.spawn("routes", tasks::follow_routes(Arc::clone(kernel), changes, rule.stop()));
        let heard = if self.kept { &mut ear } else { &mut rule };
        let beating = tasks::beat(Arc::clone(kernel), self.kept, heard.stop());
        heard.spawn("signs of life", beating);
        rule.spawn("scopes", self.table.clone().run(rule.stop()));
        let recorder = Recorder {
            audit: self.audit.clone(),
            identities: self.identities.clone(),
            kernel: Arc::clone(kernel),
            counters: Arc::clone(&self.counters),
            netns: self.netns,
            observe: self.observe,
        };
        ear.spawn("kernel events", events::record(events, recorder, ear.stop()));
        let numbers = Numbers {
            counters: Arc::clone(&self.counters),
            identities: self.identities.clone(),
            metrics: Arc::clone(&self.metrics),
            audit: self.audit.clone(),
            lost: LostEvents::open(&self.state_dir),
        };
        ear.spawn("numbers", numbers.run(ear.stop()));
        Ok(Reign { rule, ear })
    }

    /// Deals with what is older than the daemon: resets the connections of strict scopes, finds the
    /// owners of listeners; and keeps doing so as scopes change. Then keeps SVIDs in files.
    pub(super) async fn adopt(&self, reign: &mut Reign) -> Result<(), StartError> {
        let rule = &mut reign.rule;
        let listeners = ListenerTable::new(
            Arc::clone(&self.kernel),
            self.table.clone(),
            (self.cgroups.clone(), self.netns),
            Arc::clone(&self.metrics),
        );
        let (modes, passing) = (self.table.modes(), self.passing.clone());
        passing.clone().look().await;
        rule.spawn("bypasses", self.bypasses.clone().run(modes.clone(), rule.stop()));
        rule.spawn("older connections", passing.run(modes.clone(), rule.stop()));
        let listeners = listeners.begin().await;
        rule.spawn("listeners", listeners.run(modes, rule.stop()));
        let parts = FilesParts {
            sets: self.files.subscribe(),
            identities: self.identities.clone(),
            audit: self.audit.clone(),
            standings: self.standings.clone(),
            state_dir: self.state_dir.clone(),
            commands: self.commands.clone(),
            clock: clock::now,
        };
        rule.spawn("SVIDs in files", files::keep(parts, rule.stop())?);
        Ok(())
    }
}

impl Reign {
    /// The daemon drains: no more rule.
    pub(super) fn lay_down(&self) {
        self.rule.ask();
    }

    /// Ends all of it: when this returns, another daemon may begin.
    pub(super) async fn end(&mut self) {
        self.rule.ask();
        self.ear.ask();
        let left = self.rule.drain(END).await + self.ear.drain(END).await;
        if left > 0 {
            tracing::warn!(left, "tasks did not end in time");
        }
    }
}
