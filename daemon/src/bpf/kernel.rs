//! The handle over programs and maps: loads, attaches, and is asked by everyone above.

use std::fmt;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, SkStorage, SockMap};
use aya::{Ebpf, EbpfLoader};
use ebpf_abi::{
    ABI_VERSION, Config, Dial, Ip, ListenKey, Listener, MAX_DAEMONS, PathScopes, Scope, ScopeKey,
    ScopePath, Socket, SourceKey, Tuple, flags, slot,
};

use crate::sys::clock;
use crate::workload::{CgroupId, NetnsCookie};

use super::links::{self, PinStatus};
use super::{Lack, LoadError, hooks, offsets};

/// How long the daemon counts as alive after its last sign of life. Long enough for a machine under
/// load, short enough that nobody waits in vain.
const ALIVE_FOR: Duration = Duration::from_secs(5);
/// How often to call [`Kernel::beat`].
pub const BEAT: Duration = Duration::from_millis(500);

/// Where to attach and pin.
#[derive(Debug, Clone)]
pub struct KernelSettings {
    /// Folder of the cgroup to attach at.
    pub cgroup: PathBuf,
    /// Folder of this instance under bpffs, such as `/sys/fs/bpf/tacit/default`.
    pub pins: PathBuf,
    /// Cgroup that holds the daemon and nothing else.
    pub own_cgroup: CgroupId,
    /// The namespace that the daemon serves.
    pub netns: NetnsCookie,
    /// Whether connections outside every scope are recorded too.
    pub observe_unscoped: bool,
}

/// The daemon's listening sockets.
#[derive(Debug)]
pub struct ProxyPorts<'a> {
    /// Outbound, 127.0.0.1.
    pub outbound4: &'a TcpListener,
    /// Outbound, `[::1]`; none on a host without IPv6.
    pub outbound6: Option<&'a TcpListener>,
    /// Inbound, 127.0.0.1.
    pub inbound4: &'a TcpListener,
    /// Inbound, `[::1]`.
    pub inbound6: Option<&'a TcpListener>,
}

/// Programs and maps, loaded.
pub struct Kernel {
    ebpf: Mutex<Ebpf>,
    lacks: Vec<Lack>,
    settings: KernelSettings,
    retired: AtomicBool,
    pub(super) config: Mutex<Array<MapData, Config>>,
    pub(super) sockets: Mutex<SkStorage<MapData, Socket>>,
    pub(super) dials: HashMap<MapData, Tuple, Dial>,
    pub(super) listeners: Mutex<HashMap<MapData, ListenKey, Listener>>,
    pub(super) scope_listeners: Mutex<Array<MapData, u64>>,
    pub(super) scopes: Mutex<Array<MapData, Scope>>,
    pub(super) scope_ids: Mutex<HashMap<MapData, ScopeKey, u32>>,
    pub(super) scope_paths: Mutex<HashMap<MapData, ScopePath, PathScopes>>,
    pub(super) sources: Mutex<LpmTrie<MapData, SourceKey, Ip>>,
    proxy: Mutex<SockMap<MapData>>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The programs, as compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tacit-programs"));

/// The names of the pinned maps.
const MAPS: [&str; 14] = [
    "SOCKETS",
    "CONFIG",
    "SCOPE_IDS",
    "SCOPE_PATHS",
    "SCOPES",
    "SCOPE_LISTENERS",
    "FLOWS",
    "DIALS",
    "TRUTHS",
    "LISTENERS",
    "SOURCES",
    "PROXY",
    "EVENTS",
    "COUNTERS",
];

impl Kernel {
    /// Loads the programs, adopting the maps that an earlier daemon of this instance has pinned.
    /// Nothing is attached yet.
    pub fn load(settings: KernelSettings) -> Result<Self, LoadError> {
        let folder = links::folder(&version_folder(&settings.pins).join("maps"))?;
        let mut loader = EbpfLoader::new();
        for name in MAPS {
            loader.map_pin_path(name, folder.join(name));
        }
        let mut ebpf = loader.load(OBJECT)?;
        let lacks = hooks::load(&mut ebpf)?;
        Ok(Self {
            config: Mutex::new(take(&mut ebpf, "CONFIG")?),
            sockets: Mutex::new(take(&mut ebpf, "SOCKETS")?),
            dials: take(&mut ebpf, "DIALS")?,
            listeners: Mutex::new(take(&mut ebpf, "LISTENERS")?),
            scope_listeners: Mutex::new(take(&mut ebpf, "SCOPE_LISTENERS")?),
            scopes: Mutex::new(take(&mut ebpf, "SCOPES")?),
            scope_ids: Mutex::new(take(&mut ebpf, "SCOPE_IDS")?),
            scope_paths: Mutex::new(take(&mut ebpf, "SCOPE_PATHS")?),
            sources: Mutex::new(take(&mut ebpf, "SOURCES")?),
            proxy: Mutex::new(take(&mut ebpf, "PROXY")?),
            ebpf: Mutex::new(ebpf),
            lacks,
            settings,
            retired: AtomicBool::new(false),
        })
    }

