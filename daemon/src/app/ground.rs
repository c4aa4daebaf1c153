//! Where the daemon stands on the host before it does anything: in a cgroup of its own, with a BPF
//! file system, and with its ports.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use crate::bpf::ProxyPorts;
use crate::config::{CaptureConfig, ProxyConfig};
use crate::sys::cgroup::Cgroups;
use crate::sys::{bpffs, clock};
use crate::workload::CgroupId;

use super::StartError;

/// Backlog of the proxy's listeners: bursts of captured connections wait here.
const BACKLOG: i32 = 4096;
/// How long a predecessor may take to be gone.
const PREDECESSOR: Duration = Duration::from_secs(3);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Moves the daemon into a cgroup that holds nothing else, below the one it attaches at: that
/// cgroup is what the programs know it by. A service manager has usually done so already.
pub(super) fn own_cgroup(
    cgroups: &Cgroups,
    capture: &CaptureConfig,
) -> Result<CgroupId, StartError> {
    let failed = |path: &str, source| StartError::Cgroup { path: path.to_owned(), source };
    let own = cgroups.own().map_err(|source| failed("/proc/self/cgroup", source))?;
    let alone = cgroups.processes(&own).is_ok_and(|pids| pids == [std::process::id()]);
    if alone && own != capture.cgroup && is_below(&own, &capture.cgroup) {
        return cgroups.id_of(&own).map_err(|source| failed(&own, source));
    }
    let path = own_cgroup_of(capture);
    let id = cgroups.create(&path).map_err(|source| failed(&path, source))?;
    wait_until_empty(cgroups, &path)?;
    cgroups.enter(&path).map_err(|source| failed(&path, source))?;
    Ok(id)
}

/// The cgroup that the daemon of an instance makes where it has none to itself.
pub(super) fn own_cgroup_of(capture: &CaptureConfig) -> String {
    format!("{}/tacit-{}", capture.cgroup.trim_end_matches('/'), capture.instance)
}

/// The cgroup of the commands that tell programs of new files; beside the daemon's own, which holds
/// nothing but the daemon.
pub(super) fn commands_cgroup_of(capture: &CaptureConfig) -> String {
    format!("{}-commands", own_cgroup_of(capture))
}

/// A killed predecessor is listed until the kernel is done with it.
fn wait_until_empty(cgroups: &Cgroups, path: &str) -> Result<(), StartError> {
    let patience = clock::since_boot() + PREDECESSOR;
    loop {
        let listed = cgroups.processes(path);
        let listed =
            listed.map_err(|source| StartError::Cgroup { path: path.to_owned(), source })?;
        match listed.into_iter().find(|pid| *pid != std::process::id()) {
            None => return Ok(()),
            Some(pid) if clock::since_boot() >= patience => {
                return Err(StartError::AlreadyRunning { pid, path: path.to_owned() });
            }
            Some(_) => std::thread::sleep(LOOK),
        }
    }
}

/// Whether a cgroup path is another or lies below it.
pub(super) fn is_below(path: &str, ancestor: &str) -> bool {
    let ancestor = ancestor.trim_end_matches('/');
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The folder of an instance under bpffs, which is mounted if it is not.
pub(super) fn pin_folder(capture: &CaptureConfig) -> Result<PathBuf, StartError> {
    let at = &capture.bpffs;
    let failed = |source| StartError::Bpffs { path: at.clone(), source };
    if bpffs::mounted(at).map_err(failed)? {
        tracing::info!(path = %at.display(), "mounted the BPF file system");
    }
    Ok(at.join("tacit").join(&capture.instance))
}

/// The proxy's listening sockets.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) outbound4: TcpListener,
    pub(super) outbound6: Option<TcpListener>,
    pub(super) inbound4: TcpListener,
    pub(super) inbound6: Option<TcpListener>,
}

impl Listeners {
    /// Listens on loopback. A host without IPv6 has none of that family.
    pub(super) fn open(config: &ProxyConfig) -> Result<Self, StartError> {
        Ok(Self {
            outbound4: listen((Ipv4Addr::LOCALHOST, config.outbound_port).into())?,
            outbound6: listen6(config.outbound_port)?,
            inbound4: listen((Ipv4Addr::LOCALHOST, config.inbound_port).into())?,
            inbound6: listen6(config.inbound_port)?,
        })
    }

    /// What the programs are told.
    pub(super) fn ports(&self) -> ProxyPorts<'_> {
        ProxyPorts {
            outbound4: &self.outbound4,
            outbound6: self.outbound6.as_ref(),
            inbound4: &self.inbound4,
            inbound6: self.inbound6.as_ref(),
        }
    }
}

fn listen6(port: u16) -> Result<Option<TcpListener>, StartError> {
    match listen((Ipv6Addr::LOCALHOST, port).into()) {
        Err(StartError::Listen { source, .. })
            if matches!(source.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            tracing::warn!("this host has no IPv6 loopback: IPv6 is not captured");
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen { address, source };
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).map_err(failed)?;
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(failed)?;
    }
    socket.set_reuse_address(true).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.bind(&address.into()).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::is_below;

    #[test]
    fn below_means_whole_segments() {
        for (path, ancestor, below) in [
            ("/a/b", "/a", true),
            ("/a", "/a", true),
            ("/ab", "/a", false),
            ("/a", "/", true),
            ("/", "/a", false),
        ] {
            assert_eq!(is_below(path, ancestor), below, "{path} below {ancestor}");
        }
    }
}
