//! The words of `tacit ca`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::args::{OutputArg, spiffe_id, trust_domain};
use crate::spiffe::{SpiffeId, TrustDomain};

/// Where the embedded CA is.
#[derive(Debug, Args)]
pub(in crate::cli) struct CaDirectory {
    /// Directory of the CA
    #[arg(long, value_name = "DIR", default_value = "/var/lib/tacit/ca")]
    pub(super) directory: PathBuf,
}

/// Whose authorities are to change.
#[derive(Debug, Args)]
pub(in crate::cli) struct Node {
    /// The daemon's control socket (`admin.socket`)
    #[arg(long, value_name = "PATH", default_value = "/run/tacit/tacit.sock")]
    pub(super) socket: PathBuf,
    /// Change the files of this CA directory and ask no daemon; one that uses it follows within half
    /// a minute
    #[arg(long, value_name = "DIR", conflicts_with = "socket")]
    pub(super) directory: Option<PathBuf>,
    #[command(flatten)]
    pub(super) format: OutputArg,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Ca {
    /// Make a root and, under it, the authority of this node
    #[command(
        long_about = "Makes a root and, under it, the authority of this node, in a directory that \
            does not exist yet. The root's key is needed only to issue authorities: move it to a \
            safe place. The authority of a node is valid for one year. Where the root's key is \
            beside it, the daemon renews it; elsewhere have a new one signed in time (tacit ca \
            request).",
        after_help = "Example:\n  tacit ca init --trust-domain example.org --node db1"
    )]
    Init {
        #[command(flatten)]
        place: CaDirectory,
        /// The trust domain, such as example.org
        #[arg(long, value_parser = trust_domain)]
        trust_domain: TrustDomain,
        /// Name of this node
        #[arg(long)]
        node: String,
    },
    /// Make the authority of another node
    #[command(
        long_about = "Makes the authority of another node, signed by this root. Carry the output \
            directory to that node; it becomes its CA directory, which must not exist there yet. \
            Where its key should not travel, use `tacit ca request` there instead.",
        after_help = "Example:\n  tacit ca issue-node --node web1 --out ./web1\n  \
            ssh root@web1 mkdir -p /var/lib/tacit\n  \
            scp -r ./web1 root@web1:/var/lib/tacit/ca"
    )]
    IssueNode {
        #[command(flatten)]
        place: CaDirectory,
        /// Name of the node
        #[arg(long)]
        node: String,
        /// Where to put it; must not exist yet
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Write one SVID, its key and the bundle to files, for a peer that is no Tacit node
    #[command(after_help = "Example:\n  \
        tacit ca mint --spiffe-id spiffe://example.org/monitor --ttl 12h --out ./monitor")]
    Mint {
        #[command(flatten)]
        place: CaDirectory,
        /// The identity
        #[arg(long, value_parser = spiffe_id)]
        spiffe_id: SpiffeId,
        /// How long it is valid
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
        /// Directory for svid.pem, svid.key and bundle.pem; files of these names are replaced
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Show the authorities in a CA directory
    Show {
        #[command(flatten)]
        place: CaDirectory,
        #[command(flatten)]
        format: OutputArg,
    },
    /// Replace the root of a node that keeps its own
    #[command(
        long_about = "Has the running daemon make a new root, which is trusted at once and pushed to \
            all who follow the bundle. After --activate-after it signs, and every SVID is \
            replaced. After --retire-after the old root is trusted no more, and connections that \
            still hang on it are cut. A second call changes these times. With --compromised all of \
            that is done at once, with the keys for JWT-SVIDs too, and the old root is distrusted. \
            Nodes that have their authorities from this root need its successor before it signs: \
            see docs/authorities.md.",
        after_help = "Examples:\n  tacit ca rotate --activate-after 1h --retire-after 7d\n  \
            tacit ca rotate --compromised"
    )]
    Rotate(Rotate),
    /// Ask for a new authority of a node whose root is elsewhere
    #[command(
        long_about = "Makes a new key on this node, which stays there, and writes the request to \
            have it certified. Carry it to where the root is (tacit ca sign), and bring back what \
            comes of it (tacit ca accept). The authority in use stays until then.",
        after_help = "Example:\n  tacit ca request --out web1.csr\n  \
            tacit ca sign --directory ./root --request web1.csr --out web1.pem\n  \
            tacit ca accept web1.pem"
    )]
    Request {
        #[command(flatten)]
        node: Node,
        /// Name of the node; with --directory only
        #[arg(long = "node", value_name = "NAME", requires = "directory")]
        name: Option<String>,
        /// Where to write it [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Sign the request of a node, where the root's key is
    #[command(after_help = "Example:\n  \
        tacit ca sign --directory ./root --request web1.csr --out web1.pem")]
    Sign {
        #[command(flatten)]
        place: CaDirectory,
        /// The request
        #[arg(long, value_name = "FILE")]
        request: PathBuf,
        /// Where to write the certificate and the roots; replaced if it exists
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Take the authority that was signed for the last request
    #[command(
        long_about = "Takes the certificate that was signed for the last request of this node. The \
            daemon signs with it at once and replaces every SVID, without a restart. Its root must \
            be trusted here before (tacit ca trust). With --compromised the authority that it \
            follows is distrusted here as soon as it is replaced, and the keys for JWT-SVIDs are \
            replaced; distrust it on the other nodes, too (tacit ca distrust).",
        after_help = "Example:\n  tacit ca accept web1.pem"
    )]
    Accept {
        #[command(flatten)]
        node: Node,
        /// What `tacit ca sign` has written
        file: PathBuf,
        /// The key of the authority in use is in wrong hands
        #[arg(long)]
        compromised: bool,
    },
    /// Trust further roots of this trust domain
    #[command(
        long_about = "Trusts the roots of a file in PEM beside those that are trusted. When the root \
            of several nodes is replaced, this comes first, on every node: only then may any of \
            them be given an authority under the new root.",
        after_help = "Example:\n  tacit ca trust new-root.pem"
    )]
    Trust {
        #[command(flatten)]
        node: Node,
        /// Certificates in PEM
        file: PathBuf,
    },
    /// Trust a root no more, once nothing hangs on it
    #[command(
        long_about = "Trusts a root no more; connections that hang on it are cut. Refused while \
            this node's own authority hangs on it. Which peers still do, their nodes say (tacit ca \
            show)."
    )]
    Retire {
        #[command(flatten)]
        node: Node,
        /// Key id of the root, as `tacit ca show` has it
        key_id: String,
    },
    /// Trust nothing any more that hangs on an authority whose key is in wrong hands
    #[command(long_about = "Trusts nothing any more that hangs on this authority: a root, or the \
            authority of another node, which no bundle could withdraw. Connections that hang on it \
            are cut. Programs that verify by themselves with the bundle know nothing of it: for \
            them only a new root helps.")]
    Distrust {
        #[command(flatten)]
        node: Node,
        /// Its key id, as `tacit ca show` has it on its node
        key_id: String,
        /// Take it back
        #[arg(long)]
        undo: bool,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Rotate {
    /// The daemon's control socket (`admin.socket`)
    #[arg(long, value_name = "PATH", default_value = "/run/tacit/tacit.sock")]
    pub(super) socket: PathBuf,
    /// How long the new root is published before it signs [default: 15m]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) activate_after: Option<Duration>,
    /// How long the old root stays trusted after that [default: 1day, or longer if SVIDs live longer]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) retire_after: Option<Duration>,
    /// The root's key is in wrong hands: replace everything at once, cut what hangs on it
    #[arg(long, conflicts_with_all = ["activate_after", "retire_after"])]
    pub(super) compromised: bool,
    /// Show the progress until the old root is trusted no more
    #[arg(long, short)]
    pub(super) follow: bool,
    #[command(flatten)]
    pub(super) format: OutputArg,
}
