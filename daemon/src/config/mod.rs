//! The configuration: one TOML file, optionally a directory of more, read into typed values.
//! Everything that is wrong is told at once, with file, line, key, value and remedy; a
//! configuration is wholly valid or not there at all. Start at [`load()`]; a running daemon uses
//! [`Reloader`], `tacit check` uses [`check()`].

mod build;
mod check;
mod drafts;
mod file;
mod installation;
mod load;
mod names;
mod problem;
mod reload;
mod restart;
mod settings;
mod watch;

#[cfg(test)]
mod tests;

pub use check::{Report, Summary, check};
pub use drafts::{
    EntryDraft, ReadEntries, check_drafts, read_denials, read_entries, render_denial, render_entry,
};
pub use installation::{Given, Installation};
pub use load::{load, load_with};
pub use names::{Addresses, Names, Resolve, SystemResolver};
pub use problem::{Problem, Problems};
pub use reload::{ReloadError, ReloadHandle, ReloadStatus, Reloader};
pub use settings::{
    AdminConfig, AttestConfig, AuditConfig, BundleEndpointConfig, CaptureConfig, Config,
    EndpointProfile, FederationConfig, FetchProfile, IssuerConfig, IssuerKind, LogConfig,
    LogFormat, LogLevel, NodeConfig, OidcConfig, ProxyConfig, Relationship, UrlError,
    WorkloadApiConfig, endpoint_url,
};
