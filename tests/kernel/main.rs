//! Each eBPF program on the kernel that runs: it is accepted, attached, and keeps its promise. The
//! recorder stands in for the daemon, so nothing here depends on identities, policy or TLS.

mod limits;
mod promises;
mod recorded;
mod stand_in;
