//! `cargo xtask bench`: installs the relays that Tacit is compared with, builds the daemon as
//! shipped, and hands over to `tests/benches`, which measures and writes `docs/benchmarks.md`.

use anyhow::{Result, bail};

use crate::provision::packages::{self, Use};
use crate::provision::{ebpf, python};
use crate::{build, run};

/// Measures; the words are those of the benchmarks themselves (`--help` lists them).
pub(crate) fn run(words: &[String]) -> Result<()> {
    if !run::is_root() {
        bail!("the benchmarks make network namespaces and load eBPF programs: run them as root");
    }
    packages::ready(Use::Benchmarks)?;
    let envoy = python::envoy()?;
    let daemon = build::daemon(true)?;
    let environment = ebpf::ready()?.environment();
    let binaries = ["--release", "--package", "tests", "--bin", "bench", "--bin", "load"];
    run::check(run::cargo(&["build"]).args(binaries).envs(environment))?;
    let mut bench = run::command(run::target_dir().join("release/bench"), &[]);
    bench.args(["--commit", &commit()?]).args(words);
    run::check(bench.env("TACIT_BIN", daemon).env("TACIT_TEST_ENVOY", envoy))
}

/// The commit that is measured, and whether anything in it was changed.
fn commit() -> Result<String> {
    let git = |arguments: &[&str]| run::output(&mut run::command("git", arguments));
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?.trim().to_owned();
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let is_result = |line: &str| line.contains("docs/benchmarks");
    let clean = changed.lines().all(is_result);
    Ok(if clean { commit } else { commit + " with changes" })
}
