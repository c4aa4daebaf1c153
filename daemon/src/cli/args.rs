//! The command line, as clap derives it. Only words: what they do is elsewhere.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::bundle::Bundle;
use super::ca::Ca;
use super::deny::Deny;
use super::entries::Entries;
use crate::admin::ExplainTarget;
use crate::audit::log::AddressQuery;
use crate::spiffe::{IdError, SpiffeId, TrustDomain, parse_id, parse_trust_domain};

/// What stands at the end of `tacit --help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  all is well
  1  it failed; or it worked, and what it found is not well (status, doctor)
  2  the command line is wrong
  3  the configuration is not valid
  4  no daemon answers
  5  the audit log was tampered with (audit verify)";

/// Transparent SPIFFE mutual TLS for programs that know nothing of TLS
#[derive(Debug, Parser)]
#[command(name = "tacit", version, after_help = EXIT_CODES, max_term_width = 100)]
#[command(
    long_about = "Gives programs that know nothing of TLS a SPIFFE identity and mutual TLS, with one \
        daemon and no change to them. `tacit run` is the daemon; most other commands ask it, over \
        a socket that only root may use."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the daemon
    #[command(
        long_about = "Runs the daemon. SIGHUP reloads, SIGTERM drains, a second one stops. With \
            --replace it takes the place of the daemon that runs, without a connection refused or \
            lost: that one drains (`tacit status` shows how far it is), and goes on as if nothing \
            had been if this one fails before it serves.",
        after_help = "Examples:\n  tacit run --config /etc/tacit/config.toml\n  tacit run --replace"
    )]
    Run(Run),
    /// Say everything that is wrong with a configuration
    #[command(
        long_about = "Reads the configuration and the files it includes, and says everything that is \
            wrong with them at once: file, line, key, value and remedy. Changes nothing.",
        after_help = "Example:\n  tacit check --config ./config.toml"
    )]
    Check(Check),
    /// Show how the daemon fares
    #[command(long_about = "Shows how the daemon fares. Exits with 1 if it is not ready.")]
    Status(Listing),
    /// List open connections
    #[command(
        long_about = "Lists the connections that are open: who talks to whom, how it is protected, \
            and by which rule. Those that have ended are in the audit log: see `tacit audit query`.",
        after_help = "Examples:\n  tacit connections --watch\n  \
            tacit connections --output json | jq '.[] | select(.protection != \"mtls\")'"
    )]
    Connections(Connections),
    /// List the scopes in force
    Scopes(Listing),
    /// List, add, remove, import and export registration entries
    Entries(Entries),
    /// List the SVIDs that the daemon holds, with expiry
    Svid(Listing),
    /// Say why a process has its identity, or a connection its decision
    #[command(
        long_about = "Says why a process has its identity, or a connection its decision: the \
            selectors found, the entries that nearly match and the first selector that failed, \
            and every rule held against the connection.",
        after_help = "Examples:\n  tacit explain 4711\n  tacit explain 19a2b3c4d5e-17\n  \
            tacit explain \"4711 -> 10.0.0.2:5432\"\n  \
            tacit explain \"spiffe://example.org/web -> 10.0.0.2:5432\""
    )]
    Explain(Explain),
    /// Make and look after the embedded CA
    #[command(subcommand)]
    Ca(Ca),
    /// Deny identities and certificates, at once
    #[command(subcommand)]
    Deny(Deny),
    /// Read and verify the audit log
    #[command(subcommand)]
    Audit(Audit),
    /// Check the kernel, the programs, and what is left in the kernel
    #[command(
        long_about = "Checks whether the kernel has what is needed, whether every program is attached, \
            and whether the daemon is ready. Without a running daemon it checks the kernel, and \
            whether anything was left in it. Exits with 1 if anything failed."
    )]
    Doctor(Doctor),
    /// List and show trust bundles, and set and delete those of other trust domains
    #[command(subcommand)]
    Bundle(Bundle),
    /// Make the daemon read its configuration again, now
    #[command(
        long_about = "Makes the daemon read its configuration again, now. It does so by itself when \
            a file changes; this waits for the outcome and tells it. A configuration that is not \
            valid changes nothing, and is told with exit code 3."
    )]
    Reload(Listing),
    /// Remove everything that the daemon has left in the kernel
    #[command(
        long_about = "Detaches the programs and removes what is pinned. They outlive the daemon on \
            purpose: strict scopes stay closed until it is back. After this, nothing is captured \
            and nothing is refused. Stop the daemon first. Of the configuration only what says where \
            the programs are is read, whatever else is wrong with it.",
        after_help = "Examples:\n  tacit uninstall\n  tacit uninstall --instance blue"
    )]
    Uninstall(Uninstall),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  tacit completions bash > /etc/bash_completion.d/tacit")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// How to show something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(super) struct OutputArg {
    /// How to show it
    #[arg(long, short, value_enum, default_value = "table")]
    pub(super) output: Output,
}

#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", default_value = "/etc/tacit/config.toml")]
    pub(super) config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// Take the place of the daemon that runs; start as usual if none does
    #[arg(long)]
    pub(super) replace: bool,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    #[command(flatten)]
    pub(super) format: OutputArg,
}

