//! Where the daemon stands on the host before it does anything: in a cgroup of its own, and with a
//! BPF file system.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::CaptureConfig;
use crate::sys::cgroup::Cgroups;
use crate::sys::{bpffs, clock};
use crate::workload::CgroupId;

use super::StartError;

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
    cgroups.create(&path).map_err(|source| failed(&path, source))?;
    wait_until_empty(cgroups, &path)?;
    enter(cgroups, &path)
}

/// Moves the daemon into a cgroup that holds daemons of this instance and nothing else.
pub(super) fn enter(cgroups: &Cgroups, path: &str) -> Result<CgroupId, StartError> {
    let failed = |source| StartError::Cgroup { path: path.to_owned(), source };
    cgroups.enter(path).map_err(failed)?;
    cgroups.id_of(path).map_err(failed)
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
