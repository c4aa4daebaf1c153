//! Envoy's secret discovery service (SDS v3): the same SVIDs and bundles, in Envoy's words, on the
//! same socket. Envoy is a caller like any other, and sends no header.
//!
//! Envoy goes on trusting what it was last told, also when it is told nothing any more. A trust
//! domain that is not, or no longer, federated is therefore answered by an authority that never
//! signed anything, so that it is really removed.

mod delta;
mod secrets;
mod service;
mod stream;

pub(super) use service::SecretDiscovery;