/// A question to the daemon.
#[derive(Debug, Args)]
pub(super) struct Listing {
    /// The daemon's control socket (`admin.socket`)
    #[arg(long, value_name = "PATH", default_value = "/run/tacit/tacit.sock")]
    pub(super) socket: PathBuf,
    #[command(flatten)]
    pub(super) format: OutputArg,
}

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    pub(super) listing: Listing,
    /// The configuration file, which says where to look if no daemon answers
    #[arg(long, short, value_name = "FILE", default_value = "/etc/tacit/config.toml")]
    pub(super) config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Uninstall {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    /// Which instance, whatever the configuration says (`capture.instance`)
    #[arg(long, value_name = "NAME")]
    pub(super) instance: Option<String>,
    /// The BPF file system, whatever the configuration says (`capture.bpffs`)
    #[arg(long, value_name = "DIR")]
    pub(super) bpffs: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Connections {
    #[command(flatten)]
    pub(super) listing: Listing,
    /// Show them again every second, until interrupted
    #[arg(long, short)]
    pub(super) watch: bool,
}

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// A pid, a connection's id (of `connections` or the audit log), or "source -> destination",
    /// where the source is a pid, a SPIFFE ID or an address with a port
    pub(super) target: ExplainTarget,
    #[command(flatten)]
    pub(super) listing: Listing,
}

/// Where the audit log is.
#[derive(Debug, Args)]
pub(super) struct LogPlace {
    /// The audit log (`audit.path`); rotated files beside it are read too
    #[arg(long, value_name = "FILE", default_value = "/var/log/tacit/audit.jsonl")]
    pub(super) log: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Find out whether the log was tampered with
    #[command(
        long_about = "Reads the whole log and says whether a record was changed, moved, removed or \
            added, whether its beginning or its end was cut off, and whether it was rewritten. Exits \
            with 5 if so. A log that was copied elsewhere can be verified there with --public-key; \
            without the node's state directory an end that was cut off exactly at a checkpoint goes \
            unseen.",
        after_help = "Examples:\n  tacit audit verify\n  \
            tacit audit verify --log ./copy/audit.jsonl --no-head --public-key ./db1.pub"
    )]
    Verify {
        #[command(flatten)]
        place: LogPlace,
        /// The daemon's state directory (`node.state_dir`), which says how far the log had reached
        #[arg(long, value_name = "DIR", default_value = "/var/lib/tacit")]
        state_dir: PathBuf,
        /// Do without the state directory
        #[arg(long)]
        no_head: bool,
        /// The node's public key, if the one beside the log is not to be trusted
        #[arg(long, value_name = "FILE")]
        public_key: Option<PathBuf>,
        #[command(flatten)]
        format: OutputArg,
    },
    /// Show records
    #[command(
        long_about = "Shows the records that match all filters, oldest first, over all rotated \
            files. JSON output is one record per line, with everything in it.",
        after_help = "Examples:\n  tacit audit query --since 1h --outcome denied\n  \
            tacit audit query --spiffe-id spiffe://example.org/web --follow\n  \
            tacit audit query --connection 5f3a… --output json"
    )]
    Query(Box<Query>),
}

#[derive(Debug, Args)]
pub(super) struct Query {
    #[command(flatten)]
    pub(super) place: LogPlace,
    /// At or after: a time (RFC 3339) or an age such as 15m
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<When>,
    /// Before: a time (RFC 3339) or an age such as 15m
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<When>,
    /// SPIFFE ID of either end
    #[arg(long, value_name = "ID", value_parser = spiffe_id)]
    pub(super) spiffe_id: Option<SpiffeId>,
    /// Which direction
    #[arg(long, value_parser = ["outbound", "inbound"])]
    pub(super) direction: Option<String>,
    /// How it ended
    #[arg(long, value_parser =
        ["completed", "denied", "peer_failed", "local_failed", "cut", "interrupted"])]
    pub(super) outcome: Option<String>,
    /// Why
    #[arg(long, help = "Why, such as no_rule or \"connect: timed out\"")]
    pub(super) reason: Option<String>,
    /// Process id of the local process
    #[arg(long)]
    pub(super) pid: Option<u32>,
    /// A connection's id, of this node or shared by both ends
    #[arg(long, value_name = "ID")]
    pub(super) connection: Option<String>,
    /// Address of either end, with or without a port
    #[arg(long, value_name = "ADDRESS")]
    pub(super) address: Option<AddressQuery>,
    /// Records of the daemon and of the log itself, too
    #[arg(long)]
    pub(super) all: bool,
    /// Go on with new records until interrupted
    #[arg(long, short)]
    pub(super) follow: bool,
    #[command(flatten)]
    pub(super) format: OutputArg,
}

/// A time, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    At(jiff::Timestamp),
    Ago(Duration),
}

impl std::str::FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = text.parse().map(Self::At);
        time.or_else(|_| humantime::parse_duration(text).map(Self::Ago)).map_err(|_malformed| {
            "write a time such as 2025-01-31T12:00:00Z or an age such as 15m".to_owned()
        })
    }
}

pub(super) fn spiffe_id(text: &str) -> Result<SpiffeId, IdError> {
    parse_id(text)
}

pub(super) fn trust_domain(text: &str) -> Result<TrustDomain, IdError> {
    parse_trust_domain(text)
}
