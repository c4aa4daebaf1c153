//! What the control surface shows, as serde sees it: its own types, filled from the crate's.
//! Field names are public. Times are UTC, RFC 3339; durations are seconds unless named otherwise.

mod bundles;
mod daemon;
mod explained;

pub use super::changes::{
    AddEntries, BundleChanged, CaChanged, CaDump, CaOrder, DeleteBundle, DenyChanged, DenyDump,
    DenyOrder, EntriesChanged, NewEntry, Replace, Replacing, SetBundle,
};
pub use bundles::{BundleDump, EndpointDump};
pub use daemon::{
    AuditDump, AuthorityDump, CheckDump, ConnectionCounts, CounterDump, DoctorDump, DrainDump,
    EntryDump, LIVE, ReloadDump, ScopeDump, StatusDump, SvidDump, Verdict,
};
pub use explained::{DecisionDump, ExplainDump, IdentityDump, NearMissDump, ProcessDump, RuleDump};
