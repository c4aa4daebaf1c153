//! The commands. `run` is the daemon; `check`, `ca` and `audit` work on files; the others ask a
//! running daemon over its control socket. Start at [`main`]; every exit code is in [`Exit`].

mod args;
mod audit;
mod bundle;
mod ca;
mod client;
mod deny;
mod dispatch;
mod entries;
mod fault;
mod output;
mod show;

#[cfg(test)]
mod tests;

pub use args::Cli;
pub use client::ask_to_replace;
pub use dispatch::{Program, main};
pub use fault::Exit;
