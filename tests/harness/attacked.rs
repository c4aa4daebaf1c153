//! What attacks and their control runs do to a node: take a countermeasure away, add a scope.

use std::fs;

use anyhow::{Context as _, Result};

use crate::node::Node;
use crate::process::switched;

impl Node {
    /// Adds to the configuration what rules cannot say.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn amend(&self, toml: &str) -> Result<()> {
        let mut text = fs::read_to_string(self.config())?;
        text.push_str(toml);
        fs::write(self.config(), text).context("cannot write the configuration")
    }

    /// Starts the test build of the daemon in the daemon's place, with these countermeasures
    /// switched off (a bit each, as `tests/attack/switches.rs` numbers them).
    ///
    /// # Errors
    /// As for [`Node::start`].
    pub fn start_switched(&self, off: u64) -> Result<()> {
        let daemon = (&*switched()?, &*off.to_string());
        self.start_until(daemon, "a ready daemon", || self.is_ready())
    }

    /// Detaches one of the programs: its pinned link is all that holds it.
    ///
    /// # Errors
    /// When it is not attached.
    pub fn detach(&self, program: &str) -> Result<()> {
        let versions = fs::read_dir(self.pins()).context("nothing is pinned")?;
        let pin = versions.flatten().map(|version| version.path().join("links").join(program));
        let pin = pin.into_iter().find(|pin| pin.exists());
        fs::remove_file(pin.with_context(|| format!("{program} is not attached"))?)
            .with_context(|| format!("cannot detach {program}"))
    }
}
