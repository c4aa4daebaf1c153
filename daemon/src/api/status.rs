//! What a caller is told when it gets nothing: the codes of the standard, in SPIRE's words, so that
//! clients and people who know SPIRE recognise them.
//!
//! Clients give up for good on `InvalidArgument` and try again after all others, so that it is only
//! ever said of the request itself. Source: SPIFFE Workload Endpoint appendix A; SPIRE's
//! `pkg/agent/endpoints/workload/handler.go`.

use std::io;

use tonic::Status;

use crate::identity::{IdentityError, IssueError};

/// The request does not say that it knows what it talks to.
pub(super) fn no_header() -> Status {
    Status::invalid_argument("security header missing from request")
}

/// No entry matches the caller.
pub(super) fn no_identity() -> Status {
    Status::permission_denied("no identity issued")
}

/// The caller cannot be looked at, or is not there any more.
pub(super) fn not_attested() -> Status {
    Status::unavailable("workload attestation failed")
}

/// The cgroup of the caller asks too often.
pub(super) fn rate_limited(method: &str) -> Status {
    Status::unavailable(format!("rate limit exceeded for {method}"))
}

/// The daemon ends.
pub(super) fn stopping() -> Status {
    Status::unavailable("the daemon is stopping")
}

/// What a request lacks, or has wrong.
pub(super) fn bad_request(what: impl Into<String>) -> Status {
    Status::invalid_argument(what)
}

/// The token for an identity cannot be made.
pub(super) fn no_jwt(error: &IssueError) -> Status {
    Status::unavailable(format!("could not fetch JWT-SVID: {error}"))
}

/// Not part of what is served.
pub(super) fn not_served(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not supported"))
}

/// Why the facts of a caller cannot be had.
pub(super) fn of_peer(error: &io::Error) -> Status {
    tracing::debug!(%error, "a caller of the Workload API cannot be looked at");
    not_attested()
}

/// Why a caller has no identity.
pub(super) fn of_identity(error: &IdentityError) -> Status {
    tracing::debug!(%error, "a caller of the Workload API has no identity");
    match error {
        IdentityError::Attest(_) => not_attested(),
        IdentityError::NoEntry { .. } | IdentityError::Denied { .. } => no_identity(),
        IdentityError::Doubtful { .. } => {
            Status::unavailable("not everything about the caller could be found out in time")
        }
        IdentityError::NoSvid { .. } => Status::unavailable("could not fetch X.509-SVID"),
    }
}
