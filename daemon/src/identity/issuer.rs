//! The seam behind which SVIDs are made: the CA inside the daemon, or a SPIRE server.
//! An issuer answers for one node; it does not know processes or entries, only IDs.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::sync::watch;

use crate::spiffe::{BundleSet, JwtSvid, SpiffeId, TrustDomain, VerifyError, X509Svid};

/// What is asked of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueRequest {
    /// For whom.
    pub spiffe_id: SpiffeId,
    /// How long it should be valid; the issuer may give less.
    pub ttl: Duration,
    /// DNS names that it bears, the first of them also as common name. They prove nothing to a
    /// SPIFFE verifier; clients of other kinds look for them.
    pub dns_names: Vec<String>,
}

/// What is asked of an issuer for a JWT-SVID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JwtRequest {
    /// For whom.
    pub spiffe_id: SpiffeId,
    /// Whom it is to be shown to; at least one.
    pub audience: Vec<String>,
    /// Whom verifiers of `OpenID` Connect take for the issuer, if the node has an issuer's name.
    pub issuer: Option<Arc<str>>,
    /// How long it should be valid; the issuer may give less.
    pub ttl: Duration,
}

/// An SVID on its way.
pub type Issuing<'a> = Pin<Box<dyn Future<Output = Result<X509Svid, IssueError>> + Send + 'a>>;

/// A JWT-SVID on its way.
pub type IssuingJwt<'a> = Pin<Box<dyn Future<Output = Result<JwtSvid, IssueError>> + Send + 'a>>;

/// Makes SVIDs, and says whom to trust.
pub trait Issuer: fmt::Debug + Send + Sync {
    /// Makes a key and an SVID for it.
    ///
    /// # Errors
    /// The caller keeps what it has and asks again later.
    fn issue(&self, request: IssueRequest) -> Issuing<'_>;

    /// Makes a JWT-SVID. Its authority is in the bundles before it is used.
    ///
    /// # Errors
    /// The caller goes on with what is valid, and asks again later.
    fn issue_jwt(&self, request: JwtRequest) -> IssuingJwt<'_>;

    /// Does what is due to the authorities themselves: renews, publishes, retires. `all_by`: the one
    /// authority that has signed every SVID in use, if it is one. Called every half minute at least,
    /// and at the time that it answers; to be quick when nothing is due.
    fn upkeep(&self, all_by: Option<&str>) -> Option<SystemTime>;

    /// Key id of the authority that signs now: SVIDs that another has signed are to be replaced at
    /// once. None where the issuer does not say. Told whenever anything about authorities changes.
    fn signs_with(&self) -> watch::Receiver<Option<Arc<str>>>;

    /// The bundles of every trust domain that is known; changes as authorities come and go.
    fn bundles(&self) -> watch::Receiver<Arc<BundleSet>>;

    /// Makes the bundles of other trust domains known, in place of those that were. What they say of
    /// the issuer's own trust domain does not count.
    fn trust(&self, others: &BundleSet);

    /// The authorities that this issuer signs with or under, for `tacit status`.
    fn authorities(&self) -> Vec<AuthorityStatus>;
}

/// An authority and how long it will last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityStatus {
    /// What it is to this node: `root` or `node`.
    pub role: &'static str,
    /// Subject key id, lower-case hex.
    pub key_id: String,
    /// End of validity.
    pub not_after: SystemTime,
    /// What it is used for, and until when.
    pub stage: AuthorityStage,
    /// What the operator has to do soon, if anything.
    pub warning: Option<&'static str>,
}

/// What an authority is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityStage {
    /// The node's SVIDs hang on it.
    Signs,
    /// What others have signed under it is trusted.
    Trusted,
    /// It is trusted, and signs from this time on.
    Prepared(SystemTime),
    /// It signs no more, and is trusted until this time.
    Retires(SystemTime),
}

/// Why there is no SVID.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum IssueError {
    /// This issuer signs for another trust domain.
    #[error(
        "{id} is not in trust domain {trust_domain}, for which this node may sign; correct the entry"
    )]
    ForeignTrustDomain {
        /// The ID that was asked for.
        id: SpiffeId,
        /// The trust domain of the issuer.
        trust_domain: TrustDomain,
    },
    /// The issuer's own certificate has expired.
    #[error(
        "the node's authority expired at {}; have a new one signed (tacit ca request)",
        humantime::format_rfc3339_seconds(*.not_after)
    )]
    AuthorityExpired {
        /// When.
        not_after: SystemTime,
    },
    /// The cryptographic library refused.
    #[error("could not {0}")]
    Crypto(&'static str),
    /// What was issued is no valid SVID; nothing is done with it.
    #[error("the issuer made no valid SVID: {0}")]
    Invalid(VerifyError),
    /// What was issued cannot be used; nothing is done with it.
    #[error("what the issuer made {0}")]
    Unusable(&'static str),
    /// No answer in time.
    #[error("the issuer did not answer within {}s", .0.as_secs())]
    TimedOut(Duration),
    /// The issuer is known to fail just now: its last error, without asking again.
    #[error("{last} (it is asked again in {}s)", retry_in.as_secs())]
    NotYetRetried {
        /// Why it failed.
        last: Arc<Self>,
        /// When it is asked again.
        retry_in: Duration,
    },
    /// The identity has been denied meanwhile.
    #[error("{0}")]
    Denied(String),
    /// The entry was removed or changed meanwhile.
    #[error("the registration entry is gone")]
    EntryGone,
}

impl AuthorityStage {
    /// Stable label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signs => "signs",
            Self::Trusted => "trusted",
            Self::Prepared(_) => "prepared",
            Self::Retires(_) => "retires",
        }
    }

    /// When that changes by itself.
    pub fn until(self) -> Option<SystemTime> {
        match self {
            Self::Signs | Self::Trusted => None,
            Self::Prepared(at) | Self::Retires(at) => Some(at),
        }
    }
}
