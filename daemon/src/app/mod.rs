//! The composition root: builds every part in order, wires them, owns the shutdown. The only
//! folder that knows all modules; nobody imports it. Start at [`run()`].
// oversize: one file per thing that is kept going; what they have in common is this module

mod authorities;
mod base;
mod bypasses;
mod changes;
mod connections;
mod course;
mod denials;
mod doctor;
mod drains;
mod endpoints;
mod events;
mod explain;
mod extent;
mod ground;
mod in_force;
mod listeners;
mod reign;
mod run;
mod scopes;
mod snapshots;
mod sockets;
mod start_error;
mod succession;
mod surface;
mod tasks;

pub use doctor::doctor_without_daemon;
pub use run::{run, uninstall};
pub use start_error::StartError;
