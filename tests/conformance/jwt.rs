//! JWT-SVIDs and bundles, as they are served and as they are judged.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use proto::{
    JwtBundlesRequest, Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse,
};
use serde_json::Value;
use tacit::spiffe::parse_id;
use tonic::{Code, Status};

use crate::probe::{Client, PATIENCE, client, next, refused, request, x509_svids};
use crate::table::Table;
use crate::token;

const AUDIENCE: &str = "conformance";
/// Source: JWT-SVID §2.1.
const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];

pub(crate) async fn cases(socket: &Path, table: &mut Table) -> Result<()> {
    let mut api = client(socket).await?;
    let told = fetch(&mut api, &[AUDIENCE, "another"], "").await;
    let told = told.context("FetchJWTSVID gave nothing to judge")?;
    let ids: Vec<_> = told.svids.iter().map(|svid| svid.spiffe_id.clone()).collect();
    let x509: Vec<_> =
        x509_svids(&mut api).await?.svids.into_iter().map(|svid| svid.spiffe_id).collect();
    let section = "Workload API §6.2.1";
    table.holds(section, "without spiffe_id, a token for each identity", ids == x509);
    let keys = bundles(&mut api, &ids, table).await?;
    for svid in &told.svids {
        of_one_token(svid, &keys, table);
    }
    requests(&mut api, &ids, table).await?;
    validation(&mut api, &told.svids, table).await
}

async fn fetch(
    api: &mut Client,
    audience: &[&str],
    spiffe_id: &str,
) -> Result<JwtsvidResponse, Status> {
    let audience = audience.iter().map(|&name| name.to_owned()).collect();
    let asked = JwtsvidRequest { audience, spiffe_id: spiffe_id.to_owned() };
    api.fetch_jwtsvid(request(asked)).await.map(tonic::Response::into_inner)
}

async fn validate(
    api: &mut Client,
    audience: &str,
    svid: &str,
) -> Result<ValidateJwtsvidResponse, Status> {
    let asked = ValidateJwtsvidRequest { audience: audience.to_owned(), svid: svid.to_owned() };
    api.validate_jwtsvid(request(asked)).await.map(tonic::Response::into_inner)
}

/// The demands on JWT bundles; gives all their keys.
async fn bundles(api: &mut Client, ids: &[String], table: &mut Table) -> Result<Vec<Value>> {
    let section = "Workload API §6.2.2";
    let asked = api.fetch_jwt_bundles(request(JwtBundlesRequest {})).await?;
    let told = next(&mut asked.into_inner(), PATIENCE).await?.bundles;
    let domain = |id: &String| parse_id(id).map(|id| id.trust_domain().id_string()).ok();
    let own: Vec<_> = ids.iter().filter_map(domain).collect();
    let present = own.iter().all(|domain| told.contains_key(domain));
    table.holds(section, "FetchJWTBundles holds the caller's trust domain", present);
    let sets: Vec<Value> =
        told.values().filter_map(|jwks| serde_json::from_slice(jwks).ok()).collect();
    let arrays: Vec<_> =
        sets.iter().filter_map(|set| set.get("keys").and_then(Value::as_array)).collect();
    table.holds(section, "each bundle is a JWK Set", arrays.len() == told.len());
    let keys: Vec<Value> = arrays.into_iter().flatten().cloned().collect();
    let none_of =
        |names: &[&str]| keys.iter().all(|key| names.iter().all(|name| key.get(name).is_none()));
    table.holds(section, "bundles hold no keys of other uses", none_of(&["x5c"]));
    table.holds(
        "JWT-SVID §6.1",
        "each key has a kid",
        keys.iter().all(|key| field(key, "kid").is_string()),
    );
    table.holds("RFC 7517 §4", "bundles hold no private part", none_of(&["d", "p", "q", "k"]));
    let plain = keys.iter().all(|key| key.get("use").is_none_or(|it| it == "sig"));
    table.holds(section, "keys bear no use that stock libraries refuse", plain);
    Ok(keys)
}

