//! What `tacit doctor` looks at: the kernel's features, what is attached, what is left.

use std::fs::DirEntry;
use std::io;
use std::path::Path;
use std::sync::Arc;

use nix::sys::utsname::uname;

use crate::admin::Standing;
use crate::admin::dump::{CheckDump, DoctorDump, ScopeDump, Verdict};
use crate::bpf::{Kernel, Lack};
use crate::config::{Given, Installation};
use crate::sys::cgroup::Cgroups;
use crate::sys::process;

use super::bypasses::Bypass;

/// The checks of a running daemon, of which these are the snapshots.
pub(super) fn doctor(
    kernel: &Kernel,
    scopes: &[ScopeDump],
    conditions: Vec<Standing>,
) -> DoctorDump {
    let mut checks = machine();
    checks.extend(kernel.lacks().iter().map(lacking));
    let known = |name: &str| kernel.lacks().iter().any(|lack| lack.program == name);
    for pinned in kernel.status().iter().filter(|pinned| !known(pinned.program)) {
        checks.push(CheckDump {
            name: format!("program {}", pinned.program),
            verdict: if pinned.attached { Verdict::Ok } else { Verdict::Failed },
            detail: if pinned.attached { "attached, pinned" } else { "not attached" }.to_owned(),
            remedy: (!pinned.attached).then(|| "restart the daemon".to_owned()),
        });
    }
    for scope in scopes.iter().filter(|scope| scope.present == Some(false)) {
        checks.push(CheckDump {
            name: format!("scope {}", scope.cgroup),
            verdict: Verdict::Warning,
            detail: "the cgroup does not exist now".to_owned(),
            remedy: Some(
                "a scope that is strict from the first moment names a slice that stays".to_owned(),
            ),
        });
    }
    for standing in conditions {
        checks.push(CheckDump {
            verdict: match (&standing.failing, &standing.degraded) {
                (Some(_), _) => Verdict::Failed,
                (None, Some(_)) => Verdict::Warning,
                (None, None) => Verdict::Ok,
            },
            detail: standing.failing.or(standing.degraded).unwrap_or_else(|| "met".to_owned()),
            name: standing.condition,
            remedy: None,
        });
    }
    DoctorDump { checks }
}

/// What goes past the scopes.
pub(super) fn bypasses(looked: io::Result<Arc<Vec<Bypass>>>) -> Vec<CheckDump> {
    let found = match looked {
        Ok(found) => found,
        Err(error) => return vec![failed("bypasses", &error.to_string(), "see the log")],
    };
    if found.is_empty() {
        return vec![ok("bypasses", "nothing goes past the scopes")];
    }
    let check = |bypass: &Bypass| CheckDump {
        name: format!("scope {}", bypass.scope),
        verdict: if bypass.breaks_strict() { Verdict::Failed } else { Verdict::Warning },
        detail: bypass.to_string(),
        remedy: Some(bypass.way.remedy().to_owned()),
    };
    found.iter().map(check).collect()
}

/// The checks that need no daemon; says what an earlier one has left, of whatever instance. The
/// configuration at `path` says where.
pub fn doctor_without_daemon(path: &Path) -> DoctorDump {
    let mut checks = machine();
    checks.extend(programs());
    match Installation::read(path, Given::default()) {
        Ok(found) => checks.push(residue(&found.capture.bpffs)),
        Err(problems) => {
            let remedy = "correct it: it says where to look (capture.bpffs)";
            checks.push(failed("residue", &problems.to_string(), remedy));
        }
    }
    DoctorDump { checks }
}

/// What is pinned below this BPF file system.
fn residue(bpffs: &Path) -> CheckDump {
    let pins = bpffs.join("tacit");
    let names = |entry: io::Result<DirEntry>| {
        entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
    };
    let left =
        pins.read_dir().and_then(|entries| entries.map(names).collect::<io::Result<Vec<_>>>());
    match left {
        Err(error) if error.kind() == io::ErrorKind::NotFound => nothing(bpffs),
        Err(error) => {
            let remedy = if error.kind() == io::ErrorKind::PermissionDenied {
                "look as root"
            } else {
                "see capture.bpffs"
            };
            failed("residue", &format!("cannot look at {}: {error}", pins.display()), remedy)
        }
        Ok(left) if left.is_empty() => nothing(bpffs),
        Ok(left) => CheckDump {
            name: "residue".to_owned(),
            verdict: Verdict::Warning,
            detail: format!(
                "programs of {} are attached and hold strict scopes closed",
                left.join(", ")
            ),
            remedy: Some(
                "start the daemon of each, or remove what it left by `tacit uninstall --instance`"
                    .to_owned(),
            ),
        },
    }
}

