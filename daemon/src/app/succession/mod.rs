//! One daemon succeeds another without a connection refused or lost: `tacit run --replace`.
//!
//! The successor asks over the control socket, and the daemon that runs comes to the successor's own
//! socket beside it with all that it listens on ([`words`]: the whole conversation). Until it hears
//! that the successor has taken over, it can go on as if nothing had been; from then on it drains,
//! and what it records goes through the successor.

mod predecessor;
mod successor;
mod words;

pub(super) use predecessor::{Candidate, PATIENCE, Passable, Successor, admit};
pub(super) use successor::{Predecessor, Yielding, ask};
pub(super) use words::Offer;
