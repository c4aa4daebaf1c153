//! The handshake: from a socket and a credential to a channel with a known peer, or to the reason
//! why not.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::{DnsName, IpAddr, ServerName};
use rustls::{ClientConnection, Connection, Error, ServerConnection};
use thiserror::Error as ThisError;
use tokio::net::TcpStream;

use super::channel::{Channel, ChannelError};
use super::credential::{Credential, Offer};
use super::marker::marked;
use super::verifier::{Finding, Trust, Verifier};
use crate::audit::{Outcome, PeerFailure, RecordBuilder, TlsFacts};
use crate::policy::{Denial, DenyReason, Permit};
use crate::proxy::relay::Inbox;
use crate::spiffe::{PeerIdentity, VerifyError};

/// Label of the exporter that names the connection at both ends.
const CONNECTION_ID_LABEL: &[u8] = b"EXPORTER-tacit-connection-id";

/// A finished handshake.
#[derive(Debug)]
pub(in crate::proxy) struct Established {
    /// To carry bytes over.
    pub(in crate::proxy) channel: Box<Channel>,
    /// Who the peer has proved to be.
    pub(in crate::proxy) peer: PeerIdentity,
    /// What policy said of it.
    pub(in crate::proxy) permit: Permit,
    /// For the record.
    pub(in crate::proxy) facts: TlsFacts,
}

/// Why there is no connection.
#[derive(Debug, ThisError)]
pub(in crate::proxy) enum HandshakeError {
    /// The peer has no valid X.509-SVID of a trusted domain.
    #[error(transparent)]
    Unverified(VerifyError),
    /// The peer has proved who it is, and policy refuses it.
    #[error("{} is not allowed", .0.id())]
    Denied(PeerIdentity, Denial),
    /// The peer broke off, or does not speak our TLS.
    #[error(transparent)]
    Failed(ChannelError),
}

impl HandshakeError {
    /// How the connection ended; what is known of the peer goes into the record.
    pub(in crate::proxy) fn into_outcome(self, record: &mut RecordBuilder) -> Outcome {
        record.detail(&self);
        if let Self::Denied(peer, denial) = &self {
            record.peer_id(peer.id());
            record.denial(denial);
        }
        self.outcome()
    }

    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Unverified(fault) if fault.is_expired() => {
                Outcome::Denied(DenyReason::PeerExpired)
            }
            Self::Unverified(_) => Outcome::Denied(DenyReason::PeerUnverified),
            Self::Denied(_, denial) => Outcome::Denied(denial.reason()),
            Self::Failed(ChannelError::CertificateRefused(_)) => {
                Outcome::PeerFailed(PeerFailure::CertificateRefused)
            }
            Self::Failed(_) => Outcome::PeerFailed(PeerFailure::HandshakeFailed),
        }
    }
}

impl Credential {
    /// Shakes hands as the client, with the mark of the mesh; `inbox` is for what is received.
    ///
    /// # Errors
    /// See [`HandshakeError`].
    ///
    /// # Cancel safety
    /// Dropped, it leaves a half-made connection: close the socket.
    pub(in crate::proxy) async fn connect(
        &self,
        socket: &TcpStream,
        inbox: Inbox,
        offer: Offer<'_>,
        trust: Trust,
    ) -> Result<Established, HandshakeError> {
        let verifier = Verifier::new(trust, &self.provider);
        let config = Arc::new(self.client(&verifier, offer));
        let client = marked(|| ClientConnection::new(config, server_name(offer)))?;
        finish(Connection::from(client), inbox, socket, &verifier).await
    }

    /// Shakes hands as the server; `heard` is what the client has said so far.
    ///
    /// # Errors
    /// See [`HandshakeError`].
    ///
    /// # Cancel safety
    /// Dropped, it leaves a half-made connection: close the socket.
    pub(in crate::proxy) async fn accept(
        &self,
        socket: &TcpStream,
        heard: Inbox,
        trust: Trust,
    ) -> Result<Established, HandshakeError> {
        let verifier = Verifier::new(trust, &self.provider);
        let server = ServerConnection::new(Arc::new(self.server(&verifier)?))?;
        finish(Connection::from(server), heard, socket, &verifier).await
    }
}

impl From<Error> for HandshakeError {
    fn from(error: Error) -> Self {
        Self::Failed(ChannelError::Tls(error))
    }
}

/// rustls wants a name even where none is sent; an address is never sent.
fn server_name(offer: Offer<'_>) -> ServerName<'static> {
    let name = offer.sni.and_then(|name| DnsName::try_from(name.to_owned()).ok());
    name.map_or(ServerName::IpAddress(IpAddr::V4([0, 0, 0, 0].into())), ServerName::DnsName)
}

async fn finish(
    tls: Connection,
    heard: Inbox,
    socket: &TcpStream,
    verifier: &Verifier,
) -> Result<Established, HandshakeError> {
    let mut channel = Box::new(Channel::new(tls, heard));
    let done = poll_fn(|cx| poll_handshake(&mut channel, socket, cx)).await;
    match (done, verifier.finding()) {
        (Ok(()), Some(Finding::Admitted(peer, permit))) => {
            let facts = facts(&channel.tls, &peer);
            Ok(Established { channel, peer, permit, facts })
        }
        (_, Some(Finding::Denied(peer, denial))) => Err(HandshakeError::Denied(peer, denial)),
        (_, Some(Finding::Unverified(fault))) => Err(HandshakeError::Unverified(fault)),
        (Err(ChannelError::Tls(Error::NoCertificatesPresented)), _) => {
            Err(HandshakeError::Unverified(VerifyError::NoCertificate))
        }
        (Err(error), _) => Err(HandshakeError::Failed(error)),
        // Closed: a handshake that verified nobody is none, whatever rustls says.
        (Ok(()), None) => Err(HandshakeError::Unverified(VerifyError::NoCertificate)),
    }
}

fn poll_handshake(
    channel: &mut Channel,
    socket: &TcpStream,
    cx: &mut Context<'_>,
) -> Poll<Result<(), ChannelError>> {
    loop {
        if let Err(error) = ready!(channel.poll_flush(socket, cx)) {
            // The peer may have said why it closes.
            return Poll::Ready(Err(channel.last_word(socket).unwrap_or(error)));
        }
        if !channel.tls.is_handshaking() {
            return Poll::Ready(Ok(()));
        }
        if channel.is_at_end() {
            return Poll::Ready(Err(ChannelError::Truncated));
        }
        ready!(channel.poll_receive(socket, cx))?;
    }
}

fn facts(tls: &Connection, peer: &PeerIdentity) -> TlsFacts {
    let version = tls.protocol_version().and_then(|version| version.as_str());
    let suite = tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let group = tls.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
    let text = |name: Option<&str>| name.unwrap_or("unknown").to_owned();
    let id = tls.export_keying_material([0_u8; 16], CONNECTION_ID_LABEL, None);
    TlsFacts {
        // rustls names versions as identifiers: TLSv1_3.
        version: text(version).replace('_', "."),
        cipher: text(suite),
        group: text(group),
        peer_serial: Some(peer.serial().to_owned()),
        peer_not_after: Some(peer.not_after()),
        connection_id: id.ok().map(Vec::from),
    }
}
