//! `cargo xtask check`: what must hold before a change is offered. CI runs the same.

use anyhow::Result;

use crate::{provision, run, tidy};

/// Runs the checks; `fast` leaves out what has to compile.
pub(crate) fn run(fast: bool) -> Result<()> {
    step("formatting");
    run::check(&mut run::cargo(&["fmt", "--all", "--check"]))?;
    step("tidy");
    tidy::run()?;
    if fast {
        return Ok(());
    }
    let toolchain = provision::ebpf::ready()?;
    step("lints");
    let mut clippy =
        run::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    run::check(clippy.envs(toolchain.environment()))?;
    step("documentation");
    let mut doc = run::cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    run::check(doc.envs(toolchain.environment()).env("RUSTDOCFLAGS", "-D warnings"))?;
    if run::find("cargo-deny").is_some() {
        step("licences and advisories");
        run::check(&mut run::cargo(&["deny", "check", "bans", "licenses", "sources"]))?;
    } else {
        println!("== licences: not run (cargo-deny is not installed)");
    }
    Ok(())
}

fn step(name: &str) {
    println!("== {name}");
}
