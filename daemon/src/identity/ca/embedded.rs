//! The issuer inside the daemon: signs with the authority of this node. The root's key is not
//! needed; where it is kept beside, the node's authority is renewed by itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::files::{CaError, NodeAuthority, exists, has_root_key, init_ca, renew_node};
use super::jwt_keys::JwtKeys;
use super::signing::SigningAuthority;
use crate::identity::issuer::{
    AuthorityStatus, IssueError, IssueRequest, Issuer, Issuing, IssuingJwt, JwtRequest,
};
use crate::spiffe::{Authority, BundleSet, JwtSvid, TrustBundle, TrustDomain, X509Svid};
use crate::sys::clock;

/// What the embedded CA needs to know.
#[derive(Debug, Clone)]
pub struct CaSettings {
    /// Where its files are: a directory of its own, made if it is absent.
    pub directory: PathBuf,
    /// The trust domain that the configuration names.
    pub trust_domain: TrustDomain,
    /// The node's name, for certificates that it makes for itself.
    pub node: String,
    /// How far the start of an SVID lies in the past, for peers whose clocks are behind.
    pub backdate: Duration,
    /// Wall-clock time.
    pub clock: fn() -> SystemTime,
}

impl CaSettings {
    /// As the standards and SPIRE have it: SVIDs start 10 s ago.
    pub fn new(directory: PathBuf, trust_domain: TrustDomain, node: String) -> Self {
        let backdate = Duration::from_secs(10);
        Self { directory, trust_domain, node, backdate, clock: clock::now }
    }
}

/// The embedded CA.
#[derive(Debug)]
pub struct LocalCa {
    settings: CaSettings,
    signing: ArcSwap<SigningAuthority>,
    jwt_keys: ArcSwap<JwtKeys>,
    bundles: watch::Sender<Arc<BundleSet>>,
}

impl LocalCa {
    /// Opens the CA directory; makes root and node authority where there is none at all.
    /// Blocks on files: call it at start.
    ///
    /// # Errors
    /// See [`CaError`]. A directory that holds only a part is never filled up: an authority that
    /// others trust would silently be replaced by one that nobody does.
    pub fn open(settings: CaSettings) -> Result<Self, CaError> {
        let (directory, now) = (&settings.directory, (settings.clock)());
        if !exists(directory) {
            init_ca(directory, &settings.trust_domain, &settings.node, now)?;
            tracing::info!(directory = %directory.display(), "a new authority was made");
        }
        // A node that was down for a year comes back by itself if it can.
        let read = NodeAuthority::read(directory, now);
        let node = match read {
            Err(CaError::Issue(IssueError::AuthorityExpired { .. })) if has_root_key(directory) => {
                renew_node(directory, &settings.node, now)?;
                NodeAuthority::read(directory, now)?
            }
            read => read?,
        };
        if *node.signing.trust_domain() != settings.trust_domain {
            return Err(CaError::ForeignTrustDomain {
                path: directory.clone(),
                found: node.signing.trust_domain().clone(),
                expected: settings.trust_domain,
            });
        }
        let jwt_keys = JwtKeys::open(directory, now)?;
        let bundle = node.bundle.with_jwt_authorities(jwt_keys.authorities());
        let bundles = watch::Sender::new(Arc::new([bundle].into_iter().collect()));
        Ok(Self {
            signing: ArcSwap::from_pointee(node.signing),
            jwt_keys: ArcSwap::from_pointee(jwt_keys),
            bundles,
            settings,
        })
    }

    fn sign(&self, request: &IssueRequest) -> Result<X509Svid, IssueError> {
        let now = (self.settings.clock)();
        self.renew_if_due(now);
        self.signing.load().svid(request, self.settings.backdate, now)
    }

    fn sign_jwt(&self, request: &JwtRequest) -> Result<JwtSvid, IssueError> {
        let trust_domain = &self.settings.trust_domain;
        if !request.spiffe_id.is_member_of(trust_domain) {
            return Err(IssueError::ForeignTrustDomain {
                id: request.spiffe_id.clone(),
                trust_domain: trust_domain.clone(),
            });
        }
        self.jwt_keys.load().sign(request, (self.settings.clock)())
    }

