//! Connections that were open before their scope was strict, or before the daemon: no hook saw them
//! begin, so they pass by the daemon. They are reset, and the log says so. All others go on as they
//! were.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::audit::Audit;
use crate::proxy::Modes;
use crate::shutdown::Stop;
use crate::sys::diag::{self, Connection};
use crate::workload::{CgroupId, Mode};

use super::scopes::{Placed, ScopeTable};

/// Between the two looks that decide: what has begun in between is in the second one.
const BETWEEN: Duration = Duration::from_millis(100);
/// Resets that get a record each; further ones of one look are counted in a last one.
const TOLD: usize = 100;

/// Resets what passes strict scopes by.
#[derive(Debug, Clone)]
pub(super) struct PassingBy {
    table: ScopeTable,
    audit: Audit,
    own_cgroup: CgroupId,
    outbound_port: u16,
}

impl PassingBy {
    pub(super) fn new(
        table: ScopeTable,
        audit: Audit,
        (own_cgroup, outbound_port): (CgroupId, u16),
    ) -> Self {
        Self { table, audit, own_cgroup, outbound_port }
    }

    /// Captured, whoever has made the listening socket, and also if it waits for a daemon still:
    /// nobody else is ever reached there (`lookup.rs` of the programs).
    fn is_captured(&self, connection: &Connection) -> bool {
        let there = connection.remote;
        there.ip().is_loopback() && there.port() == self.outbound_port
    }

    /// Looks whenever scopes have changed, until the daemon stops.
    pub(super) async fn run(self, mut modes: watch::Receiver<Arc<Modes>>, mut stop: Stop) {
        loop {
            tokio::select! {
                biased;
                () = stop.draining() => return,
                changed = modes.changed() => if changed.is_err() { return },
            }
            self.clone().look().await;
        }
    }

    /// # Cancel safety
    /// A look that has begun is finished.
    pub(super) async fn look(self) {
        let looked = tokio::task::spawn_blocking(move || {
            if let Err(error) = self.reset_all() {
                tracing::error!(%error, "connections that pass strict scopes by cannot be looked for");
            }
        });
        if let Err(error) = looked.await {
            tracing::error!(%error, "a look at the connections ended early");
        }
    }

    fn reset_all(&self) -> io::Result<()> {
        let scopes = self.table.current();
        if !scopes.iter().any(|placed| placed.scope.mode == Mode::Strict) {
            return Ok(());
        }
        let before: HashSet<u64> =
            self.passing(is_strict)?.iter().map(|(one, _)| one.cookie()).collect();
        if before.is_empty() {
            return Ok(());
        }
        std::thread::sleep(BETWEEN);
        let mut passing = self.passing(is_strict)?;
        passing.retain(|(connection, _)| before.contains(&connection.cookie()));
        for (number, (connection, scope)) in passing.iter().enumerate() {
            self.reset(connection, scope, number < TOLD);
        }
        if let Some(more) = passing.len().checked_sub(TOLD).filter(|more| *more > 0) {
            self.audit.daemon("connections_reset", Some(format!("{more} more")));
        }
        Ok(())
    }

    fn reset(&self, connection: &Connection, scope: &Placed, told: bool) {
        let Connection { local, remote, uid, .. } = connection;
        let what = format!("{local} - {remote} of user {uid} in {}", scope.name());
        match diag::reset(connection) {
            Ok(()) if told => {
                tracing::warn!(connection = %what, "reset: older than its strict scope");
                self.audit.daemon("connections_reset", Some(what));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // The backstop still drops what it sends on the wire.
                tracing::error!(connection = %what, %error, "not reset");
            }
            _ => {}
        }
    }

    /// Connections that the daemon would carry if they were opened now, and does not.
    pub(super) fn left_alone(&self) -> io::Result<Vec<(Connection, Placed)>> {
        self.passing(|connection, placed| {
            let (local, remote) = (connection.local.port(), connection.remote.port());
            placed.scope.mode == Mode::Permissive
                && (placed.scope.outbound_ports.contains(remote)
                    || placed.scope.inbound_ports.contains(local))
        })
    }

    /// Connections of such scopes whose other end is not the daemon's.
    fn passing(
        &self,
        wanted: impl Fn(&Connection, &Placed) -> bool,
    ) -> io::Result<Vec<(Connection, Placed)>> {
        let all = diag::connections()?;
        let carried: HashSet<(SocketAddr, SocketAddr)> = all
            .iter()
            .filter(|one| one.cgroup == Some(self.own_cgroup))
            .map(|one| (one.remote, one.local))
            .collect();
        let others = all.into_iter().filter(|one| {
            one.cgroup != Some(self.own_cgroup)
                && !self.is_captured(one)
                && !carried.contains(&(one.local, one.remote))
        });
        let passing = others.filter_map(|one| {
            let placed = self.table.scope_at(one.cgroup?, [one.uid, one.uid])?;
            wanted(&one, &placed).then_some((one, placed))
        });
        Ok(passing.collect())
    }
}

fn is_strict(_connection: &Connection, placed: &Placed) -> bool {
    placed.scope.mode == Mode::Strict
}
