//! The gRPC server on the socket of the Workload API: who is let in, and which services answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use proto::spiffe_workload_api_server::SpiffeWorkloadApiServer;
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::Server;

use super::caller::{Caller, Connection};
use super::handover::Handovers;
use super::limits::{ApiLimits, Counted, Limits};
use super::sds::SecretDiscovery;
use super::socket::WorkloadSocket;
use super::workload::WorkloadApi;
use crate::audit::Audit;
use crate::identity::Identities;
use crate::shutdown::Stop;
use crate::sys::cgroup::Cgroups;
use crate::sys::unix_peer::UnixPeer;

/// Requests of one connection at one time. Chosen: a client library has one stream for each thing
/// that it follows.
const STREAMS: u32 = 100;
/// Largest headers of a request. Chosen; clients send some hundred bytes.
const HEADER_BYTES: u32 = 16 << 10;
/// Largest request. Chosen: a token with many claims and audiences.
const REQUEST_BYTES: usize = 64 << 10;
/// How long to wait when `accept` fails, as it does without file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// What the server stands on.
#[derive(Debug)]
pub struct ApiParts {
    /// Where it listens.
    pub socket: WorkloadSocket,
    /// Who is who.
    pub identities: Identities,
    /// Where it is recorded who was given keys.
    pub audit: Audit,
    /// The cgroup hierarchy of the host.
    pub cgroups: Cgroups,
    /// How much callers may cost.
    pub limits: ApiLimits,
}

/// Answers until the daemon drains; streams then end.
pub async fn serve(parts: ApiParts, stop: Stop) {
    let ApiParts { socket, identities, audit, cgroups, limits } = parts;
    let handovers = Arc::new(Handovers::new(audit));
    let secrets = SecretDiscovery {
        identities: identities.clone(),
        handovers: Arc::clone(&handovers),
        stop: stop.clone(),
    };
    let secrets =
        SecretDiscoveryServiceServer::new(secrets).max_decoding_message_size(REQUEST_BYTES);
    let workload = WorkloadApi { identities, handovers, stop: stop.clone() };
    let workload = SpiffeWorkloadApiServer::new(workload).max_decoding_message_size(REQUEST_BYTES);
    let (_reporter, health) = tonic_health::server::health_reporter();
    let mut server = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADER_BYTES)
        .add_service(workload)
        .add_service(secrets)
        .add_service(health);
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => server = server.add_service(v1).add_service(v1alpha),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "gRPC reflection is not served");
        }
    }
    let door = Door { listener: &socket.listener, cgroups, limits: Limits::new(limits) };
    let mut ending = stop.clone();
    let serving = server.serve_with_incoming_shutdown(door.callers(), async move {
        ending.draining().await;
    });
    if let Err(error) = serving.await {
        tracing::error!(%error, "the Workload API failed");
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Lets callers in.
struct Door<'a> {
    listener: &'a UnixListener,
    cgroups: Cgroups,
    limits: Limits,
}

impl Door<'_> {
    /// The connections of callers that may come in, without end.
    fn callers(self) -> impl Stream<Item = Result<Connection, io::Error>> {
        stream::unfold(self, |door| async {
            let connection = door.next().await;
            Some((Ok(connection), door))
        })
    }

    async fn next(&self) -> Connection {
        loop {
            let Some(room) = self.limits.room().await else {
                std::future::pending::<()>().await;
                continue;
            };
            let admitted = match self.listener.accept().await {
                Ok((stream, _)) => self.admit(stream, room),
                Err(error) => {
                    tracing::warn!(%error, "the Workload API could not accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            match admitted {
                Ok(connection) => return connection,
                Err(error) => {
                    tracing::debug!(%error, "a caller of the Workload API was not let in");
                }
            }
        }
    }

    /// Finds out who it is, as far as that costs next to nothing.
    fn admit(
        &self,
        stream: UnixStream,
        room: tokio::sync::OwnedSemaphorePermit,
    ) -> io::Result<Connection> {
        let peer = UnixPeer::of(&stream)?;
        let cgroup = peer.cgroup(&self.cgroups)?;
        let counted: Option<Counted> = self.limits.connect(cgroup, room);
        let counted = counted.ok_or_else(|| io::Error::other("too many of its cgroup"))?;
        let caller = Caller { peer, cgroups: self.cgroups.clone(), counted };
        Ok(Connection::new(stream, caller))
    }
}
