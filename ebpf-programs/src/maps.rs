//! Every map, once: what it holds, why that size, who writes, who reads, who deletes.
//! Also the thin wrappers over helpers, so that hook files hold no raw pointers but their context.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{BPF_ANY, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type};
use aya_ebpf::helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf, SockMap};
use ebpf_abi::{
    Config, Counter, Dial, Ip, ListenKey, Listener, MAX_SCOPES, PathScopes, Scope, ScopeKey,
    ScopePath, Socket, SourceKey, Tuple, slot,
};

/// Inherit the value of the listening socket to the accepted one (Linux 5.4).
const BPF_F_CLONE: usize = 1 << 9;

/// A socket storage map whose values accepted sockets inherit; aya-ebpf's own has no such flag.
#[repr(C)]
pub struct ClonedSkStorage<T> {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize | BPF_F_CLONE],
}

// SAFETY: placeholders that the loader patches; never dereferenced.
unsafe impl<T> Sync for ClonedSkStorage<T> {}

impl<T> ClonedSkStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }

    fn raw(&self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }
}

/// Facts that travel with a socket. Written by connect, create, bind, sock_ops and, for the
/// daemon's own sockets, by the daemon. Freed by the kernel with the socket.
#[btf_map]
static SOCKETS: ClonedSkStorage<Socket> = ClonedSkStorage::new();

/// The facts of `sk`, if it has any. `sk` must be a full socket pointer that the verifier knows.
#[inline(always)]
pub fn socket<'a>(sk: *mut c_void) -> Option<&'a mut Socket> {
    // SAFETY: the helper gives null or a value of the map's type, valid while the program runs.
    unsafe { bpf_sk_storage_get(SOCKETS.raw(), sk, ptr::null_mut(), 0).cast::<Socket>().as_mut() }
}

/// The facts of `sk`, made (zeroed) if it has none. None: out of memory.
#[inline(always)]
pub fn socket_or_new<'a>(sk: *mut c_void) -> Option<&'a mut Socket> {
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as above.
    unsafe {
        bpf_sk_storage_get(SOCKETS.raw(), sk, ptr::null_mut(), create).cast::<Socket>().as_mut()
    }
}

/// Replaces the facts of `sk` by a copy of `value`. False: out of memory.
#[inline(always)]
pub fn replace_socket(sk: *mut c_void, value: *const Socket) -> bool {
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: `value` points to a map value of this type; the helper copies it.
    unsafe {
        bpf_sk_storage_delete(SOCKETS.raw(), sk);
        !bpf_sk_storage_get(SOCKETS.raw(), sk, value.cast_mut().cast(), create).is_null()
    }
}

/// One entry: who the daemon is, where it listens, until when it is alive. Written by the daemon.
#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

/// What the daemon told us. None only before it has written anything.
#[inline(always)]
pub fn config<'a>() -> Option<&'a Config> {
    let config = CONFIG.get(0)?;
    if config.abi_version == ebpf_abi::ABI_VERSION { Some(config) } else { None }
}

/// (cgroup, user) to scope index. Written by the daemon, and by cgroup_mkdir, which deletes those of
/// the cgroup that had the path before. Room for every scope of two configurations.
#[map]
static SCOPE_IDS: HashMap<ScopeKey, u32> = HashMap::with_max_entries(2 * MAX_SCOPES, 0);

/// Scope index to what holds. Written by the daemon; a change holds for live sockets at once.
#[map]
static SCOPES: Array<Scope> = Array::with_max_entries(MAX_SCOPES, 0);

/// Cgroup path to the scopes that it is to have as soon as it is made. Written by the daemon.
#[map]
static SCOPE_PATHS: HashMap<ScopePath, PathScopes> = HashMap::with_max_entries(MAX_SCOPES, 0);

/// Room to read a path into; the stack is too small for it.
#[map]
static PATH: PerCpuArray<ScopePath> = PerCpuArray::with_max_entries(1, 0);

