//! Which identity has a process, and is it fresh? Asks `attest` and `registry`, and an issuer for
//! SVIDs; keeps these renewed. Hands out SVIDs, speaks no TLS. Start at [`Identities::of`].

mod ca;
mod explain;
mod issuer;
mod jwt;
mod naming;
mod renewal;
mod resolve;
mod rotation;
mod slot;
mod subscription;

#[cfg(test)]
mod tests;

pub use ca::{
    ACTIVATE_AFTER, CaError, CaSettings, Held, LocalCa, PATIENCE, RETIRE_AFTER, Retirement,
    Rotation, SignedRequest, Terms, Trusted, init_ca, issue_node, mint, sign_request, void_bundle,
};
pub use explain::Explanation;
pub use issuer::{
    AuthorityStage, AuthorityStatus, IssueError, IssueRequest, Issuer, Issuing, IssuingJwt,
    JwtRequest,
};
pub use naming::{IdentityError, Naming};
pub use resolve::{Identities, IdentitySettings, WorkloadIdentity};
pub use rotation::{draw, renew_at, retry_after};
pub use slot::SvidStatus;
pub use subscription::{Entitlement, EntryWatch, HeldSvid, Subscription};
