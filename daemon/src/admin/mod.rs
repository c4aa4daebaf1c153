//! The control surface: what a running daemon tells about itself. JSON over HTTP on a Unix socket
//! that only root may use ([`AdminSocket`]), metrics and health on a loopback port
//! ([`HealthListener`]). Everything is a snapshot from [`Snapshots`]; only `reload` makes anything
//! happen, and it changes nothing that the configuration file does not.

mod bounded;
pub mod dump;
mod explained;
mod health;
mod loopback;
mod routes;
mod snapshots;
mod socket;
mod target;

#[cfg(test)]
mod tests;

pub use health::{Condition, Readiness, Standing};
pub use loopback::HealthListener;
pub use snapshots::{Answer, Refused, Snapshots};
pub use socket::{AdminSocket, SocketError};
pub use target::{ExplainTarget, FlowSource, TargetError};
