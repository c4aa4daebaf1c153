//! Peers that know nothing of Tacit: OpenSSL, go-spiffe, nginx, `HAProxy`, Envoy. A captured
//! program on one side, a stock SPIFFE or TLS peer on the other; and everything about an identity that can
//! be wrong. And programs that know SPIFFE, as clients of the daemon: go-spiffe, rust-spiffe, Envoy.
//!
//! The stock peer is always in no scope, so that no daemon helps it.

mod envoy_sds;
mod forger;
mod go_spiffe;
mod identities;
mod oidc;
mod openssl;
mod server_identities;
mod servers;
mod stock_peer;
mod workload_api;
