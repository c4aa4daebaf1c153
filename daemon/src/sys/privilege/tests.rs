//! A process that has given everything up tries what is forbidden; one that has not shows that the
//! same can be done.
#![expect(unsafe_code, reason = "calls by number, with arguments that do nothing, have no wrapper")]

use std::collections::BTreeMap;
use std::ffi::{c_long, c_void};
use std::io;
use std::process::Command;
use std::ptr::null;

use super::{KEPT, Programs, forbid_calls, keep_only};

const CONFINED: &str = "TACIT_TEST_CONFINED";
const NOWHERE: &std::ffi::CStr = c"/nonexistent/by/all/means";

/// Each with arguments on which a process with every privilege fails for another reason, or succeeds
/// without harm.
fn attempts() -> Vec<(&'static str, c_long, [c_long; 5])> {
    let nowhere = NOWHERE.as_ptr().expose_provenance().try_into().unwrap();
    let bpf = |command| (libc::SYS_bpf, [command, 0, 0, 0, 0]);
    let packets = [libc::AF_PACKET.into(), libc::SOCK_RAW.into(), 0, 0, 0];
    let calls = [
        ("ptrace", (libc::SYS_ptrace, [0x4206, c_long::from(i32::MAX), 0, 0, 0])),
        ("process_vm_readv", (libc::SYS_process_vm_readv, [i32::MAX.into(), 0, 0, 0, 0])),
        ("mount", (libc::SYS_mount, [nowhere, nowhere, 0, 0, 0])),
        ("move_mount", (libc::SYS_move_mount, [-1, nowhere, -1, nowhere, 0])),
        ("unshare", (libc::SYS_unshare, [0, 0, 0, 0, 0])),
        ("setns", (libc::SYS_setns, [-1, 0, 0, 0, 0])),
        ("chroot", (libc::SYS_chroot, [nowhere, 0, 0, 0, 0])),
        ("init_module", (libc::SYS_init_module, [0, 0, 0, 0, 0])),
        ("reboot", (libc::SYS_reboot, [0, 0, 0, 0, 0])),
        ("clock_settime", (libc::SYS_clock_settime, [0, 0, 0, 0, 0])),
        ("keyctl", (libc::SYS_keyctl, [0, -1, 0, 0, 0])),
        ("execve", (libc::SYS_execve, [nowhere, 0, 0, 0, 0])),
        ("bpf, load a program", bpf(5)),
        ("bpf, attach a program", bpf(8)),
        ("bpf, make a link", bpf(28)),
        ("socket of packets", (libc::SYS_socket, packets)),
        ("setgroups", (libc::SYS_setgroups, [0, 0, 0, 0, 0])),
        ("setuid", (libc::SYS_setuid, [65_534, 0, 0, 0, 0])),
    ];
    calls.into_iter().map(|(name, (call, arguments))| (name, call, arguments)).collect()
}

#[test]
#[ignore = "run by another test, in a process of its own"]
fn tries_what_is_forbidden() {
    if std::env::var_os(CONFINED).is_some() {
        keep_only(KEPT).unwrap();
        forbid_calls(Programs::None).unwrap();
    }
    // The harness has begun a line.
    println!();
    for (name, call, [a, b, c, d, e]) in attempts() {
        // SAFETY: pointers are null or a constant that lives for ever; none is written to.
        let done = unsafe { libc::syscall(call, a, b, c, d, e, null::<c_void>()) };
        let error = io::Error::last_os_error().raw_os_error();
        let denied = done == -1 && error == Some(libc::EPERM);
        println!("{name}={}", if denied { "denied" } else { "open" });
    }
}

fn tried(confined: bool) -> BTreeMap<String, bool> {
    let mut child = Command::new(std::env::current_exe().unwrap());
    let test = "sys::privilege::tests::tries_what_is_forbidden";
    child.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    if confined {
        child.env(CONFINED, "1");
    }
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let line = |line: &str| {
        let (name, fate) = line.rsplit_once('=')?;
        matches!(fate, "denied" | "open").then(|| (name.to_owned(), fate == "denied"))
    };
    said.lines().filter_map(line).collect()
}

#[test]
fn privileged_what_is_forbidden_fails() {
    let (open, confined) = (tried(false), tried(true));
    let all: Vec<_> = attempts().into_iter().map(|(name, ..)| name).collect();
    let denied = |of: &BTreeMap<String, bool>| -> Vec<&str> {
        all.iter().filter(|name| of[**name]).copied().collect()
    };
    assert_eq!(denied(&open), Vec::<&str>::new(), "the attempt would show nothing");
    assert_eq!(denied(&confined), all, "the rest is open to an intruder");
}

#[test]
fn what_is_missing_is_named_with_its_reason() {
    let all = KEPT.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(all.iter().all(|one| one.starts_with("CAP_") && one.ends_with(')')), "{all:?}");
    let mut names: Vec<_> = all.iter().filter_map(|one| one.split(' ').next()).collect();
    names.dedup();
    assert_eq!(names.len(), KEPT.len());
}
