//! The load under which daemons die and are replaced: strict clients on one node, a strict server on
//! the other, and a tally of what the clients noticed.

use anyhow::{Context as _, Result, ensure};
use harness::{Lab, Server, probe, value};

/// What strict programs say, and nobody may read on the wire.
pub(crate) const MARKER: &str = "c0ffee-never-in-the-clear";

/// What clients noticed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) ok: u64,
    pub(crate) not_permitted: u64,
    pub(crate) refused: u64,
    pub(crate) lost: u64,
    pub(crate) stuck: u64,
    pub(crate) slowest_ms: u64,
}

impl Tally {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            ok: self.ok + other.ok,
            not_permitted: self.not_permitted + other.not_permitted,
            refused: self.refused + other.refused,
            lost: self.lost + other.lost,
            stuck: self.stuck + other.stuck,
            slowest_ms: self.slowest_ms.max(other.slowest_ms),
        }
    }

    /// Connections that an application saw fail.
    pub(crate) fn failed(&self) -> u64 {
        self.not_permitted + self.refused + self.lost + self.stuck
    }
}

/// Clients that talk to the server at the same time, one connection after the other.
pub(crate) struct Clients(Server);

impl Clients {
    /// Starts them. Each says something that can be told apart from what others say.
    pub(crate) fn start(lab: &Lab, port: u16, more: &[&str]) -> Result<Self> {
        let to = format!("{}:{port}", lab.b.ip);
        let words = [&["load", &to, "--text", MARKER], more].concat();
        let clients = lab.client().spawn(probe()?, &words)?;
        clients.says("loading=")?;
        Ok(Self(clients))
    }

    /// Ends them and says what they noticed, after each has talked at least once more.
    pub(crate) fn finish(mut self) -> Result<Tally> {
        let said = self.0.finish()?;
        let number = |name: &str| -> Result<u64> {
            let value = value(&said, name).with_context(|| format!("no {name} in:\n{said}"))?;
            Ok(value.parse()?)
        };
        let tally = Tally {
            ok: number("ok")?,
            not_permitted: number("not_permitted")?,
            refused: number("refused")?,
            lost: number("lost")?,
            stuck: number("stuck")?,
            slowest_ms: number("slowest_ms")?,
        };
        ensure!(tally.ok > 0, "nothing worked:\n{said}");
        #[expect(clippy::print_stdout, reason = "shown where a test fails")]
        {
            println!("{said}");
        }
        Ok(tally)
    }
}
