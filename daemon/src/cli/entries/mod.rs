//! `tacit entries`: lists, adds, removes, imports and exports registration entries. What is wrong
//! with an entry is said by the daemon; what SPIRE has and Tacit has not, by `spire.rs`.

mod args;
mod obey;
mod spire;

pub(super) use args::Entries;
pub(super) use obey::obey;
pub(super) use spire::SpireError;
