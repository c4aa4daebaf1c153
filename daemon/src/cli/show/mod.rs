//! What the commands show to people: one function per answer, from dump to text. Writes nothing.

mod bundles;
mod explained;
mod listing;
mod records;
mod state;

pub(super) use bundles::{bundle_changed, bundle_list, bundles};
pub(super) use explained::explanation;
pub(super) use listing::{entries, entries_changed, scopes, svids};
pub(super) use records::{connections, record, record_headings};
pub(super) use state::{CheckDump, check, examination, reload, status};
