//! The ports that anybody may ask: the bundle endpoint, and the documents of `OpenID` Connect.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{BundleEndpointConfig, Config, EndpointProfile, OidcConfig};
use crate::federation::{
    CertificateSource, Endpoint, EndpointRoutes, Published, Shown, bundle_routes, oidc_routes,
};
use crate::identity::Issuer;
use crate::shutdown::Tasks;
use crate::state::Sequence;

use super::StartError;
use super::sockets::{Estate, name};
use super::succession::Passable;

/// Everything that is published, its ports bound.
#[derive(Debug)]
pub(super) struct Endpoints {
    published: Published,
    ports: Vec<Endpoint>,
    shown: Vec<Shown>,
}

impl Endpoints {
    /// Binds the ports that the configuration names, or takes those that were passed on, and has
    /// their certificates.
    pub(super) async fn open(
        config: &Config,
        issuer: &Arc<dyn Issuer>,
        estate: &mut Estate,
    ) -> Result<Self, StartError> {
        let own = &config.node.trust_domain;
        let published = Published::new(
            own.clone(),
            config.bundle_endpoint.refresh_hint,
            issuer.bundles(),
            Sequence::open(&config.node.state_dir)?,
        )?;
        let mut opened = Self { published, ports: Vec::new(), shown: Vec::new() };
        if let Some(address) = config.bundle_endpoint.listen {
            let source = bundle_certificate(config);
            let shown = Shown::first(source, Arc::clone(issuer)).await?;
            let routes = bundle_routes(opened.published.document());
            opened.shown.push(shown.clone());
            let at = (name::BUNDLE_ENDPOINT, address);
            opened.ports.push(listen(at, Some(shown), routes, estate).await?);
        }
        if let (Some(address), Some(url)) = (config.oidc.listen, &config.oidc.issuer) {
            let shown = match oidc_certificate(&config.oidc) {
                Some(source) => Some(Shown::first(source, Arc::clone(issuer)).await?),
                None => None,
            };
            opened.shown.extend(shown.clone());
            let routes = oidc_routes(url, own.clone(), issuer.bundles());
            let at = (name::OPENID_CONNECT, address);
            opened.ports.push(listen(at, shown, routes, estate).await?);
        }
        Ok(opened)
    }

    /// The own bundle as it is published.
    pub(super) fn document(&self) -> watch::Receiver<Arc<str>> {
        self.published.document()
    }

    /// The ports, so that they can be passed on.
    pub(super) fn passable(&self, to: &mut Passable) -> io::Result<()> {
        self.ports.iter().try_for_each(|port| to.add(port.name(), port))
    }

    /// Answers until the daemon drains.
    pub(super) fn serve(self, tasks: &mut Tasks) {
        tasks.spawn("published bundle", self.published.keep(tasks.stop()));
        for shown in self.shown {
            tasks.spawn("an endpoint's certificate", shown.keep(tasks.stop()));
        }
        for endpoint in self.ports {
            tasks.spawn("an endpoint", endpoint.serve(tasks.stop()));
        }
    }
}

async fn listen(
    (name, address): (&'static str, SocketAddr),
    shown: Option<Shown>,
    routes: EndpointRoutes,
    estate: &mut Estate,
) -> Result<Endpoint, StartError> {
    let Some(listener) = estate.tcp(name, address) else {
        return Ok(Endpoint::bind(name, address, shown, routes).await?);
    };
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    Ok(Endpoint::on(name, listener, shown, routes)?)
}

fn bundle_certificate(config: &Config) -> CertificateSource {
    let BundleEndpointConfig { profile, spiffe_id, certificate, key, .. } = &config.bundle_endpoint;
    if let (EndpointProfile::HttpsWeb, Some(certificate), Some(key)) = (profile, certificate, key) {
        return CertificateSource::Files { certificate: certificate.clone(), key: key.clone() };
    }
    // The configuration has seen to it that files are named where they are needed.
    let own = config.node.trust_domain.id_string();
    let usual = || format!("{own}{}", BundleEndpointConfig::USUAL_PATH);
    let id = spiffe_id.as_ref().map_or_else(usual, ToString::to_string);
    CertificateSource::Svid { id, ttl: config.issuer.svid_ttl }
}

fn oidc_certificate(config: &OidcConfig) -> Option<CertificateSource> {
    let (certificate, key) = (config.certificate.clone()?, config.key.clone()?);
    Some(CertificateSource::Files { certificate, key })
}
