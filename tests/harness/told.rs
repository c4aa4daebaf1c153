//! What a running daemon tells of itself: its ports and its metrics.

use anyhow::{Context as _, Result, bail};

use crate::node::Node;

/// Where the daemon answers about itself.
const METRICS: u16 = 9464;

impl Node {
    /// The ports that the daemon itself listens on, without its metrics.
    ///
    /// # Errors
    /// When it listens nowhere.
    pub fn proxy_ports(&self) -> Result<Vec<u16>> {
        let pid = format!("pid={},", self.daemon_pid()?);
        let listening = self.in_netns("ss", &["-Hltnp"])?;
        let mut ports: Vec<u16> = listening
            .stdout
            .lines()
            .filter(|line| line.contains(&pid))
            .filter_map(|line| line.split_whitespace().nth(3)?.rsplit(':').next()?.parse().ok())
            .filter(|&port| port != METRICS)
            .collect();
        ports.sort_unstable();
        ports.dedup();
        if ports.is_empty() {
            bail!("the daemon listens nowhere:\n{}", listening.stdout);
        }
        Ok(ports)
    }

    /// A metric of the daemon by its whole name with labels, as Prometheus reads it.
    ///
    /// # Errors
    /// When the daemon does not answer or has no such metric.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let from = format!("http://127.0.0.1:{METRICS}/metrics");
        let text = self.in_netns("curl", &["-sf", "-m", "5", &from])?.ok()?.to_owned();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse().ok()).with_context(|| format!("no {name}"))
    }
}
