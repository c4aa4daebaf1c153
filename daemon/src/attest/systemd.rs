//! `systemd:id`: which unit of the system manager does a cgroup path belong to?
//! The *outermost* one. Below a unit lies what it was delegated (a user's own manager, a container,
//! whatever a service makes): such names are chosen by the workload and never count.

use std::path::Path;

/// Whether this host's init is systemd. Source: `sd_booted(3)`.
pub(super) fn is_booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The unit that a cgroup path belongs to, spelled as systemd spells it (escapes kept).
pub(super) fn unit_of(cgroup: &str) -> Option<&str> {
    let mut segments = cgroup.strip_prefix('/')?.split('/').map(unescape);
    // The first that is no slice decides, unit or not: what is made at the root or in a slice by
    // something other than systemd may hold directories of any name.
    let unit = segments.find(|segment| !is_unit(segment, &["slice"]))?;
    is_unit(unit, &["service", "scope", "socket", "mount", "swap"]).then_some(unit)
}

/// systemd puts `_` before names that the kernel might take for its own files, `memory.service`
/// among them. Source: systemd `cg_escape`, src/basic/cgroup-util.c.
fn unescape(segment: &str) -> &str {
    segment.strip_prefix('_').unwrap_or(segment)
}

/// Source: systemd.unit(5): at most 255 characters; ASCII letters, digits and `:-_.\@`.
fn is_unit(name: &str, kinds: &[&str]) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    name.len() <= 255
        && name.bytes().all(allowed)
        && name.rsplit_once('.').is_some_and(|(stem, kind)| {
            !stem.is_empty() && !stem.starts_with('@') && kinds.contains(&kind)
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_outermost_unit_counts() {
        let table = [
            ("/system.slice/redis.service", Some("redis.service")),
            ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            ("/system.slice/a.service/b.service", Some("a.service")),
            ("/system.slice/a.service/system.slice/redis.service", Some("a.service")),
            ("/system.slice/docker-0123.scope", Some("docker-0123.scope")),
            ("/system.slice/docker-0123.scope/system.slice/a.service", Some("docker-0123.scope")),
            ("/system.slice/cups.socket", Some("cups.socket")),
            ("/system.slice/var-lib.mount", Some("var-lib.mount")),
            ("/system.slice/dev-sda2.swap", Some("dev-sda2.swap")),
            (r"/system.slice/dev-disk-by\x2dlabel-x.swap", Some(r"dev-disk-by\x2dlabel-x.swap")),
            ("/system.slice/_memory.service", Some("memory.service")),
            ("/system.slice/__own.service", Some("_own.service")),
            ("/init.scope", Some("init.scope")),
            ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/redis.service",
                Some("user@1000.service"),
            ),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", Some("user@1000.service")),
            ("/machine.slice/libpod-77.scope/container", Some("libpod-77.scope")),
            ("/custom.service", Some("custom.service")),
        ];
        for (path, unit) in table {
            assert_eq!(unit_of(path), unit, "{path}");
        }
    }

    #[test]
    fn forged_and_foreign_names_are_no_unit() {
        for path in [
            "",
            "/",
            "redis.service",
            "//redis.service",
            "/system.slice",
            "/system.slice/",
            "/system.slice/.service",
            "/system.slice/@x.service",
            "/system.slice/redis.service ",
            "/system.slice/re dis.service",
            "/system.slice/redis.service\n",
            "/system.slice/redis.SERVICE",
            "/system.slice/redis.timer",
            "/system.slice/r\u{e9}dis.service",
            "/docker/0123/system.slice/redis.service",
            "/kubepods/pod1/redis.service",
            "/.slice/redis.service",
            "/../system.slice/redis.service",
            "/system.slice/x/redis.service",
        ] {
            assert_eq!(unit_of(path), None, "{path:?}");
        }
        assert_eq!(unit_of(&format!("/system.slice/{}.service", "a".repeat(300))), None);
    }

    proptest! {
        #[test]
        fn never_panics(path: String) {
            unit_of(&path);
        }

        #[test]
        fn nothing_below_a_unit_counts(below in "(/[a-z.@_-]{0,12}(\\.service|\\.slice|\\.scope)?){0,6}") {
            let path = format!("/system.slice/web.service{below}");
            let outermost = unit_of(&path).unwrap();
            // A longer first segment is another unit; a segment below is not.
            prop_assert_eq!(Some(outermost), path.split('/').nth(2));
        }
    }
}
