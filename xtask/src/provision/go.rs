//! A Go that can build the go-spiffe peers of the interop tier: the one that is installed if it
//! is new enough, else one that is fetched through Go's own module mechanism.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::provision::packages;
use crate::run;

/// The oldest Go that builds `tests/interop/go`.
const OLDEST: (u32, u32) = (1, 25);
/// What is fetched where there is none.
const FETCHED: &str = "v0.0.1-go1.26.0";

/// Finds or fetches a Go; gives the path of the command.
pub(crate) fn ready() -> Result<PathBuf> {
    if let Some(go) = new_enough() {
        println!("Go: {}", go.display());
        return Ok(go);
    }
    if run::find("go").is_none() {
        packages::install(&["golang-go"], "any Go can fetch a newer one")?;
        if let Some(go) = new_enough() {
            return Ok(go);
        }
    }
    let module = format!("golang.org/toolchain@{FETCHED}.linux-{}", architecture());
    println!("Go: the installed one is too old; fetching {module} as a module");
    // From an empty folder: an old Go must not read a go.mod that is too new for it.
    let folder = run::target_dir().join("go-fetch");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("go.mod"), "module fetch\n")?;
    let old = run::find("go").context("no go command to fetch a newer one with")?;
    let answer = run::output(
        run::command(old, &["mod", "download", "-json", &module]).current_dir(&folder),
    )?;
    let home = field(&answer, "Dir").context("`go mod download` named no folder")?;
    let go = PathBuf::from(home).join("bin/go");
    make_executable(&go)?;
    println!("Go: {}", go.display());
    Ok(go)
}

fn new_enough() -> Option<PathBuf> {
    let go = run::find("go")?;
    let version = run::output(&mut run::command(&go, &["version"])).ok()?;
    (parse(&version)? >= OLDEST).then_some(go)
}

/// `go version go1.26.8 linux/amd64` -> (1, 26)
fn parse(version: &str) -> Option<(u32, u32)> {
    let number = version.split_whitespace().find_map(|word| word.strip_prefix("go1."))?;
    let minor: String = number.chars().take_while(char::is_ascii_digit).collect();
    Some((1, minor.parse().ok()?))
}

/// One string of a flat JSON object.
fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{name}\": \""))?;
    rest.split('"').next()
}

/// A module archive carries no file modes: the tools have to be made executable.
fn make_executable(go: &std::path::Path) -> Result<()> {
    let home = go.parent().and_then(|bin| bin.parent()).context("no folder above bin/go")?;
    run::check(&mut run::command(
        "chmod",
        &[
            "-R",
            "u+x",
            &home.join("bin").to_string_lossy(),
            &home.join("pkg/tool").to_string_lossy(),
        ],
    ))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        assert_eq!(parse("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(parse("go version go1.19 linux/amd64"), Some((1, 19)));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn reads_a_field() {
        assert_eq!(field("{\n\t\"Path\": \"a\",\n\t\"Dir\": \"/b\"\n}", "Dir"), Some("/b"));
        assert_eq!(field("{}", "Dir"), None);
    }
}
