//! What the privileged tests and the demo stand on: two nodes with a daemon each, programs in
//! them, captures of the wire between them, and their audit logs.
//!
//! Tests drive the daemon from outside and judge it by what applications saw, what the wire
//! carried and what the audit log says. Start with [`Lab::check`].

mod attacked;
mod audit_log;
mod ca;
mod capture;
mod cgroup;
mod config;
mod lab;
mod node;
mod pod;
mod process;
mod proof;
mod replacing;
mod segments;
mod service_manager;
mod stock;
mod told;
mod wait;
mod web;

pub use audit_log::{AuditLog, Record};
pub use ca::Minted;
pub use capture::Capture;
pub use config::{Rules, client_id, server_id};
pub use lab::{Lab, sweep};
pub use node::Node;
pub use pod::{Group, Pod, Server, uid, value};
pub use process::{Finished, conformance, load, probe, recorder, tacit, text};
pub use proof::{Claim, Protected, Seen, protected};
pub use service_manager::ServiceManager;
pub use stock::{MariaDb, Nginx, Postgres, Redis, user_id};
pub use wait::{DEADLINE, eventually, soon, stretched, stretched_seconds};
pub use web::Web;
