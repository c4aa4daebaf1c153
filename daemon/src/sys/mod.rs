//! The machine: everything that calls the kernel outside of eBPF. Knows nothing of identities.
// oversize: one file for each part of the machine that is asked or told something

pub mod barrier;
pub mod bpf_link;
pub mod bpffs;
pub mod cgroup;
pub mod clock;
pub mod command;
pub mod mounts;
pub mod names;
mod netlink;
pub mod netns;
pub mod packet_sockets;
pub mod pass_fds;
pub mod pinned_dir;
pub mod private_files;
pub mod privilege;
pub mod process;
pub mod service_manager;
pub mod signal;
pub mod sockets;
pub mod sockopt;
pub mod task;
pub mod unix_peer;

pub use netlink::{diag, route_changes, routes};
