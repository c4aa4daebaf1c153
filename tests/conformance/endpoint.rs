//! The Workload Endpoint: transport, header, codes, reflection.

use std::path::Path;

use anyhow::Result;
use proto::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitBundlesRequest, WitsvidRequest,
    X509BundlesRequest, X509svidRequest,
};
use tonic::Code;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::probe::{channel, client, first, refused, request, with_header};
use crate::table::Table;

pub(crate) async fn cases(socket: &Path, table: &mut Table) -> Result<()> {
    let mut api = client(socket).await?;
    let section = "Workload Endpoint §3, §5";
    let demand = "gRPC over a Unix socket, without TLS, is answered without a proof by the client";
    let answer = first(api.fetch_x509svid(request(X509svidRequest {})).await).await;
    table.note(section, demand, answer.map(drop).map_err(|status| status.to_string()));

    let section = "Workload Endpoint §6";
    for (how, values) in [
        ("without the header", &[][..]),
        ("with the header `True`", &["True"]),
        ("with the header `false`", &["false"]),
        ("with an empty header", &[""]),
        ("with the header twice", &["true", "true"]),
    ] {
        let answer = first(api.fetch_x509svid(with_header(X509svidRequest {}, values)).await).await;
        let demand = format!("FetchX509SVID {how}: InvalidArgument");
        table.note(section, &demand, refused(&answer, Code::InvalidArgument));
    }
    let none = &[][..];
    let answer =
        first(api.fetch_x509_bundles(with_header(X509BundlesRequest {}, none)).await).await;
    let demand = "without the header: InvalidArgument";
    table.note(
        section,
        &format!("FetchX509Bundles {demand}"),
        refused(&answer, Code::InvalidArgument),
    );
    let answer = first(api.fetch_jwt_bundles(with_header(JwtBundlesRequest {}, none)).await).await;
    table.note(
        section,
        &format!("FetchJWTBundles {demand}"),
        refused(&answer, Code::InvalidArgument),
    );
    let asked = JwtsvidRequest { audience: vec!["conformance".to_owned()], ..Default::default() };
    let answer = api.fetch_jwtsvid(with_header(asked, none)).await;
    table.note(section, &format!("FetchJWTSVID {demand}"), refused(&answer, Code::InvalidArgument));
    let asked = ValidateJwtsvidRequest { audience: "conformance".to_owned(), svid: "x".to_owned() };
    let answer = api.validate_jwtsvid(with_header(asked, none)).await;
    table.note(
        section,
        &format!("ValidateJWTSVID {demand}"),
        refused(&answer, Code::InvalidArgument),
    );

    let section = "Workload API §1, §7";
    let answer = first(api.fetch_witsvid(request(WitsvidRequest::default())).await).await;
    let demand = "FetchWITSVID is served, or Unimplemented";
    table.note(section, demand, served_or_unimplemented(&answer));
    let answer = first(api.fetch_wit_bundles(request(WitBundlesRequest {})).await).await;
    let demand = "FetchWITBundles is served, or Unimplemented";
    table.note(section, demand, served_or_unimplemented(&answer));
    reflection(socket, table).await
}

fn served_or_unimplemented<T>(answer: &Result<T, tonic::Status>) -> Result<(), String> {
    if answer.is_ok() { Ok(()) } else { refused(answer, Code::Unimplemented) }
}

async fn reflection(socket: &Path, table: &mut Table) -> Result<()> {
    let mut reflection = ServerReflectionClient::new(channel(socket).await?);
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = tokio_stream::once(asked);
    let answer = first(reflection.server_reflection_info(asked).await).await;
    let seen = match answer.map(|answer| answer.message_response) {
        Ok(Some(MessageResponse::ListServicesResponse(list))) => {
            let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
            if names.iter().any(|name| name == "SpiffeWorkloadAPI") {
                Ok(())
            } else {
                Err(format!("it names {}", names.join(", ")))
            }
        }
        Ok(_) => Err("another answer".to_owned()),
        Err(status) => Err(status.to_string()),
    };
    table.note("Workload Endpoint §7", "gRPC reflection names SpiffeWorkloadAPI", seen);
    Ok(())
}
