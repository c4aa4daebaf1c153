//! The test build of the daemon whose countermeasures tests can switch off: the sources are copied,
//! edited as `tests/attack/switches.rs` says, and built as `tacit-switched`. Nothing of it gets
//! into the daemon that is shipped, whose sources know no switch.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::run;
use crate::tidy::members;

#[path = "../../tests/attack/switches.rs"]
mod switches;

use switches::{Edit, SWITCHES};

const fn edit(file: &'static str, find: &'static str, replace: &'static str) -> Edit {
    Edit { file, find, replace }
}

/// What is no member of the workspace and belongs to it all the same.
const BESIDE: [&str; 3] = ["Cargo.toml", "Cargo.lock", "ebpf-programs"];

/// Where the members lie in the copy: cargo names what it builds by the path below the root, and
/// must never take one for the other in the target folder that they share.
const MEMBERS: &str = "switched";

/// Another name; and how the switches reach the places where they are asked.
const PLUMBING: [Edit; 6] = [
    edit("daemon/Cargo.toml", "[lib]\nname = \"tacit\"\n", "[lib]\nname = \"tacit_switched\"\n"),
    edit(
        "daemon/Cargo.toml",
        "[[bin]]\nname = \"tacit\"\n",
        "[[bin]]\nname = \"tacit-switched\"\n",
    ),
    edit("daemon/src/main.rs", "\nuse tacit::{", "\nuse tacit_switched::{"),
    Edit {
        file: "daemon/src/lib.rs",
        find: "\npub mod sys;\n",
        replace: "\npub mod switched;\npub mod sys;\n",
    },
    Edit {
        file: "daemon/src/bpf/kernel.rs",
        find: "        let mut loader = EbpfLoader::new();\n",
        replace: "        let off = crate::switched::mask();\n        \
                  let mut loader = EbpfLoader::new();\n        \
                  loader.override_global(\"SWITCHED_OFF\", &off, true);\n",
    },
    Edit {
        file: "ebpf-programs/src/main.rs",
        find: "\nmod scope;\n",
        replace: "\nmod scope;\nmod switched;\n",
    },
];

const IN_DAEMON: &str = "//! Which countermeasures are switched off (a test build).\n\n\
    /// A bit each.\n\
    pub fn mask() -> u64 {\n    \
    std::env::var(\"TACIT_SWITCHED_OFF\").ok().and_then(|mask| mask.parse().ok()).unwrap_or(0)\n}\n\n\
    /// Whether this one is.\n\
    pub fn off(bit: u32) -> bool {\n    mask() >> bit & 1 == 1\n}\n\n\
    /// A pinned map.\n\
    pub fn pinned(pins: &std::path::Path, map: &str) -> std::path::PathBuf {\n    \
    let version = std::fs::read_dir(pins).into_iter().flatten().flatten().next();\n    \
    version.map(|it| it.path()).unwrap_or_default().join(\"maps\").join(map)\n}\n";

const IN_PROGRAMS: &str = "//! Which countermeasures are switched off (a test build).\n\n\
    #[unsafe(no_mangle)]\nstatic SWITCHED_OFF: u64 = 0;\n\n\
    #[inline(always)]\npub fn off(bit: u32) -> bool {\n    \
    // SAFETY: a constant that the loader has set.\n    \
    unsafe { core::ptr::read_volatile(&SWITCHED_OFF) >> bit & 1 == 1 }\n}\n";

/// What is wrong with the list of switches: places that are gone or no longer unique.
pub(crate) fn problems() -> Vec<String> {
    let mut found = Vec::new();
    for (name, edit) in edits() {
        let text = fs::read_to_string(run::root().join(edit.file)).unwrap_or_default();
        let count = text.matches(edit.find).count();
        if count != 1 {
            found.push(format!(
                "tests/attack/switches.rs: `{name}`: its place in {} is there {count} times",
                edit.file
            ));
        }
    }
    if SWITCHES.len() > 64 || SWITCHES.iter().any(|switch| switch.without.is_empty()) {
        found.push("tests/attack/switches.rs: a switch without a bit or words".to_owned());
    }
    found
}

