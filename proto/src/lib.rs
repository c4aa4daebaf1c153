//! The gRPC interfaces that the daemon serves, generated from `protos/`. Generated code is
//! committed, so that a build needs no compiler for protocol buffers; `tests/codegen.rs` fails when
//! it is stale and writes it anew if told to. Messages that hold private keys do not print them.

use std::fmt;

#[rustfmt::skip]
#[path = "gen/mod.rs"]
#[expect(
    missing_debug_implementations,
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::as_conversions,
    clippy::clone_on_ref_ptr,
    clippy::pedantic,
    reason = "generated"
)]
mod generated;

pub use generated::*;

/// The services above as compiled descriptors, for gRPC reflection.
pub const FILE_DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");

impl fmt::Debug for X509svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509svid")
            .field("spiffe_id", &self.spiffe_id)
            .field("hint", &self.hint)
            .field("x509_svid_key", &"<redacted>")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Jwtsvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwtsvid")
            .field("spiffe_id", &self.spiffe_id)
            .field("hint", &self.hint)
            .field("svid", &"<redacted>")
            .finish()
    }
}

impl fmt::Debug for ValidateJwtsvidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidateJwtsvidRequest")
            .field("audience", &self.audience)
            .field("svid", &"<redacted>")
            .finish()
    }
}

impl fmt::Debug for envoy::config::core::v3::DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataSource(<redacted>)")
    }
}