fn of_one_token(svid: &Jwtsvid, keys: &[Value], table: &mut Table) {
    let who = &svid.spiffe_id;
    let (header, claims) = match token::read(&svid.svid) {
        Ok(parts) => parts,
        Err(error) => {
            table.note("JWT-SVID §1", &format!("JWS compact ({who})"), Err(error.to_string()));
            return;
        }
    };
    let mut holds = |section: &str, demand: &str, holds: bool| {
        table.holds(section, &format!("{demand} ({who})"), holds);
    };
    holds("JWT-SVID §1", "JWS in compact serialization", true);
    let named = field(&header, "alg").as_str().is_some_and(|alg| ALGORITHMS.contains(&alg));
    holds("JWT-SVID §2.1", "alg is one of the nine", named);
    let typ = header.get("typ").is_none_or(|typ| typ == "JWT" || typ == "JOSE");
    holds("JWT-SVID §2.3", "typ, if any, is JWT or JOSE", typ);
    let fields = header.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>());
    let known = |name: &String| ["alg", "kid", "typ"].contains(&name.as_str());
    holds("JWT-SVID §2", "no other headers", fields.is_some_and(|names| names.iter().all(known)));
    let known = keys.iter().any(|key| field(key, "kid") == field(&header, "kid"));
    holds("JWT-SVID §6.2", "its kid is in the bundle", known);
    holds("JWT-SVID §3.1", "sub is the SPIFFE ID", field(&claims, "sub") == who);
    let audience: Vec<_> = match field(&claims, "aud") {
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        value => value.as_str().into_iter().collect(),
    };
    let all = audience.contains(&AUDIENCE) && audience.contains(&"another");
    holds("JWT-SVID §3.2", "aud holds what was asked for", all && audience.len() == 2);
    let now = tacit::sys::clock::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let ends = field(&claims, "exp").as_u64().is_some_and(|end| end > now.as_secs());
    holds("JWT-SVID §3.3", "exp is set and lies ahead", ends);
}

/// A field of an object; null if there is none.
fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    object.get(name).unwrap_or(&Value::Null)
}

async fn requests(api: &mut Client, ids: &[String], table: &mut Table) -> Result<()> {
    let section = "Workload API §6.2.1";
    let demand = "without an audience: InvalidArgument";
    table.note(section, demand, refused(&fetch(api, &[], "").await, Code::InvalidArgument));
    let demand = "with a spiffe_id that is none: InvalidArgument";
    let answer = fetch(api, &[AUDIENCE], "not an id").await;
    table.note(section, demand, refused(&answer, Code::InvalidArgument));
    let id = ids.first().context("no identity")?;
    let answer = fetch(api, &[AUDIENCE], id).await?;
    let only = answer.svids.len() == 1 && answer.svids.iter().all(|svid| svid.spiffe_id == *id);
    table.holds(section, "with spiffe_id, a token for it alone", only);
    let other = format!("{}/not/of/this/caller", parse_id(id)?.trust_domain().id_string());
    let answer = fetch(api, &[AUDIENCE], &other).await;
    let demand = "with another's spiffe_id: PermissionDenied";
    table.note(section, demand, refused(&answer, Code::PermissionDenied));
    Ok(())
}

async fn validation(api: &mut Client, svids: &[Jwtsvid], table: &mut Table) -> Result<()> {
    let section = "Workload API §6.2.3";
    let svid = svids.first().context("no token")?;
    let answer = validate(api, AUDIENCE, &svid.svid).await;
    let outcome = answer.map_err(anyhow::Error::from).and_then(|valid| {
        ensure!(valid.spiffe_id == svid.spiffe_id, "it is of {}", valid.spiffe_id);
        let claims = valid.claims.context("no claims")?;
        for name in ["sub", "aud", "exp"] {
            ensure!(claims.fields.contains_key(name), "no claim {name}");
        }
        Ok(())
    });
    let outcome = outcome.map_err(|error| format!("{error:#}"));
    table.note(section, "a valid token: its ID, and sub, aud and exp", outcome);
    let answer = validate(api, "for somebody else", &svid.svid).await;
    let demand = "a token for another audience: InvalidArgument";
    table.note("JWT-SVID §3.2", demand, refused(&answer, Code::InvalidArgument));
    let answer = validate(api, "", &svid.svid).await;
    table.note(
        section,
        "without an audience: InvalidArgument",
        refused(&answer, Code::InvalidArgument),
    );
    let answer = validate(api, AUDIENCE, "").await;
    table.note(
        section,
        "without a token: InvalidArgument",
        refused(&answer, Code::InvalidArgument),
    );
    for (section, what, bad) in token::bad_ones(&svid.svid)? {
        let answer = validate(api, AUDIENCE, &bad).await;
        table.note(
            section,
            &format!("{what}: InvalidArgument"),
            refused(&answer, Code::InvalidArgument),
        );
    }
    Ok(())
}
