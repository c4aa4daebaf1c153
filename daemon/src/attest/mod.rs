//! Who is this process: a claim of the kernel becomes selectors and evidence.
//! Knows no SPIFFE ID and takes no decision. Start at [`Attestor::attest`]; the rules for processes
//! that changed, exited or were replaced are in the header of `look.rs`.

mod attestor;
mod bounded;
mod digest;
mod evidence;
mod look;
mod names;
mod store;
mod systemd;
#[cfg(test)]
mod tests;

pub use attestor::{AttestError, AttestSettings, Attestor};
pub use evidence::{Attestation, ProcessEvidence};