    /// What the running kernel does not take, found by loading all of it; nothing stays.
    ///
    /// # Errors
    /// When the kernel takes too little of it to be of any use, or the caller may not load.
    pub fn probe() -> Result<Vec<Lack>, LoadError> {
        hooks::load(&mut EbpfLoader::new().load(OBJECT)?)
    }

    /// Programs that the running kernel does not take.
    pub fn lacks(&self) -> &[Lack] {
        &self.lacks
    }

    /// Tells the programs who the daemon is, which others drain, and where it listens, and marks
    /// its listeners as its own. From here on they count it as alive, for as long as
    /// [`Kernel::beat`] is called.
    pub fn introduce(&self, ports: &ProxyPorts<'_>, draining: &[u32]) -> Result<(), LoadError> {
        let mut daemons = [0; MAX_DAEMONS];
        let all = std::iter::once(std::process::id()).chain(draining.iter().copied());
        daemons.iter_mut().zip(all).for_each(|(slot, pid)| *slot = pid);
        self.retired.store(false, Ordering::SeqCst);
        let mut config = Config {
            abi_version: ABI_VERSION,
            daemons,
            daemon_cgroup: self.settings.own_cgroup.0,
            netns: self.settings.netns.0,
            alive_until_ns: alive_until(ALIVE_FOR),
            observe_unscoped: u32::from(self.settings.observe_unscoped),
            scope_levels: self.config().map_or(0, |old| old.scope_levels),
            offsets: offsets::read()?,
            ..Config::default()
        };
        let listeners = [
            (slot::OUTBOUND4, Some(ports.outbound4), &mut config.outbound4),
            (slot::OUTBOUND6, ports.outbound6, &mut config.outbound6),
            (slot::INBOUND4, Some(ports.inbound4), &mut config.inbound4),
            (slot::INBOUND6, ports.inbound6, &mut config.inbound6),
        ];
        for (slot, listener, port) in listeners {
            let Some(listener) = listener else { continue };
            let address = listener.local_addr();
            *port = address.map_err(|source| pin_error(&self.settings.pins, source))?.port();
            self.claim(listener)?;
            locked(&self.proxy).set(slot, listener, 0).map_err(map_error("PROXY"))?;
        }
        locked(&self.config).set(0, config, 0).map_err(map_error("CONFIG"))
    }

    /// Marks a socket as the daemon's own. Those made after [`Kernel::attach`] are marked by the
    /// programs themselves.
    fn claim(&self, socket: &impl AsRawFd) -> Result<(), LoadError> {
        let ours = Socket { flags: flags::OURS, ..Socket::default() };
        locked(&self.sockets).insert(socket, ours, 0).map_err(map_error("SOCKETS"))
    }

    /// Attaches every program, or replaces those that an earlier daemon left, atomically.
    pub fn attach(&self) -> Result<(), LoadError> {
        let folder = links::folder(&version_folder(&self.settings.pins).join("links"))?;
        links::attach(&locked(&self.ebpf), &self.lacks, &self.settings.cgroup, &folder)
    }

    /// One sign of life.
    pub fn beat(&self) -> Result<(), LoadError> {
        self.last_beat(ALIVE_FOR)
    }

    /// A sign of life that holds for so long: another daemon is about to go on.
    pub fn last_beat(&self, holds: Duration) -> Result<(), LoadError> {
        let mut map = locked(&self.config);
        let mut config = map.get(&0, 0).map_err(map_error("CONFIG"))?;
        config.alive_until_ns = alive_until(holds);
        map.set(0, config, 0).map_err(map_error("CONFIG"))
    }

    /// The daemon of this pid, which drained, is gone: its sockets are nobody's any more.
    pub fn forget_daemon(&self, pid: u32) -> Result<(), LoadError> {
        if self.is_retired() {
            return Ok(());
        }
        let mut map = locked(&self.config);
        let mut config = map.get(&0, 0).map_err(map_error("CONFIG"))?;
        config.daemons.iter_mut().filter(|daemon| **daemon == pid).for_each(|it| *it = 0);
        map.set(0, config, 0).map_err(map_error("CONFIG"))
    }

