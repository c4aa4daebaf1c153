//! Every map, once: what it holds, why that size, who writes, who reads, who deletes.
//! Also the thin wrappers over helpers, so that hook files hold no raw pointers but their context.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{
    BPF_ANY, BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type,
};
use aya_ebpf::btf_maps;
use aya_ebpf::helpers::generated::{
    bpf_map_lookup_elem, bpf_sk_release, bpf_sk_storage_delete, bpf_sk_storage_get, bpf_spin_lock,
    bpf_spin_unlock,
};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf, SockMap};
use ebpf_abi::{
    Config, Counter, Dial, Ip, ListenKey, Listener, MAX_LISTENERS, PathScopes, SCOPE_SLOTS, Scope,
    ScopeKey, ScopePath, Socket, SourceKey, Tuple, slot,
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
/// the cgroup that had the path before. Room for every scope of two configurations, and for those of
/// cgroups that are made meanwhile.
#[map]
static SCOPE_IDS: HashMap<ScopeKey, u32> = HashMap::with_max_entries(2 * SCOPE_SLOTS, 0);

/// Scope index to what holds. Written by the daemon; a change holds for live sockets at once.
#[map]
static SCOPES: Array<Scope> = Array::with_max_entries(SCOPE_SLOTS, 0);

/// Cgroup path to the scopes that it is to have as soon as it is made. Written by the daemon. Room for
/// the paths of two configurations.
#[map]
static SCOPE_PATHS: HashMap<ScopePath, PathScopes> = HashMap::with_max_entries(SCOPE_SLOTS, 0);

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

/// Who listens where, for listeners in scopes. Written by sock_ops at listen() and close (and by the
/// daemon, for older sockets); deleted by the daemon once nobody listens there. Programs never
/// delete: who is about to listen on the same address could lose its entry.
#[btf_map]
static LISTENERS: btf_maps::HashMap<ListenKey, Listener, 65_536, NO_PREALLOC> =
    btf_maps::HashMap::new();

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// The entry of this address; nobody may listen there any more.
#[inline(always)]
pub fn listener<'a>(key: &ListenKey) -> Option<&'a mut Listener> {
    // SAFETY: a value of the map, valid while the program runs; written under its lock alone.
    LISTENERS.get_ptr_mut(key).map(|entry| unsafe { &mut *entry })
}

/// Changes an entry while nobody else does. `change` may call no helper: the verifier's rule.
#[inline(always)]
pub fn with_lock(entry: &mut Listener, change: impl FnOnce(&mut Listener)) {
    let lock = ptr::addr_of_mut!(entry.lock).cast();
    // SAFETY: the lock is a field of a map value, and is released below on the only way out.
    unsafe { bpf_spin_lock(lock) };
    change(entry);
    // SAFETY: taken above.
    unsafe { bpf_spin_unlock(lock) };
}

/// Adds an entry for an address that has none. False: there is one by now, or no room.
#[inline(always)]
pub fn add_listener(key: &ListenKey, entry: &Listener) -> bool {
    LISTENERS.insert(key, entry, u64::from(BPF_NOEXIST)).is_ok()
}

/// How many entries each scope has in `LISTENERS`. Counted up by sock_ops and set right by the
/// daemon, which deletes them.
#[map]
static SCOPE_LISTENERS: Array<u64> = Array::with_max_entries(SCOPE_SLOTS, 0);

/// Whether the scope may have one entry more; then it is counted.
#[inline(always)]
pub fn take_listener_place(scope: u32) -> bool {
    let Some(count) = SCOPE_LISTENERS.get_ptr_mut(scope) else {
        return false;
    };
    // SAFETY: a value of the map. A race between CPUs miscounts by one until the daemon counts.
    unsafe {
        if *count >= MAX_LISTENERS {
            return false;
        }
        *count += 1;
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

/// Whether the daemon's listening socket of this slot is open: in the daemon, or in keeping.
#[inline(always)]
pub fn listens(slot: u32) -> bool {
    let map = ptr::from_ref(&PROXY).cast_mut().cast();
    // SAFETY: the helper takes a map and a key of its type, and gives null or a socket that is ours
    // to release.
    unsafe {
        let socket = bpf_map_lookup_elem(map, ptr::from_ref(&slot).cast());
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket);
    }
    true
}

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
