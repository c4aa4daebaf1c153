//! The `bpf()` calls that aya has no public way for: make a link, replace its program, pin it.
//!
//! A link that is pinned outlives the daemon, and replacing the program of a pinned link is atomic:
//! there is no moment without one. Source: include/uapi/linux/bpf.h, `BPF_LINK_CREATE` (Linux 5.7),
//! `BPF_LINK_UPDATE` (5.7), `BPF_OBJ_PIN`, `BPF_OBJ_GET`.
#![expect(unsafe_code, reason = "bpf() has no safe wrapper")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;

/// The part of `union bpf_attr` that these commands read: four words, the rest zero.
#[repr(C, align(8))]
struct Attr {
    words: [u32; 32],
}

/// Attaches `program` to `target` (a cgroup or network namespace) by a new link.
pub fn create(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut attr = Attr { words: [0; 32] };
    attr.words[..3].copy_from_slice(&[fd(program), fd(target), attach_type]);
    let link = call(BPF_LINK_CREATE, &mut attr)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Attaches `program` to a raw tracepoint by a new link.
pub fn create_tracepoint(program: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let name = CString::new(name).map_err(io::Error::other)?;
    let mut attr = with_path(&name);
    attr.words[2] = fd(program);
    let link = call(BPF_RAW_TRACEPOINT_OPEN, &mut attr)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Replaces the program of a link, atomically.
pub fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = Attr { words: [0; 32] };
    attr.words[..2].copy_from_slice(&[fd(link), fd(program)]);
    call(BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// What a link of a cgroup or network namespace is attached to: the cgroup's id, or the namespace's
/// inode. Of other links it means nothing.
pub fn target(link: BorrowedFd<'_>, kind: TargetKind) -> io::Result<u64> {
    // struct bpf_link_info: type, id, prog_id, padding; then, for a cgroup, u64 cgroup_id and
    // u32 attach_type, for a namespace u32 netns_ino and u32 attach_type.
    let mut info = Attr { words: [0; 32] };
    let mut attr = Attr { words: [0; 32] };
    let address = (&raw mut info).expose_provenance();
    let address = u64::try_from(address).map_err(io::Error::other)?;
    let (low, high) = halves(address);
    let len = u32::try_from(size_of::<Attr>()).map_err(io::Error::other)?;
    attr.words[..4].copy_from_slice(&[fd(link), len, low, high]);
    call(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    // SAFETY: written by the kernel through the address above; plain integers.
    let info = unsafe { std::ptr::read_volatile(&raw const info) };
    Ok(match kind {
        TargetKind::Cgroup => u64::from(info.words[5]) << 32 | u64::from(info.words[4]),
        TargetKind::Netns => info.words[4].into(),
    })
}

/// What a link is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// A cgroup.
    Cgroup,
    /// A network namespace.
    Netns,
}

/// Pins a link, program or map under bpffs.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = c_path(path)?;
    let mut attr = with_path(&name);
    attr.words[2] = fd(object);
    call(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Opens what is pinned; `NotFound` if nothing is.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let name = c_path(path)?;
    let object = call(BPF_OBJ_GET, &mut with_path(&name))?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(object) })
}

#[expect(clippy::as_conversions, reason = "a pointer as the kernel wants it in the attribute")]
fn with_path(name: &CString) -> Attr {
    let mut attr = Attr { words: [0; 32] };
    (attr.words[0], attr.words[1]) = halves(name.as_ptr() as u64);
    attr
}

/// A 64-bit field as two words, as they lie in memory.
fn halves(value: u64) -> (u32, u32) {
    let bytes = value.to_ne_bytes();
    let (low, high) = bytes.split_at(4);
    let word = |half: &[u8]| u32::from_ne_bytes(half.try_into().unwrap_or_default());
    (word(low), word(high))
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn fd(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}

fn call(command: libc::c_long, attr: &mut Attr) -> io::Result<i32> {
    // SAFETY: `attr` lives through the call and is larger than what these commands read; a path in
    // it is kept alive by the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<Attr>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
