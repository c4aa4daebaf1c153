//! What the control surface asks the daemon. Implemented where everything is known; here are
//! only the questions, so that nothing in this folder can reach further than its answers.

use std::future::Future;
use std::pin::Pin;

use thiserror::Error;

use super::dump::{
    BundleDump, CaDump, DenyDump, DoctorDump, EntryDump, ExplainDump, ReloadDump, ScopeDump,
    StatusDump, SvidDump,
};
use super::target::ExplainTarget;
use crate::audit::Record;

/// An answer on its way.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refused>> + Send + 'a>>;

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// There is no such process, connection or flow.
    #[error("{0}")]
    NotFound(String),
    /// What was asked for cannot be: it says what is wrong, and changes nothing.
    #[error("{0}")]
    Wrong(String),
    /// The daemon could not find out.
    #[error("{0}")]
    Failed(String),
}

/// The daemon as the control surface sees it.
pub trait Snapshots: Send + Sync + 'static {
    /// How the daemon fares.
    fn status(&self) -> StatusDump;

    /// The records of connections that are open, oldest first.
    fn connections(&self) -> Vec<Record>;

    /// The scopes in force.
    fn scopes(&self) -> Vec<ScopeDump>;

    /// The registration entries in force.
    fn entries(&self) -> Vec<EntryDump>;

    /// The SVIDs held.
    fn svids(&self) -> Vec<SvidDump>;

    /// The deny list.
    fn denied(&self) -> Vec<DenyDump>;

    /// The authorities of this node.
    fn authorities(&self) -> CaDump;

    /// The bundles of the trust domains that are known.
    fn bundles(&self) -> Vec<BundleDump>;

    /// Why a process has its identity, or a connection its decision.
    fn explain(&self, target: ExplainTarget) -> Answer<'_, ExplainDump>;

    /// Whether the kernel has what is needed, whether capture works, and what is left in it.
    fn doctor(&self) -> Answer<'_, DoctorDump>;

    /// Reads the configuration again, now.
    fn reload(&self) -> Answer<'_, ReloadDump>;
}
