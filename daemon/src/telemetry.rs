//! What the daemon says of itself: the home of `tracing-subscriber`.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::config::{LogConfig, LogFormat};

/// Sends log messages to standard error, where a service manager reads them. A second call does
/// nothing: the first setting stays.
pub fn start(config: LogConfig) {
    // Libraries speak when something is wrong; what the daemon does is told by the daemon.
    let filter = EnvFilter::new(format!("warn,tacit={}", config.level.as_str()));
    let started = match config.format {
        LogFormat::Text => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_timer(SystemTime)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .try_init(),
        LogFormat::Json => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .json()
            .try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}
