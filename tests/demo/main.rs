//! The demo: two nodes with a wire between them, a daemon on each, and programs that know nothing
//! of it. Every claim that it prints has been checked; what does not hold ends it with a failure.
//!
//! It cleans up after itself, also when interrupted. Run it with `cargo xtask demo`.
#![expect(clippy::print_stdout, reason = "a demo is for reading")]

mod page;
mod story;

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode};

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};

/// The argument by which the demo starts itself as the one who tells.
const TELL: &str = "--tell";

fn main() -> ExitCode {
    let told = if env::args().any(|argument| argument == TELL) { story::tell() } else { watch() };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nFAIL: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Lets another process tell the story, and cleans up after it if somebody interrupts. That process
/// has a group of its own, so that an interrupt from the terminal comes here alone.
fn watch() -> Result<()> {
    let mut teller = Command::new(env::current_exe()?);
    // Started before signals are blocked: programs inherit what is blocked.
    let mut teller = teller.arg(TELL).process_group(0).spawn().context("cannot start")?;
    let ended = wait(&mut teller);
    if !matches!(ended, Ok(true)) {
        teller.kill()?;
        teller.wait()?;
        harness::sweep();
        anyhow::bail!("interrupted; both nodes are gone");
    }
    let status = teller.wait()?;
    anyhow::ensure!(status.success(), "the demo ended with {status}");
    Ok(())
}

/// Waits for the end of the teller; false if somebody interrupts.
fn wait(teller: &mut Child) -> Result<bool> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block()?;
    loop {
        // First, because it may have ended before its signal was waited for.
        if teller.try_wait()?.is_some() {
            return Ok(true);
        }
        if signals.wait()? != Signal::SIGCHLD {
            return Ok(false);
        }
    }
}