/// Builds it and says where the binary is.
pub(crate) fn build(environment: Vec<(&'static str, std::ffi::OsString)>) -> Result<PathBuf> {
    let problems = problems();
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    let copy = run::target_dir().join("switched");
    let mut wanted = BTreeMap::new();
    let manifest = fs::read_to_string(run::root().join("Cargo.toml"))?;
    for part in members(&manifest).chain(BESIDE) {
        read(run::root(), Path::new(part), &mut wanted)?;
    }
    wanted.insert("Cargo.toml".into(), moved(&manifest).into_bytes());
    wanted.insert("daemon/src/switched.rs".into(), IN_DAEMON.into());
    wanted.insert("ebpf-programs/src/switched.rs".into(), IN_PROGRAMS.into());
    for edit in PLUMBING {
        apply(&mut wanted, &edit, "")?;
    }
    for (bit, switch) in SWITCHES.iter().enumerate() {
        for edit in switch.edits {
            apply(&mut wanted, edit, &format!("crate::switched::off({bit})"))?;
        }
    }
    let placed = |(path, bytes): (PathBuf, Vec<u8>)| match path.parent() {
        Some(folder) if folder != Path::new("") => (Path::new(MEMBERS).join(path), bytes),
        _ => (path, bytes),
    };
    write(&copy, &wanted.into_iter().map(placed).collect())?;
    // The same target folder: what the daemon depends on is compiled once for both.
    let mut cargo = run::cargo(&["build", "--quiet", "--package", "tacit"]);
    cargo.current_dir(&copy).env("CARGO_TARGET_DIR", run::target_dir()).envs(environment);
    run::check(&mut cargo)?;
    Ok(run::target_dir().join("debug/tacit-switched"))
}

/// The manifest of the workspace, whose members lie in a folder of their own.
fn moved(manifest: &str) -> String {
    members(manifest).chain(BESIDE).fold(manifest.to_owned(), |text, part| {
        text.replace(&format!("\"{part}\""), &format!("\"{MEMBERS}/{part}\""))
    })
}

fn edits() -> impl Iterator<Item = (&'static str, &'static Edit)> {
    let plumbing = PLUMBING.iter().map(|edit| ("plumbing", edit));
    let switches = SWITCHES.iter().flat_map(|it| it.edits.iter().map(|edit| (it.name, edit)));
    plumbing.chain(switches)
}

fn apply(files: &mut BTreeMap<PathBuf, Vec<u8>>, edit: &Edit, off: &str) -> Result<()> {
    let bytes = files.get_mut(Path::new(edit.file)).with_context(|| edit.file.to_owned())?;
    let text = std::str::from_utf8(bytes)?;
    if text.matches(edit.find).count() != 1 {
        bail!("{}: two switches want the same place: {}", edit.file, edit.find);
    }
    *bytes = text.replace(edit.find, &edit.replace.replace("{off}", off)).into_bytes();
    Ok(())
}

fn read(root: &Path, part: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    let path = root.join(part);
    if path.is_dir() {
        for entry in fs::read_dir(&path)? {
            let name = entry?.file_name();
            if name != "target" {
                read(root, &part.join(name), into)?;
            }
        }
        return Ok(());
    }
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    into.insert(part.to_owned(), bytes);
    Ok(())
}

/// Writes what differs, so that only that is compiled again, and removes what is gone.
fn write(copy: &Path, wanted: &BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    let mut there = BTreeMap::new();
    if copy.exists() {
        read(copy, Path::new(""), &mut there)?;
    }
    for gone in there.keys().filter(|path| !wanted.contains_key(*path)) {
        fs::remove_file(copy.join(gone))?;
    }
    for (path, bytes) in wanted.iter().filter(|(path, bytes)| there.get(*path) != Some(bytes)) {
        let to = copy.join(path);
        fs::create_dir_all(to.parent().unwrap_or(copy))?;
        fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_move() {
        let manifest =
            "members = [\"a\", \"b\"]\nexclude = [\"ebpf-programs\"]\na = { path = \"a\" }\n";
        let there = "members = [\"switched/a\", \"switched/b\"]\n\
                     exclude = [\"switched/ebpf-programs\"]\na = { path = \"switched/a\" }\n";
        assert_eq!(moved(manifest), there);
    }

    #[test]
    fn an_edit_must_match_once() {
        let edit = Edit { file: "a.rs", find: "if x {", replace: "if !{off} && x {" };
        let mut files = BTreeMap::from([(PathBuf::from("a.rs"), b"if x { y }".to_vec())]);
        apply(&mut files, &edit, "off(1)").unwrap();
        assert_eq!(files[Path::new("a.rs")], b"if !off(1) && x { y }");
        assert!(apply(&mut files, &edit, "off(1)").is_err());
    }
}
