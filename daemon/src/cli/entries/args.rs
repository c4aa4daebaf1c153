//! The words of `tacit entries`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::args::Listing;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(in crate::cli) struct Entries {
    #[command(subcommand)]
    pub(super) change: Option<Change>,
    #[command(flatten)]
    pub(super) listing: Listing,
}

#[derive(Debug, Subcommand)]
pub(super) enum Change {
    /// List the registration entries in force: those of the configuration, and live ones
    List(Listing),
    /// Add a live entry
    #[command(
        long_about = "Adds an entry while the daemon runs. It is kept in entries.toml of the state \
            directory and is in force, for new connections and open streams, when this command \
            returns. An id that the configuration declares is refused.",
        after_help = "Example:\n  tacit entries add --id web --spiffe-id spiffe://example.org/web \\\n    \
            --selector systemd:id:web.service --selector unix:path:/usr/sbin/nginx"
    )]
    Add(Add),
    /// Remove live entries; connections that hang on them are cut
    Remove(Remove),
    /// Add the entries of a file in SPIRE's JSON
    #[command(
        long_about = "Adds the entries of a file as SPIRE writes and reads it: the output of \
            `spire-server entry show -output json`, or the input of `spire-server entry create \
            -data`. All of them are added, or none, and everything that Tacit has no counterpart \
            for is said. Which agent an entry is for (parent_id) is not kept: name the agent that \
            this node replaces, if the file holds entries of others.",
        after_help = "Examples:\n  spire-server entry show -output json | tacit entries import -\n  \
            tacit entries import --parent-id spiffe://example.org/spire/agent/x509pop/1a2b ./entries.json"
    )]
    Import(Import),
    /// Print entries in SPIRE's JSON, as `spire-server entry create -data` reads it
    Export(Export),
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Unique id [default: made of the SPIFFE ID and the selectors]
    #[arg(long)]
    pub(super) id: Option<String>,
    /// The identity
    #[arg(long, value_name = "ID")]
    pub(super) spiffe_id: String,
    /// What a process must have; once for each
    #[arg(long, required = true)]
    pub(super) selector: Vec<String>,
    /// Lifetime of its X.509-SVIDs [default: as configured]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) svid_ttl: Option<Duration>,
    /// Lifetime of its JWT-SVIDs [default: as configured]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) jwt_svid_ttl: Option<Duration>,
    /// What the identity is for
    #[arg(long)]
    pub(super) hint: Option<String>,
    /// DNS name in its X.509-SVIDs; once for each
    #[arg(long, value_name = "NAME")]
    pub(super) dns_name: Vec<String>,
    /// Trust domain whose bundle its workloads get; once for each
    #[arg(long, value_name = "TRUST_DOMAIN")]
    pub(super) federates_with: Vec<String>,
    /// Take the place of a live entry of the same id
    #[arg(long)]
    pub(super) replace: bool,
    #[command(flatten)]
    pub(super) listing: Listing,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    /// Ids of the entries
    #[arg(required = true)]
    pub(super) ids: Vec<String>,
    #[command(flatten)]
    pub(super) listing: Listing,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file; `-` is standard input
    pub(super) file: PathBuf,
    /// Only entries of this parent
    #[arg(long, value_name = "ID")]
    pub(super) parent_id: Option<String>,
    /// Take the place of live entries of the same ids
    #[arg(long)]
    pub(super) replace: bool,
    #[command(flatten)]
    pub(super) listing: Listing,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Declared entries, too
    #[arg(long)]
    pub(super) all: bool,
    /// Parent of the entries, which SPIRE wants of each
    #[arg(long, value_name = "ID")]
    pub(super) parent_id: Option<String>,
    /// The daemon's control socket (`admin.socket`)
    #[arg(long, value_name = "PATH", default_value = "/run/tacit/tacit.sock")]
    pub(super) socket: PathBuf,
}
