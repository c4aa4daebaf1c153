//! JWT-SVIDs and bundles: for whom, for which audience, and what is valid.

use prost_types::value::Kind;
use proto::{
    JwtBundlesRequest, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse,
};
use tonic::{Code, Status};

use super::stage::{Client, Stage, entry, next, own, request};

async fn fetch(
    client: &mut Client,
    audience: &[&str],
    spiffe_id: &str,
) -> Result<JwtsvidResponse, Status> {
    let audience = audience.iter().map(|&name| name.to_owned()).collect();
    let asked = JwtsvidRequest { audience, spiffe_id: spiffe_id.to_owned() };
    client.fetch_jwtsvid(request(asked)).await.map(tonic::Response::into_inner)
}

async fn validate(
    client: &mut Client,
    audience: &str,
    svid: &str,
) -> Result<ValidateJwtsvidResponse, Status> {
    let asked = ValidateJwtsvidRequest { audience: audience.to_owned(), svid: svid.to_owned() };
    client.validate_jwtsvid(request(asked)).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_workload_gets_tokens_for_all_its_identities_or_for_the_one_it_names() {
    let mut entries = vec![own("a"), own("b"), entry("other", &["unix:uid:54321"])];
    entries[1].hint = "external".to_owned();
    let stage = Stage::new(entries);
    let mut client = stage.client().await;
    let all = fetch(&mut client, &["db"], "").await.unwrap().svids;
    let ids: Vec<_> = all.iter().map(|svid| svid.spiffe_id.as_str()).collect();
    assert_eq!(ids, ["spiffe://td.test/a", "spiffe://td.test/b"]);
    assert_eq!(all[1].hint, "external");
    let one = fetch(&mut client, &["db"], "spiffe://td.test/b").await.unwrap().svids;
    assert_eq!((one.len(), &one[0]), (1, &all[1]), "the very token that was given before");
    let foreign = fetch(&mut client, &["db"], "spiffe://td.test/other").await.unwrap_err();
    assert_eq!((foreign.code(), foreign.message()), (Code::PermissionDenied, "no identity issued"));
}

#[tokio::test]
async fn what_a_request_lacks_is_said_for_good() {
    let stage = Stage::new(vec![own("a")]);
    let mut client = stage.client().await;
    for audience in [&[][..], &[""], &["db", ""]] {
        let refused = fetch(&mut client, audience, "").await.unwrap_err();
        let told = (refused.code(), refused.message());
        assert_eq!(told, (Code::InvalidArgument, "audience must be specified"));
    }
    let bad = fetch(&mut client, &["db"], "web").await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument);
    assert!(bad.message().starts_with("invalid requested SPIFFE ID: "), "{bad}");
    let none = validate(&mut client, "", "x").await.unwrap_err();
    assert_eq!(none.message(), "audience must be specified");
    let none = validate(&mut client, "db", "").await.unwrap_err();
    assert_eq!((none.code(), none.message()), (Code::InvalidArgument, "svid must be specified"));
}

#[tokio::test]
async fn a_token_is_valid_for_its_audience_and_says_what_it_says() {
    let stage = Stage::new(vec![own("a")]);
    let mut client = stage.client().await;
    let token = fetch(&mut client, &["db", "queue"], "").await.unwrap().svids.remove(0).svid;
    let valid = validate(&mut client, "queue", &token).await.unwrap();
    assert_eq!(valid.spiffe_id, "spiffe://td.test/a");
    let claims = valid.claims.unwrap().fields;
    assert_eq!(claims.keys().collect::<Vec<_>>(), ["aud", "exp", "iat", "sub"]);
    let Some(Kind::ListValue(audience)) = &claims["aud"].kind else { panic!("{claims:?}") };
    assert_eq!(audience.values.len(), 2);
    let other = validate(&mut client, "mail", &token).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument);
    let (body, _) = token.rsplit_once('.').unwrap();
    let forged = validate(&mut client, "db", &format!("{body}.AAAA")).await.unwrap_err();
    assert_eq!(
        (forged.code(), forged.message()),
        (Code::InvalidArgument, "token signature is wrong")
    );
}

#[tokio::test]
async fn a_jwt_bundle_is_a_plain_key_set() {
    let stage = Stage::new(vec![own("a")]);
    let mut client = stage.client().await;
    let asked = client.fetch_jwt_bundles(request(JwtBundlesRequest {})).await.unwrap();
    let first = next(&mut asked.into_inner()).await.unwrap();
    let jwks: serde_json::Value =
        serde_json::from_slice(&first.bundles["spiffe://td.test"]).unwrap();
    let key = &jwks["keys"][0];
    assert_eq!((key["kty"].as_str(), key["crv"].as_str()), (Some("EC"), Some("P-256")));
    assert!(key["kid"].is_string() && key.get("use").is_none() && key.get("d").is_none(), "{key}");
}

#[tokio::test]
async fn a_stranger_gets_no_token_and_no_answer() {
    let stage = Stage::new(Vec::new());
    let mut client = stage.client().await;
    let told = [
        fetch(&mut client, &["db"], "").await.unwrap_err().code(),
        validate(&mut client, "db", "a.b.c").await.unwrap_err().code(),
        client.fetch_jwt_bundles(request(JwtBundlesRequest {})).await.unwrap_err().code(),
    ];
    assert_eq!(told, [Code::PermissionDenied; 3]);
}
