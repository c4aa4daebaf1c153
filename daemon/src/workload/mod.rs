//! The words about programs and sockets that every layer shares. No I/O, no clock.

mod addr;
mod claim;
mod doubts;
mod file_set;
mod flow;
mod owner;
mod ports;
mod scope;
mod selector;

pub use addr::{ClientAddr, ListenAddr, OriginalDst};
pub use claim::{CgroupId, ClaimSource, FileId, NetnsCookie, ProcessClaim, ProcessKey};
pub use doubts::Doubts;
pub use file_set::{FileSet, Told};
pub use flow::{Flow, Listener, ListenerLookup};
pub use owner::{Owner, ReloadSignal};
pub use ports::{PortSet, PortSetError};
pub use scope::{FailMode, Mode, OtherTransports, Scope, ScopeId, ScopeLimits};
pub use selector::{Selector, SelectorError, Selectors};
