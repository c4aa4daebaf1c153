//! The composition root: builds every part in order, wires them, owns the shutdown. The only
//! folder that knows all modules; nobody imports it. Start at [`run()`].

mod base;
mod changes;
mod connections;
mod doctor;
mod events;
mod explain;
mod ground;
mod listeners;
mod run;
mod scopes;
mod snapshots;
mod tasks;

pub use doctor::doctor_without_daemon;
pub use run::{StartError, run, uninstall};
