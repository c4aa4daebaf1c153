//! Reads `/proc/PID/mountinfo`: which file system is mounted where. Pure; `procfs` takes the lines
//! apart, one by one: lines that make no sense are skipped, since a mount point's name is chosen by
//! whoever may mount. What it leaves as written is the device number and the escapes in names.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use nix::sys::stat::makedev;
use procfs::process::MountInfo;

/// One line of mountinfo. Source: `Documentation/filesystems/proc.rst`, section 3.5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Id of the mount, as `fdinfo` names it.
    pub id: u64,
    /// Device of the file system's super block (`s_dev`), in `stat` encoding.
    pub dev: u64,
    /// Directory of the file system that is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Type of the file system, such as `cgroup2`.
    pub kind: String,
}

/// Reads all lines, in the order of the file.
fn parse(mountinfo: &[u8]) -> impl Iterator<Item = Mount> + '_ {
    mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line)
}

/// The mount with this id. The other lines are not taken apart: there may be thousands.
pub fn find(mountinfo: &[u8], id: u64) -> Option<Mount> {
    let start = format!("{id} ");
    let mut lines = mountinfo.split(|byte| *byte == b'\n');
    parse_line(lines.find(|line| line.starts_with(start.as_bytes()))?)
}

/// Where the cgroup2 hierarchy is mounted: `/sys/fs/cgroup`, or a directory of it on hosts that
/// also mount the old controllers. Mounts of the whole hierarchy before mounts of parts.
pub fn find_cgroup2(mountinfo: &[u8]) -> Option<Mount> {
    let all: Vec<Mount> = parse(mountinfo).filter(|mount| mount.kind == "cgroup2").collect();
    let whole = all.iter().find(|mount| mount.root.as_os_str() == "/");
    whole.or(all.first()).cloned()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let info = MountInfo::from_line(&String::from_utf8_lossy(line)).ok()?;
    let (major, minor) = info.majmin.split_once(':')?;
    Some(Mount {
        id: info.mnt_id.try_into().ok()?,
        dev: makedev(major.parse().ok()?, minor.parse().ok()?),
        root: unescape(info.root.as_bytes()),
        point: unescape(info.mount_point.as_os_str().as_bytes()),
        kind: info.fs_type,
    })
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let escaped = octal(tail).filter(|_| *first == b'\\');
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    PathBuf::from(OsString::from_vec(out))
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..3)?).ok()?;
    if digits.bytes().all(|digit| digit.is_ascii_digit()) {
        u8::from_str_radix(digits, 8).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    const HYBRID: &[u8] = b"22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        36 31 0:33 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn finds_cgroup2_beside_the_old_controllers() {
        let mount = find_cgroup2(HYBRID).unwrap();
        assert_eq!(mount.point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!((mount.id, mount.dev), (41, makedev(0, 38)));
        assert_eq!(find(HYBRID, 41), Some(mount));
        assert_eq!(find(HYBRID, 4), None);
    }

    #[test]
    fn a_mount_of_the_whole_hierarchy_goes_before_a_part() {
        let text = b"1 2 0:3 /a /part rw - cgroup2 c rw\n4 2 0:3 / /whole rw - cgroup2 c rw\n";
        assert_eq!(find_cgroup2(text).unwrap().point, Path::new("/whole"));
    }

    #[test]
    fn a_name_cannot_pass_for_fields() {
        let text = b"7 1 8:1 / /mnt/a\\040-\\040cgroup2\\011b rw - ext4 /dev/sda rw\n";
        let mount = parse(text).next().unwrap();
        assert_eq!(mount.point, Path::new("/mnt/a - cgroup2\tb"));
        assert_eq!(mount.kind, "ext4");
        assert!(find_cgroup2(text).is_none());
    }

    #[test]
    fn own_mountinfo_is_read() {
        let text = std::fs::read("/proc/self/mountinfo").unwrap();
        assert!(parse(&text).any(|mount| mount.point == Path::new("/") || mount.kind == "proc"));
    }

    proptest! {
        #[test]
        fn never_panics(text: Vec<u8>) {
            parse(&text).count();
            find_cgroup2(&text);
            find(&text, 1);
        }

        #[test]
        fn never_panics_on_near_misses(text in "([0-9]{0,25} |[0-9]+:[0-9]+ |/[a\\\\0-9]* |- |cgroup2 |\n)*") {
            parse(text.as_bytes()).count();
        }
    }
}
