//! The configuration as typed values, the defaults with them.

mod federation;
mod whole;

pub use federation::{
    BundleEndpointConfig, EndpointProfile, FederationConfig, FetchProfile, OidcConfig,
    Relationship, UrlError, endpoint_url,
};
pub use whole::{
    AdminConfig, AttestConfig, AuditConfig, CaptureConfig, Config, IssuerConfig, IssuerKind,
    LogConfig, LogFormat, LogLevel, NodeConfig, ProxyConfig, WorkloadApiConfig,
};
