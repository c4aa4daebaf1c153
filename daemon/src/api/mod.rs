//! What the daemon serves to programs that know SPIFFE: the Workload API and Envoy's SDS, on a Unix
//! socket that anybody may connect to. A caller is known by what the kernel says of it and asks only about
//! itself. Takes no decision of its own: who it is, is asked of `identity`. Start at
//! [`WorkloadSocket`].

mod authority;
mod caller;
mod handover;
mod limits;
mod reply;
mod sds;
mod server;
mod socket;
mod status;
mod watch;
mod workload;

#[cfg(test)]
mod tests;

pub use limits::ApiLimits;
pub use server::{ApiParts, serve};
pub use socket::{ApiSocketError, Bequest, WorkloadSocket, is_bound_at};
