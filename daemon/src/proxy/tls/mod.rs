//! TLS 1.3 between SPIFFE identities. The only folder that names rustls.
//!
//! One crypto provider, passed explicitly; no resumption, no tickets, no early data: each
//! connection is authenticated afresh. Peers are verified and judged inside the handshake.
//! Start at [`Tls::credential`], then [`Credential::connect`] or [`Credential::accept`].

mod channel;
mod credential;
mod handshake;
mod marker;
mod verifier;

#[cfg(test)]
mod tests;

pub(super) use channel::{Channel, ChannelError};
pub(super) use credential::{Credential, Offer, Tls};
pub(super) use marker::{SESSION_ID_BYTES, is_marked};
#[cfg(test)]
pub(super) use tests::client_hello;
pub(super) use verifier::Trust;