/// This CPU's room for a path.
#[inline(always)]
pub fn path_room<'a>() -> Option<&'a mut ScopePath> {
    // SAFETY: this CPU's own slot; the program does not sleep.
    PATH.get_ptr_mut(0).map(|room| unsafe { &mut *room })
}

/// The scopes that a cgroup with this path is to have.
#[inline(always)]
pub fn scopes_at(path: &ScopePath) -> Option<&mut PathScopes> {
    // SAFETY: used at once; the daemon replaces entries whole, and cgroups are made one at a time.
    SCOPE_PATHS.get_ptr_mut(path).map(|wanted| unsafe { &mut *wanted })
}

/// Takes a cgroup that is gone and user out of their scope.
#[inline(always)]
pub fn displace_scope(cgroup: u64, uid: u32) {
    let _gone = SCOPE_IDS.remove(&ScopeKey { cgroup, uid, padding: 0 });
}

/// Puts a cgroup and user into a scope.
#[inline(always)]
pub fn place_scope(cgroup: u64, uid: u32, id: u32) -> bool {
    SCOPE_IDS.insert(&ScopeKey { cgroup, uid, padding: 0 }, &id, u64::from(BPF_ANY)).is_ok()
}

#[inline(always)]
pub fn scope_id(cgroup: u64, uid: u32) -> Option<u32> {
    // SAFETY: the value is copied out at once.
    unsafe { SCOPE_IDS.get(&ScopeKey { cgroup, uid, padding: 0 }) }.copied()
}

#[inline(always)]
pub fn scope<'a>(id: u32) -> Option<&'a Scope> {
    SCOPES.get(id)
}

/// Redirected connections between their SYN and their acceptance by the daemon's listener:
/// microseconds each. Written before the SYN, deleted at establishment or close by sock_ops.
#[map]
pub static FLOWS: HashMap<Tuple, Socket> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// The daemon's last-mile dials. Written before the SYN and deleted at close by sock_ops;
/// read by the daemon. Room for four times the connections that a node admits by default.
#[map]
pub static DIALS: HashMap<Tuple, Dial> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// The truth about redirected sockets that the application does not hold itself (MPTCP subflows).
/// Written before the SYN and deleted at close by sock_ops.
#[map]
pub static TRUTHS: HashMap<Tuple, Socket> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// Who listens where. Written by sock_ops at listen() (and by the daemon's scan of older sockets),
/// deleted by sock_ops when the last socket on the address stops listening.
#[map]
pub static LISTENERS: HashMap<ListenKey, Listener> =
    HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// How many listeners in no scope there are. Written by sock_ops.
#[map]
static UNSCOPED: Array<u64> = Array::with_max_entries(1, 0);

/// Half of the table is kept for listeners in scopes: anybody can listen in no scope.
const UNSCOPED_LISTENERS: u64 = 32_768;

/// Counts listeners in no scope up or down. False: there are as many as there may be.
#[inline(always)]
pub fn count_unscoped(change: i64) -> bool {
    let Some(count) = UNSCOPED.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: a value of the map. A race between CPUs may miscount by a few, which the reserve bears.
    unsafe {
        if change > 0 && *count >= UNSCOPED_LISTENERS {
            return false;
        }
        *count = (*count).saturating_add_signed(change);
    }
    true
}

/// Destination prefix to the source address that routing would choose. Written by the daemon.
#[map]
static SOURCES: LpmTrie<SourceKey, Ip> = LpmTrie::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// The source address that routing would choose for `dst`.
#[inline(always)]
pub fn source_for(dst: &Ip) -> Option<&Ip> {
    SOURCES.get(Key::new(128, SourceKey { net: *dst }))
}

/// The daemon's listening sockets by [`slot`]. A slot empties itself when its socket closes.
#[map]
pub static PROXY: SockMap = SockMap::with_max_entries(slot::COUNT, 0);

/// What the daemon is told unasked: denials and closed observed connections. When it is full the
/// event is lost and counted; the daemon's metrics tell how many.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Decisions, by [`Counter`].
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter.index()) {
        // SAFETY: this CPU's own slot.
        unsafe { *value += 1 };
    }
}
