//! The road of a connection: accepted, identified, decided, protected, relayed, recorded.
//!
//! `outbound.rs` and `inbound.rs` are the two roads, each line one stage. The proxy asks
//! `identity` who the local workload is and `policy` what it may do; it decides nothing itself.
//! Start at [`serve_outbound`] and [`serve_inbound`].

mod dial;
mod flow_source;
mod hello;
mod inbound;
mod limits;
mod listener;
mod live;
mod local;
mod outbound;
mod relay;
mod state;
mod tls;

#[cfg(test)]
mod tests;

pub use flow_source::FlowSource;
pub use listener::{serve_inbound, serve_outbound};
pub use live::{Modes, ScopeOf, keep_watch};
pub use state::{Proxy, ProxyParts, ProxySettings};
