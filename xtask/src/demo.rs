//! `cargo xtask demo`: installs the programs it shows, builds the daemon, and hands over to
//! `tests/demo`, which also cleans up when it is interrupted.

use anyhow::{Result, bail};

use crate::{build, provision, run};

/// Shows two nodes at work.
pub(crate) fn run() -> Result<()> {
    if !run::is_root() {
        bail!("the demo makes network namespaces and loads eBPF programs: run it as root");
    }
    provision::packages::ready(provision::packages::Use::Demo)?;
    let daemon = build::daemon(false)?;
    run::check(
        run::cargo(&["run", "--quiet", "--package", "tests", "--bin", "demo"])
            .env("TACIT_BIN", daemon),
    )
}
