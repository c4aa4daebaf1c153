//! Installs what building, testing and showing Tacit needs, and says what it does and why.
//! Quick when all is there. Start with `everything`.

pub(crate) mod ebpf;
pub(crate) mod go;
pub(crate) mod packages;
pub(crate) mod python;

use anyhow::Result;

/// All of it, in the order in which a newcomer wants to read it.
pub(crate) fn everything() -> Result<()> {
    ebpf::ready()?;
    packages::ready(packages::Use::Tests)?;
    go::ready()?;
    python::envoy()?;
    python::clients()?;
    println!("everything that Tacit's build and tests need is here");
    Ok(())
}
