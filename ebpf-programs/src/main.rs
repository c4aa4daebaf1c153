//! Tacit's eBPF programs. They record facts and enforce strictness; they never learn a name.
//! One file per hook; start with `connect.rs`. This file holds nothing but the list of modules.
#![no_std]
#![no_main]

mod acting;
mod address;
mod backstop;
mod bind;
mod bypass;
mod cgroup;
mod connect;
mod defer_accept;
mod established;
mod listeners;
mod lookup;
mod maps;
mod original_dst;
mod peer_name;
mod report;
mod scope;
mod used;

/// GPL-compatible: `bpf_probe_read_kernel` is refused to programs of another licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