fn nothing(bpffs: &Path) -> CheckDump {
    ok("residue", &format!("nothing of tacit is in the kernel (looked at {})", bpffs.display()))
}

/// Whether the kernel takes the programs. It is asked by loading them.
fn programs() -> Vec<CheckDump> {
    // Kernels before 5.11 count maps against this limit; where it stays, loading says so.
    let _lifted = process::lift_locked_memory().is_ok();
    match Kernel::probe() {
        Ok(lacks) if lacks.is_empty() => vec![ok("programs", "the kernel takes every one")],
        Ok(lacks) => lacks.iter().map(lacking).collect(),
        Err(error) => {
            vec![failed(
                "programs",
                &error.to_string(),
                "run as root, on a kernel of docs/kernels.md",
            )]
        }
    }
}

fn lacking(lack: &Lack) -> CheckDump {
    let remedy = if lack.breaks_strict {
        "no scope can be strict here: use a kernel of docs/kernels.md that lacks nothing"
    } else {
        "nothing is less safe for it; a kernel of docs/kernels.md has it"
    };
    CheckDump {
        name: format!("program {}", lack.program),
        verdict: Verdict::Warning,
        detail: format!("the kernel refuses it ({}): {}", lack.reason, lack.means),
        remedy: Some(remedy.to_owned()),
    }
}

fn machine() -> Vec<CheckDump> {
    let kernel = uname().map_or_else(
        |error| failed("kernel", &error.to_string(), "uname(2) must work"),
        |name| ok("kernel", &name.release().to_string_lossy()),
    );
    let cgroups = match Cgroups::find() {
        Ok(cgroups) => ok("cgroup2", &cgroups.mount().display().to_string()),
        Err(error) => failed("cgroup2", &error.to_string(), "mount the cgroup2 hierarchy"),
    };
    let btf = if Path::new("/sys/kernel/btf/vmlinux").exists() {
        ok("BTF", "/sys/kernel/btf/vmlinux")
    } else {
        failed(
            "BTF",
            "the kernel has no type information",
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y",
        )
    };
    vec![kernel, cgroups, btf]
}

fn ok(name: &str, detail: &str) -> CheckDump {
    let (name, detail) = (name.to_owned(), detail.to_owned());
    CheckDump { name, verdict: Verdict::Ok, detail, remedy: None }
}

fn failed(name: &str, detail: &str, remedy: &str) -> CheckDump {
    CheckDump {
        name: name.to_owned(),
        verdict: Verdict::Failed,
        detail: detail.to_owned(),
        remedy: Some(remedy.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_not_taken_for_empty() {
        let dir = tempfile::tempdir().unwrap();
        let look = || residue(dir.path());
        assert_eq!((look().verdict, look().remedy), (Verdict::Ok, None));
        let pins = dir.path().join("tacit");
        std::fs::write(&pins, "no directory").unwrap();
        assert_eq!(look().verdict, Verdict::Failed);
        assert!(look().detail.contains("cannot look at"), "{:?}", look());
        std::fs::remove_file(&pins).unwrap();
        std::fs::create_dir_all(pins.join("blue")).unwrap();
        assert_eq!(look().verdict, Verdict::Warning);
        assert!(look().detail.contains("blue"), "{:?}", look());
    }

    #[test]
    fn a_configuration_that_does_not_say_where_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let write = |text: String| std::fs::write(&path, text).unwrap();
        let residue = || doctor_without_daemon(&path).checks.pop().unwrap();
        write("[capture]\nbpffs = \"here\"\n".to_owned());
        assert_eq!(residue().verdict, Verdict::Failed);
        write(format!("[capture]\nbpffs = \"{}\"\nnonsense = 1\n", dir.path().display()));
        std::fs::create_dir_all(dir.path().join("tacit/blue")).unwrap();
        assert!(residue().detail.contains("blue"), "{:?}", residue());
    }
}
