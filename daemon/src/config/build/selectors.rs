//! Which selectors there are, and what their values look like.

use crate::config::problem::nearest;
use crate::workload::Selector;

/// Every kind of selector that attestation can find.
const KNOWN: [&str; 10] = [
    "unix:uid",
    "unix:user",
    "unix:gid",
    "unix:group",
    "unix:supplementary_gid",
    "unix:supplementary_group",
    "unix:path",
    "unix:sha256",
    "systemd:id",
    "cgroup:path",
];

/// Those that hold alone, since a program cannot choose them for itself.
const FIRM: [&str; 7] =
    ["unix:uid", "unix:user", "unix:gid", "unix:group", "unix:sha256", "systemd:id", "cgroup:path"];

/// Reads a selector. An error is what is wrong, and what to do.
pub(super) fn parse(text: &str) -> Result<Selector, (String, String)> {
    let wrong = |what: &str, remedy: &str| (what.to_owned(), remedy.to_owned());
    let selector: Selector = text.parse().map_err(|_error| {
        wrong("is not a selector", "write type:key:value, such as unix:uid:1000")
    })?;
    let name = name(&selector);
    if !KNOWN.contains(&name.as_str()) {
        let remedy = match nearest(&name, &KNOWN) {
            Some(near) => format!("perhaps `{near}:` is meant"),
            None => format!("known are {}", KNOWN.join(", ")),
        };
        return Err((format!("no attestor finds `{name}`"), remedy));
    }
    let value = selector.value().split_once(':').map_or("", |(_, value)| value);
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match name.as_str() {
        _ if value.is_empty() => Err(wrong("has no value", "write one behind the second colon")),
        "unix:uid" | "unix:gid" | "unix:supplementary_gid"
            if value.parse::<u32>().map_or(true, |number| number.to_string() != value) =>
        {
            Err(wrong("is not a number", "write the number, or select by user or group name"))
        }
        "unix:path" | "cgroup:path" if !value.starts_with('/') => {
            Err(wrong("is not an absolute path", "write the path from / on"))
        }
        "unix:sha256" if value.len() != 64 || !value.bytes().all(is_hex) => Err(wrong(
            "is not a SHA-256 digest",
            "write 64 lower-case hex digits, as sha256sum does",
        )),
        _ => Ok(selector),
    }
}

/// Whether a program cannot choose this fact about itself.
pub(super) fn is_firm(selector: &Selector) -> bool {
    FIRM.contains(&name(selector).as_str())
}

/// Type and key: `unix:uid`.
fn name(selector: &Selector) -> String {
    let key = selector.value().split_once(':').map_or(selector.value(), |(key, _)| key);
    format!("{}:{key}", selector.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_attestation_finds() {
        let digest = "0123456789abcdef".repeat(4);
        for good in ["unix:uid:0", "unix:path:/bin/a:b", "systemd:id:a@b.service", "cgroup:path:/a"]
        {
            assert!(parse(good).is_ok(), "{good}");
        }
        assert!(parse(&format!("unix:sha256:{digest}")).is_ok());
        let bad = [
            "",
            "unix",
            "unix:",
            "unix:uid",
            "unix:uid:",
            "unix:uid:x",
            "unix:uid:007",
            "unix:uid:-1",
            "unix:uid:4294967296",
            "unix:ud:1",
            "docker:label:a",
            "unix:path:bin",
            "cgroup:path:a",
            "unix:sha256:00",
            "unix:sha256:zz",
        ];
        for bad in bad {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&format!("unix:sha256:{}", digest.to_uppercase())).is_err());
        assert!(parse("unix:ud:1").unwrap_err().1.contains("unix:uid"));
    }
}