    /// From now on another daemon speaks to the programs, until [`Kernel::introduce`] is called
    /// again.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
    }

    /// Whether another daemon speaks to the programs.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// The last sign of life is over: what is open without a daemon is open from now on. Unless
    /// another daemon gives them.
    pub fn fall_silent(&self) -> Result<(), LoadError> {
        if self.is_retired() {
            return Ok(());
        }
        let mut map = locked(&self.config);
        let mut config = map.get(&0, 0).map_err(map_error("CONFIG"))?;
        config.alive_until_ns = 0;
        map.set(0, config, 0).map_err(map_error("CONFIG"))
    }

    /// What is attached.
    pub fn status(&self) -> Vec<PinStatus> {
        links::status(&version_folder(&self.settings.pins).join("links"))
    }

    /// Detaches and forgets everything that an instance has pinned under `pins`.
    pub fn uninstall(pins: &Path) -> Result<(), LoadError> {
        links::remove(pins)
    }

    /// The map as it is now.
    pub(super) fn config(&self) -> Option<Config> {
        locked(&self.config).get(&0, 0).ok()
    }

    /// Changes which cgroup depths the programs look at.
    pub(super) fn set_scope_levels(&self, levels: u64) -> Result<(), MapError> {
        let mut map = locked(&self.config);
        let mut config = map.get(&0, 0)?;
        config.scope_levels = levels;
        map.set(0, config, 0)
    }

    /// The cgroup that holds the daemon and nothing else.
    pub fn own_cgroup(&self) -> CgroupId {
        self.settings.own_cgroup
    }

    pub(super) fn netns(&self) -> u64 {
        self.settings.netns.0
    }

    /// Opens a pinned map for another owner.
    pub(super) fn pinned<T>(&self, name: &'static str) -> Result<T, LoadError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        let path = version_folder(&self.settings.pins).join("maps").join(name);
        let map = MapData::from_pin(path).and_then(Map::from_map_data).and_then(T::try_from);
        map.map_err(map_error(name))
    }

    /// Takes a map out of the object for another owner.
    pub(super) fn take_map<T>(&self, name: &'static str) -> Result<T, LoadError>
    where
        T: TryFrom<Map, Error = MapError>,
    {
        take(&mut locked(&self.ebpf), name)
    }
}

fn alive_until(holds: Duration) -> u64 {
    let until = clock::since_boot().saturating_add(holds);
    u64::try_from(until.as_nanos()).unwrap_or(u64::MAX)
}

fn version_folder(pins: &Path) -> PathBuf {
    pins.join(format!("v{ABI_VERSION}"))
}

fn pin_error(path: &Path, source: std::io::Error) -> LoadError {
    LoadError::Pin { path: path.to_owned(), source }
}

/// Poison only means that a holder panicked between two calls into the kernel: the maps are whole.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn map_error(name: &'static str) -> impl FnOnce(MapError) -> LoadError {
    move |source| LoadError::Map { name, source: Box::new(source) }
}

/// There is no such entry. Reading says so in its own way, changing in the kernel's.
pub(super) fn is_absent(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound) || said(error, libc::ENOENT)
}

/// There is such an entry already.
pub(super) fn is_present(error: &MapError) -> bool {
    said(error, libc::EEXIST)
}

fn said(error: &MapError, number: i32) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(number))
}

fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, LoadError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(LoadError::Missing(name))?;
    T::try_from(map).map_err(map_error(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::bpffs;

    /// Needs root. Every program passes the verifier of the running kernel.
    #[test]
    fn privileged_every_program_is_accepted_by_the_verifier() {
        bpffs::mounted(Path::new(bpffs::USUAL)).expect("the BPF file system, and root");
        let name = format!("tacit/verifier-{}", std::process::id());
        let pins = Path::new(bpffs::USUAL).join(name);
        let settings = KernelSettings {
            cgroup: PathBuf::from("/sys/fs/cgroup"),
            pins: pins.clone(),
            own_cgroup: CgroupId(1),
            netns: NetnsCookie(1),
            observe_unscoped: false,
        };
        let loaded = Kernel::load(settings);
        Kernel::uninstall(&pins).expect("what was pinned is removed");
        if let Err(error) = loaded {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            panic!("{text}");
        }
    }
}
