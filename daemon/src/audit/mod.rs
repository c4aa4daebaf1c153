//! What happened: one record per connection, chained by hash, signed at intervals, written by one
//! task. Records are told, they do not look: the proxy fills a [`RecordBuilder`] that
//! [`Audit::connection`] gives, and dropping it writes the record. [`log`] is the file itself.

mod builder;
mod handle;
mod live;
pub mod log;
mod outcome;
mod record;
mod succession;
mod sums;
mod time;
mod writer;

#[cfg(test)]
mod tests;

pub use builder::{Protection, RecordBuilder, TlsFacts};
pub use handle::{Audit, AuditHealth, AuditSettings, Overflow, STATE_FOLDER};
pub use live::ByteCounters;
pub use outcome::{CutReason, Direction, LocalFailure, Outcome, PeerFailure};
pub use record::{Checkpoint, Endpoint, Event, Label, Process, Record, Tls};
pub use succession::Inheritance;
pub use sums::Causer;
pub use time::{Clock, format as format_time};
pub use writer::Writer;
