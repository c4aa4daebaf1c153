//! Asking: a plain gRPC client of generated code, so that nothing stands between a case and the
//! wire.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use proto::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use proto::{X509svidRequest, X509svidResponse};
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

/// The longest that an answer may take before it counts as none.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) type Client = SpiffeWorkloadApiClient<Channel>;

/// A connection to the socket.
pub(crate) async fn channel(socket: &Path) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    endpoint.timeout(PATIENCE * 60).connect().await.context("cannot connect to the socket")
}

pub(crate) async fn client(socket: &Path) -> Result<Client> {
    Ok(SpiffeWorkloadApiClient::new(channel(socket).await?))
}

/// A request with the header of the standard as often as it is given.
pub(crate) fn with_header<T>(message: T, values: &[&'static str]) -> Request<T> {
    let mut request = Request::new(message);
    for value in values {
        request.metadata_mut().append("workload.spiffe.io", MetadataValue::from_static(value));
    }
    request
}

pub(crate) fn request<T>(message: T) -> Request<T> {
    with_header(message, &["true"])
}

/// The next message of a stream.
pub(crate) async fn next<T>(stream: &mut Streaming<T>, patience: Duration) -> Result<T> {
    let message = tokio::time::timeout(patience, stream.message()).await;
    message.context("no message in time")??.context("the stream ended without a reason")
}

/// The first message of a stream of X.509-SVIDs.
pub(crate) async fn x509_svids(client: &mut Client) -> Result<X509svidResponse> {
    let asked = client.fetch_x509svid(request(X509svidRequest {})).await?;
    next(&mut asked.into_inner(), PATIENCE).await
}

/// Whether a call was refused so: at once, or by the first thing that its stream says.
pub(crate) fn refused<T>(answer: &Result<T, Status>, code: Code) -> Result<(), String> {
    match answer {
        Err(status) if status.code() == code => Ok(()),
        Err(status) => Err(format!("{:?}: {}", status.code(), status.message())),
        Ok(_) => Err("it was answered".to_owned()),
    }
}

/// The first word of a stream: servers may refuse before or within it.
pub(crate) async fn first<T>(
    answer: Result<tonic::Response<Streaming<T>>, Status>,
) -> Result<T, Status> {
    let mut stream = answer?.into_inner();
    let message = tokio::time::timeout(PATIENCE, stream.message()).await;
    let message = message.map_err(|_late| Status::deadline_exceeded("no message in time"))?;
    message?.ok_or_else(|| Status::unknown("the stream ended without a word"))
}
