//! `cargo xtask build`: the eBPF programs and the daemon, with the toolchain pieces in place.

use std::path::PathBuf;

use anyhow::Result;

use crate::{provision, run};

/// Builds the daemon, as shipped or for development.
pub(crate) fn run(release: bool) -> Result<()> {
    let binary = daemon(release)?;
    println!("built {}", binary.display());
    Ok(())
}

/// Builds the daemon and says where the binary is.
pub(crate) fn daemon(release: bool) -> Result<PathBuf> {
    let toolchain = provision::ebpf::ready()?;
    let mut cargo = run::cargo(&["build", "--package", "tacit"]);
    if release {
        cargo.arg("--release");
    }
    run::check(cargo.envs(toolchain.environment()))?;
    let profile = if release { "release" } else { "debug" };
    Ok(run::target_dir().join(profile).join("tacit"))
}
