//! A Workload API from the side of its clients: how long a call takes, and when a change reaches
//! many streams. Moments are those of `CLOCK_BOOTTIME`, which all processes of a host share.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use nix::time::{ClockId, clock_gettime};
use proto::X509svidRequest;
use proto::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tokio::sync::mpsc;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Longer than any measurement takes.
const LONGEST: Duration = Duration::from_mins(10);

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// `FetchX509SVID`, until its first message.
    Svid,
    /// `grpc.health.v1.Health/Check`: a bare call on the same socket.
    Health,
}

/// Calls one after the other on one connection, and prints the median and the 99th percentile in
/// microseconds.
pub(crate) fn call(socket: &Path, method: Method, count: usize) -> Result<()> {
    runtime()?.block_on(async {
        let channel = connect(socket).await?;
        let mut api = SpiffeWorkloadApiClient::new(channel.clone());
        let mut health = HealthClient::new(channel);
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            match method {
                Method::Svid => {
                    let mut stream = api.fetch_x509svid(request()).await?.into_inner();
                    stream.message().await?.context("no message")?;
                }
                Method::Health => {
                    health.check(HealthCheckRequest { service: String::new() }).await?;
                }
            }
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
        times.sort_by(f64::total_cmp);
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(f64::NAN);
        println!("p50={:.1} p99={:.1}", at(50), at(99));
        Ok(())
    })
}

/// Holds so many streams, each on a connection of its own, and prints when each change reached the
/// first, the median and the last of them.
pub(crate) fn watch(socket: &Path, streams: usize) -> Result<()> {
    runtime()?.block_on(async {
        let (tell, mut told) = mpsc::channel(streams);
        for number in 0..streams {
            let open = open(socket, tell.clone());
            open.await.with_context(|| format!("stream {number}"))?;
        }
        println!("watching={streams}");
        let mut moments = Vec::with_capacity(streams);
        while let Ok(Some(moment)) = tokio::time::timeout(LONGEST, told.recv()).await {
            moments.push(moment?);
            if moments.len() == streams {
                moments.sort_unstable();
                let at = |index: usize| moments.get(index).copied().unwrap_or_default();
                println!("first={} median={} last={}", at(0), at(streams / 2), at(streams - 1));
                moments.clear();
            }
        }
        Ok(())
    })
}

/// Opens a stream, waits for its first message, and tells the moment of each one after it.
async fn open(socket: &Path, tell: mpsc::Sender<Result<u128>>) -> Result<()> {
    let mut api = SpiffeWorkloadApiClient::new(connect(socket).await?);
    let mut stream = api.fetch_x509svid(request()).await?.into_inner();
    stream.message().await?.context("no first message")?;
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with the process, whose only work it is"
    )]
    tokio::spawn(async move {
        // Kept: the stream ends with its connection.
        let _api = api;
        loop {
            let next = match stream.message().await {
                Ok(Some(_)) => now_ns(),
                Ok(None) => Err(anyhow::anyhow!("a stream ended")),
                Err(status) => Err(status.into()),
            };
            let is_last = next.is_err();
            if tell.send(next).await.is_err() || is_last {
                return;
            }
        }
    });
    Ok(())
}

/// This moment, nanoseconds since boot.
pub(crate) fn now_ns() -> Result<u128> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?).as_nanos())
}

fn request() -> Request<X509svidRequest> {
    let mut request = Request::new(X509svidRequest {});
    request.metadata_mut().append("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

async fn connect(socket: &Path) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    endpoint.connect().await.context("cannot connect to the socket")
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
