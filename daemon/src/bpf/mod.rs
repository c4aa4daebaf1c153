//! Everything that touches the eBPF programs and their maps. Home of `aya` and `ebpf_abi`.
//! Converts the kernel's facts into the words of `workload`; never learns a name.
//! Start with [`Kernel::load`].
// oversize: one file per map or group of maps, so that each has one reader

mod convert;
mod error;
mod events;
mod flows;
mod hooks;
mod kernel;
mod links;
mod listeners;
mod offsets;
mod scopes;
mod sources;

pub use ebpf_abi::{ABI_VERSION, MAX_DAEMONS};
pub use error::LoadError;
pub use events::{Cause, Denied, EventStream, KernelCounters, KernelEvent, Observed};
pub use hooks::Lack;
pub use kernel::{BEAT, Kernel, KernelSettings, ProxyPorts};
pub use links::PinStatus;
pub use listeners::{FoundListener, KnownListener};
pub use scopes::PlacedScope;
