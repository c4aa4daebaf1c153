//! The trust bundle as other trust domains get it, and theirs as this node gets them; the documents
//! of `OpenID` Connect beside them. Home of TLS that is not between workloads: certificates of the
//! web, and endpoints known by their SPIFFE ID. Source: SPIFFE Federation.

mod certificate;
mod endpoint;
mod fetch;
mod fetcher;
mod oidc;
mod peer;
mod publish;
mod schedule;
mod tls;

#[cfg(test)]
mod tests;

pub use certificate::{CertificateError, CertificateSource, Shown};
pub use endpoint::{Endpoint, EndpointError, EndpointRoutes};
pub use fetcher::{FetchSettings, FetchStatus, Fetcher, FetcherParts};
pub use oidc::oidc_routes;
pub use publish::{Published, bundle_routes};
pub use schedule::Bounds;
