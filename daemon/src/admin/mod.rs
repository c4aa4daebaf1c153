//! The control surface: what a running daemon tells about itself. JSON over HTTP on a Unix socket
//! that only root may use ([`AdminSocket`]), metrics and health on a loopback port
//! ([`HealthListener`]). What is told is a snapshot from [`Snapshots`]. What is changed is asked of
//! [`Changes`], with the name of who asked, and done elsewhere: nothing in this folder changes
//! anything.

mod bounded;
mod changes;
pub mod dump;
mod health;
mod loopback;
mod routes;
mod snapshots;
mod socket;
mod target;

#[cfg(test)]
mod tests;

pub use changes::{Asker, Changes};
pub use health::{Condition, Readiness, Standing};
pub use loopback::HealthListener;
pub use snapshots::{Answer, Refused, Snapshots};
pub use socket::{AdminSocket, SocketError};
pub use target::{ExplainTarget, FlowSource, TargetError};
