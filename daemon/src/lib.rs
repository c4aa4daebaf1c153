//! Tacit: transparent SPIFFE mutual TLS for programs that know nothing of TLS.
//!
//! ```text
//! main > app                     wires everything; nobody imports it
//! cli                            the commands that talk to a running daemon
//! proxy  api  files  admin       data plane, what programs ask or find in files, control surface
//! identity        audit          which SVID · what happened
//! attest                         who is this process
//! policy  registry  |  bpf  sys  the rules  |  the machine (neither side sees the other)
//! spiffe  workload               the words
//! ```
//! ARCHITECTURE.md holds the table of allowed imports; `cargo xtask tidy` enforces it.

pub mod admin;
pub mod api;
pub mod app;
pub mod attest;
pub mod audit;
pub mod bpf;
pub mod cli;
pub mod config;
pub mod federation;
pub mod files;
pub mod identity;
pub mod metrics;
pub mod policy;
pub mod proxy;
pub mod registry;
pub mod shutdown;
pub mod spiffe;
pub mod state;
pub mod sys;
pub mod telemetry;
pub mod workload;