    /// Rare and short: a file made and one removed in a week.
    fn renew_jwt_keys(&self, now: SystemTime) {
        let mut keys = JwtKeys::clone(&self.jwt_keys.load());
        match keys.upkeep(now) {
            Ok(false) => {}
            Ok(true) => {
                self.publish(&keys);
                self.jwt_keys.store(Arc::new(keys));
                tracing::info!("the keys of JWT-SVIDs were rotated");
            }
            Err(error) => tracing::error!(%error, "the keys of JWT-SVIDs could not be rotated"),
        }
    }

    /// Before they sign: whoever verifies knows them by then.
    fn publish(&self, keys: &JwtKeys) {
        self.bundles.send_modify(|bundles| {
            let own = bundles.get(&self.settings.trust_domain).map(|it| TrustBundle::clone(it));
            let own = own.map(|bundle| bundle.with_jwt_authorities(keys.authorities()));
            *bundles = Arc::new(bundles.with(own));
        });
    }

    /// Rare and short: once in a year, a few kilobytes of files.
    fn renew_if_due(&self, now: SystemTime) {
        let directory = &self.settings.directory;
        if !is_due(self.signing.load().authority(), now) || !has_root_key(directory) {
            return;
        }
        let renewed = renew_node(directory, &self.settings.node, now)
            .and_then(|()| NodeAuthority::read(directory, now));
        match renewed {
            Ok(node) => {
                self.signing.store(Arc::new(node.signing));
                tracing::info!("the node's authority was renewed");
            }
            // SVIDs can still be signed; `tacit status` shows the warning.
            Err(error) => tracing::debug!(%error, "the node's authority could not be renewed"),
        }
    }
}

/// Whether less than a third of an authority's life is left.
fn is_due(authority: &Authority, now: SystemTime) -> bool {
    let life = authority.not_after.duration_since(authority.not_before).unwrap_or_default();
    authority.not_after.duration_since(now).unwrap_or_default() < life / 3
}

impl Issuer for LocalCa {
    fn issue(&self, request: IssueRequest) -> Issuing<'_> {
        // Two signatures' worth of work: not worth another thread.
        Box::pin(async move { self.sign(&request) })
    }

    fn issue_jwt(&self, request: JwtRequest) -> IssuingJwt<'_> {
        Box::pin(async move { self.sign_jwt(&request) })
    }

    fn upkeep(&self) {
        let now = (self.settings.clock)();
        self.renew_if_due(now);
        self.renew_jwt_keys(now);
    }

    fn bundles(&self) -> watch::Receiver<Arc<BundleSet>> {
        self.bundles.subscribe()
    }

    fn trust(&self, others: &BundleSet) {
        self.bundles.send_if_modified(|bundles| {
            let together = bundles.beside(&self.settings.trust_domain, others);
            let differs = together != **bundles;
            if differs {
                *bundles = Arc::new(together);
            }
            differs
        });
    }

    fn authorities(&self) -> Vec<AuthorityStatus> {
        let now = (self.settings.clock)();
        let status = |role, authority: &Authority, remedy| AuthorityStatus {
            role,
            key_id: authority.key_id.clone(),
            not_after: authority.not_after,
            warning: is_due(authority, now).then_some(remedy),
        };
        let signing = self.signing.load();
        let node = status(
            "node",
            signing.authority(),
            "less than a third of its life is left; give this node a new authority (tacit ca issue-node)",
        );
        let bundles = Arc::clone(&self.bundles.borrow());
        let own = bundles.get(&self.settings.trust_domain);
        let roots = own.into_iter().flat_map(|bundle| bundle.authorities()).map(|root| {
            status(
                "root",
                root,
                "less than a third of its life is left; make a new root and add it to bundle.pem on every node",
            )
        });
        std::iter::once(node).chain(roots).collect()
    }
}
