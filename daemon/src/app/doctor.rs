//! What `tacit doctor` looks at: the kernel's features, what is attached, what is left.

use std::path::Path;

use nix::sys::utsname::uname;

use crate::admin::Standing;
use crate::admin::dump::{CheckDump, DoctorDump, ScopeDump, Verdict};
use crate::bpf::PinStatus;
use crate::sys::bpffs;
use crate::sys::cgroup::Cgroups;

/// The checks of a running daemon, of which these are the snapshots.
pub(super) fn doctor(
    programs: &[PinStatus],
    scopes: &[ScopeDump],
    conditions: Vec<Standing>,
) -> DoctorDump {
    let mut checks = machine();
    for pinned in programs {
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
            verdict: if standing.failing.is_none() { Verdict::Ok } else { Verdict::Failed },
            detail: standing.failing.unwrap_or_else(|| "met".to_owned()),
            name: standing.condition,
            remedy: None,
        });
    }
    DoctorDump { checks }
}

/// The checks that need no daemon; says what an earlier one has left.
pub fn doctor_without_daemon() -> DoctorDump {
    let mut checks = machine();
    let pins = Path::new(bpffs::USUAL).join("tacit");
    let left: Vec<String> = pins
        .read_dir()
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    checks.push(if left.is_empty() {
        ok("residue", "nothing of tacit is in the kernel")
    } else {
        CheckDump {
            name: "residue".to_owned(),
            verdict: Verdict::Warning,
            detail: format!(
                "programs of {} are attached and hold strict scopes closed",
                left.join(", ")
            ),
            remedy: Some("start the daemon, or remove them by `tacit uninstall`".to_owned()),
        }
    });
    DoctorDump { checks }
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
