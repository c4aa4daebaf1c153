//! The daemon's small tasks of its own: what the programs are told, numbers, reloads.

mod numbers;
mod reloads;
mod telling;

pub(super) use numbers::Numbers;
pub(super) use reloads::{Loaded, Reloads};
pub(super) use telling::{beat, follow_routes};
