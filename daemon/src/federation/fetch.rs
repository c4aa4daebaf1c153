//! One look at another trust domain's bundle endpoint: GET over TLS, with its redirects, within
//! bounds. Nothing is remembered between two looks, redirects least of all.
//! Source: SPIFFE Federation §5.2.

use std::io;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::peer;
use crate::config::{UrlError, endpoint_url};

/// Largest document that is read, bytes. Chosen: some hundred authorities.
const LARGEST: usize = 1 << 20;
/// Most redirects that are followed. Chosen.
const MOST_REDIRECTS: usize = 5;
/// Where no port is said. Source: RFC 9110 §4.2.2.
const HTTPS_PORT: u16 = 443;

/// Why there is no document.
#[derive(Debug, Error)]
pub(super) enum FetchError {
    /// TCP, or the name.
    #[error("{host}:{port} cannot be reached: {source}")]
    Connect {
        /// Whom.
        host: String,
        /// At which port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// TLS, or the certificate.
    #[error("{host} does not prove that it is the endpoint: {why}")]
    Tls {
        /// Whom.
        host: String,
        /// What is wrong.
        why: String,
    },
    /// HTTP.
    #[error("{host} does not answer as it should: {source}")]
    Http {
        /// Whom.
        host: String,
        /// What is wrong.
        source: hyper::Error,
    },
    /// No bundle.
    #[error("{host} answers {status}")]
    Status {
        /// Whom.
        host: String,
        /// With what.
        status: StatusCode,
    },
    /// Too much of it.
    #[error("{0} sends more than {LARGEST} bytes")]
    TooLarge(String),
    /// A redirect to what is no endpoint.
    #[error("{host} redirects to an address that {why}")]
    Redirect {
        /// Whom.
        host: String,
        /// What is wrong.
        why: UrlError,
    },
    /// Redirects without end.
    #[error("more than {MOST_REDIRECTS} redirects")]
    TooManyRedirects,
}

/// Gets the document. The peer at each step has to prove itself in the same way.
///
/// # Errors
/// See [`FetchError`].
///
/// # Cancel safety
/// Cancel safe.
pub(super) async fn fetch(url: &Uri, tls: &Arc<ClientConfig>) -> Result<Bytes, FetchError> {
    let mut url = url.clone();
    for _ in 0..=MOST_REDIRECTS {
        match get(&url, tls).await? {
            Answer::Document(bytes) => return Ok(bytes),
            Answer::Elsewhere(next) => url = next,
        }
    }
    Err(FetchError::TooManyRedirects)
}

enum Answer {
    Document(Bytes),
    Elsewhere(Uri),
}

async fn get(url: &Uri, tls: &Arc<ClientConfig>) -> Result<Answer, FetchError> {
    let host = url.host().unwrap_or_default().to_owned();
    let http = |source| FetchError::Http { host: host.clone(), source };
    let stream = connect(&host, url.port_u16().unwrap_or(HTTPS_PORT), tls).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let exchange = async {
        let answer = sender.send_request(request(url)).await.map_err(http)?;
        if is_redirect(answer.status()) {
            let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let next = target(url, to.unwrap_or_default());
            return next
                .map(Answer::Elsewhere)
                .map_err(|why| FetchError::Redirect { host: host.clone(), why });
        }
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status { host: host.clone(), status: answer.status() });
        }
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        body.map(|body| Answer::Document(body.to_bytes())).map_err(|error| {
            match error.downcast::<LengthLimitError>() {
                Ok(_) => FetchError::TooLarge(host.clone()),
                Err(error) => FetchError::Connect {
                    host: host.clone(),
                    port: url.port_u16().unwrap_or(HTTPS_PORT),
                    source: io::Error::other(error),
                },
            }
        })
    };
    // The answer counts; how the connection then ends does not.
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ended = connection => exchange.await,
    }
}

fn request(url: &Uri) -> Request<Empty<Bytes>> {
    let authority = url.authority().map(ToString::to_string).unwrap_or_default();
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("tacit/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close");
    // Made of a URL that was read: each part of it fits.
    request.body(Empty::new()).unwrap_or_default()
}

async fn connect(
    host: &str,
    port: u16,
    tls: &Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, FetchError> {
    let untrusted = |why: String| FetchError::Tls { host: host.to_owned(), why };
    // Source: RFC 3986 §3.2.2; the brackets of an IPv6 address belong to the URL.
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned())
        .map_err(|_no_name| untrusted("no name that a certificate could bear".to_owned()))?;
    let unreachable = |source| FetchError::Connect { host: host.to_owned(), port, source };
    let stream = TcpStream::connect((bare, port)).await.map_err(unreachable)?;
    let connector = TlsConnector::from(Arc::clone(tls));
    connector.connect(name, stream).await.map_err(|error| untrusted(peer::reason(&error)))
}

/// Temporary and permanent ones alike: none is remembered. Source: SPIFFE Federation §5.2.1.3.
fn is_redirect(status: StatusCode) -> bool {
    [301, 302, 303, 307, 308].contains(&status.as_u16())
}

/// Where a redirect leads: the same rules hold there as for the endpoint itself.
fn target(from: &Uri, to: &str) -> Result<Uri, UrlError> {
    let is_path = to.starts_with('/') && !to.starts_with("//");
    match from.authority() {
        Some(authority) if is_path => endpoint_url(&format!("https://{authority}{to}")),
        _ => endpoint_url(to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_an_endpoint_or_nowhere() {
        let from = endpoint_url("https://a.test:8443/x?y").unwrap();
        let to = |location: &str| target(&from, location).map(|uri| uri.to_string());
        assert_eq!(to("/b?c").unwrap(), "https://a.test:8443/b?c");
        assert_eq!(to("https://b.test/").unwrap(), "https://b.test/");
        for bad in ["http://b.test/", "//b.test/", "b", "", "https://u:p@b.test/", "https:///"] {
            assert!(to(bad).is_err(), "{bad}");
        }
    }
}
