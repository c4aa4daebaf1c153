//! A program that knows SPIFFE: rust-spiffe against a Workload API. It knows nothing of Tacit.

use std::env;
use std::time::Duration;

use anyhow::{Context as _, Result};
use spiffe::{JwtSvid, SpiffeId, TrustDomain, WorkloadApiClient, X509Source};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let socket = arguments.next().context("usage: workload SOCKET AUDIENCE")?;
    let audience = arguments.next().context("usage: workload SOCKET AUDIENCE")?;
    let endpoint = format!("unix://{socket}");
    let client = WorkloadApiClient::connect_to(&endpoint).await?;
    x509(&client).await?;
    jwt(&client, &audience).await?;
    rotation(&endpoint).await
}

async fn x509(client: &WorkloadApiClient) -> Result<()> {
    let one = client.fetch_x509_svid().await?;
    let all = client.fetch_all_x509_svids().await?;
    let bundles = client.fetch_x509_bundles().await?;
    let domain = TrustDomain::new("example.org")?;
    let authorities = bundles.get(&domain).context("no bundle")?.authorities().len();
    let context = client.fetch_x509_context().await?;
    let default = context.default_svid().context("no default")?.spiffe_id().clone();
    println!(
        "x509 one={} all={} bundle={authorities} default={default}",
        one.spiffe_id(),
        all.len()
    );
    Ok(())
}

async fn jwt(client: &WorkloadApiClient, audience: &str) -> Result<()> {
    let all = client.fetch_all_jwt_svids([audience], None).await?;
    let bundles = client.fetch_jwt_bundles().await?;
    for svid in &all {
        let here = JwtSvid::parse_and_validate(svid.token(), &bundles, &[audience])?;
        let there = client.validate_jwt_token(audience, svid.token()).await?;
        println!(
            "jwt id={} here={} there={}",
            svid.spiffe_id(),
            here.spiffe_id(),
            there.spiffe_id()
        );
    }
    let other = SpiffeId::new("spiffe://example.org/not/mine")?;
    let refused = client.fetch_jwt_svid([audience], Some(&other)).await;
    println!("another identity: {}", refused.is_err());
    let refused = client.validate_jwt_token("somebody else", all[0].token()).await;
    println!("another audience: {}", refused.is_err());
    Ok(())
}

/// A source renews by itself.
async fn rotation(endpoint: &str) -> Result<()> {
    let source = X509Source::builder().endpoint(endpoint).build().await?;
    let mut updates = source.updated();
    let before = source.svid()?.cert_chain()[0].clone();
    // An update may be that of another SVID.
    let renewed = async {
        while source.svid()?.cert_chain()[0] == before {
            updates.changed().await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), renewed).await??;
    println!("rotated");
    Ok(())
}
