//! The kernel's words into those of `workload`, once and here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ebpf_abi::{Ip, Process};

use crate::workload::{CgroupId, ClaimSource, FileId, NetnsCookie, ProcessClaim, ProcessKey};

/// An address as the programs hold it.
pub(super) fn to_ip(ip: IpAddr) -> Ip {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes(chunk.try_into().unwrap_or_default());
    }
    words
}

/// An address as people write it: IPv4 out of its mapped form.
pub(super) fn from_ip(ip: Ip) -> IpAddr {
    let mut bytes = [0; 16];
    for (chunk, word) in bytes.chunks_exact_mut(4).zip(ip) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}

/// An address and port.
pub(super) fn from_addr(ip: Ip, port: u16) -> SocketAddr {
    SocketAddr::new(from_ip(ip), port)
}

/// Device number from the kernel's own encoding (20 bits of minor) to that of `stat(2)`.
fn to_user_dev(kernel: u32) -> u64 {
    libc::makedev(kernel >> 20, kernel & 0xf_ffff)
}

/// Device number from that of `stat(2)` to the kernel's own encoding.
fn to_kernel_dev(user: u64) -> u32 {
    libc::major(user) << 20 | libc::minor(user) & 0xf_ffff
}

/// What the programs recorded about a process.
pub(super) fn to_claim(process: &Process, source: ClaimSource) -> ProcessClaim {
    ProcessClaim {
        process: ProcessKey { pid: process.tgid, start_ns: process.start_ns },
        uid: process.uid,
        gid: process.gid,
        real_uid: process.real_uid,
        real_gid: process.real_gid,
        cgroup: CgroupId(process.cgroup),
        netns: NetnsCookie(process.netns),
        exe: FileId { dev: to_user_dev(process.exe_dev), ino: process.exe_ino },
        exec_id: process.exec_id,
        seen_ns: process.seen_ns,
        source,
    }
}

/// A claim from a scan, as the programs hold it.
pub(super) fn from_claim(claim: &ProcessClaim) -> Process {
    Process {
        start_ns: claim.process.start_ns,
        seen_ns: claim.seen_ns,
        cgroup: claim.cgroup.0,
        netns: claim.netns.0,
        exe_ino: claim.exe.ino,
        exec_id: claim.exec_id,
        exe_dev: to_kernel_dev(claim.exe.dev),
        tgid: claim.process.pid,
        uid: claim.uid,
        gid: claim.gid,
        real_uid: claim.real_uid,
        real_gid: claim.real_gid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_crossing() {
        for text in ["10.1.2.3", "::1", "fd00::1:2", "0.0.0.0", "::"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(from_ip(to_ip(ip)), ip);
        }
        let mapped: IpAddr = "::ffff:10.1.2.3".parse().unwrap();
        assert_eq!(from_ip(to_ip(mapped)), "10.1.2.3".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn device_numbers_survive_the_crossing() {
        for (major, minor) in [(0, 42), (8, 1), (254, 1), (259, 70_000)] {
            let user = libc::makedev(major, minor);
            assert_eq!(to_user_dev(to_kernel_dev(user)), user);
        }
    }
}
