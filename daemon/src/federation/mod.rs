//! The trust bundle as other trust domains get it, and theirs as this node gets them; the documents
//! of `OpenID` Connect beside them. Home of TLS that is not between workloads: certificates of the
//! web, and endpoints known by their SPIFFE ID. Source: SPIFFE Federation.

mod certificate;
mod endpoint;
mod oidc;
mod publish;
mod tls;

pub use certificate::{CertificateError, CertificateSource, Shown};
pub use endpoint::{Endpoint, EndpointError};
pub use oidc::oidc_routes;
pub use publish::{Published, bundle_routes};
