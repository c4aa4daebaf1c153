//! The words of `tacit bundle`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::args::{Listing, trust_domain};
use crate::spiffe::TrustDomain;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Bundle {
    /// List the bundles that are known: of which trust domain, from where, and how old
    List(Listing),
    /// Show the authorities of a trust domain, or of all
    #[command(
        long_about = "Shows the authorities of a trust domain, or of all that are known. With \
            --format, nothing but the bundle is printed: to be carried to the node or the SPIRE \
            server that is to trust it.",
        after_help = "Examples:\n  tacit bundle show example.org --format spiffe > example.org.json\n  \
            tacit bundle show --output json | jq -r '.[0].pem' > bundle.pem"
    )]
    Show(Show),
    /// Trust the authorities in a file for another trust domain
    #[command(
        long_about = "Puts a bundle in place of what is known of another trust domain. It is kept in \
            bundles.json of the state directory. Whom it vouches for is trusted by those workloads \
            only whose entries are federated with the trust domain (federates_with), and admitted by \
            rules only that name them. Connections under authorities that are not in it are cut.",
        after_help = "Example:\n  tacit bundle set partner.org ./partner.json"
    )]
    Set(Set),
    /// Forget the bundle of another trust domain; connections with its workloads are cut
    Delete(Delete),
}

/// How a bundle is printed for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Certificates for X.509-SVIDs alone
    Pem,
    /// SPIFFE's JSON, with the keys for JWT-SVIDs
    Spiffe,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    /// The trust domain, such as example.org; all if none is given
    #[arg(value_parser = trust_domain, required_if_eq_any = [("format", "pem"), ("format", "spiffe")])]
    pub(super) trust_domain: Option<TrustDomain>,
    /// Print nothing but the bundle, in this form
    #[arg(long, value_enum, conflicts_with = "output")]
    pub(super) format: Option<Format>,
    #[command(flatten)]
    pub(super) listing: Listing,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Set {
    /// The other trust domain, such as partner.org
    #[arg(value_parser = trust_domain)]
    pub(super) trust_domain: TrustDomain,
    /// Its bundle, PEM or SPIFFE's JSON; `-` reads standard input
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) listing: Listing,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Delete {
    /// The other trust domain
    #[arg(value_parser = trust_domain)]
    pub(super) trust_domain: TrustDomain,
    #[command(flatten)]
    pub(super) listing: Listing,
}
