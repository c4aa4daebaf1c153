//! Tokens taken apart, and tokens that nobody should take for valid.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Header and claims of a token, unverified.
pub(crate) fn read(token: &str) -> Result<(Value, Value)> {
    let mut parts = token.split('.');
    let mut part = || -> Result<Value> {
        let text = URL_SAFE_NO_PAD.decode(parts.next().context("a part is missing")?)?;
        Ok(serde_json::from_slice(&text)?)
    };
    let both = (part()?, part()?);
    parts.next().context("no signature")?;
    anyhow::ensure!(parts.next().is_none(), "more than three parts");
    Ok(both)
}

/// A token with this header and these claims, and a signature that is worth nothing.
fn unsigned(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

/// Tokens made of a good one that must all be refused, each with what is wrong with it and the
/// section that says so.
pub(crate) fn bad_ones(good: &str) -> Result<Vec<(&'static str, &'static str, String)>> {
    let (header, claims) = read(good)?;
    let signature = good.rsplit('.').next().unwrap_or_default().to_owned();
    let body = good.rsplit_once('.').map(|(body, _)| body).unwrap_or_default().to_owned();
    let with = |json: &Value, name: &str, value: Value| {
        let mut json = json.clone();
        if let Value::Object(fields) = &mut json {
            fields.insert(name.to_owned(), value);
        }
        json
    };
    let mut raw = URL_SAFE_NO_PAD.decode(&signature)?;
    if let Some(last) = raw.last_mut() {
        *last ^= 1;
    }
    let general = json!({
        "payload": body.split('.').nth(1), "protected": body.split('.').next(),
        "signature": signature,
    });
    let foreign = with(&claims, "sub", json!("spiffe://not-a-trust-domain-here/workload"));
    let stranger = with(&claims, "sub", json!("https://example.org/workload"));
    let unknown = with(&header, "kid", json!("not-a-key-of-this-bundle"));
    Ok(vec![
        ("JWT-SVID §1", "a token in JSON serialization", general.to_string()),
        ("JWT-SVID §1", "what is no token", "not.a.token".to_owned()),
        (
            "JWT-SVID §2.1",
            "alg none",
            unsigned(&with(&header, "alg", json!("none")), &claims, b"x"),
        ),
        (
            "JWT-SVID §2.1",
            "alg HS256",
            unsigned(&with(&header, "alg", json!("HS256")), &claims, &[7; 32]),
        ),
        (
            "JWT-SVID §2.1",
            "alg EdDSA",
            unsigned(&with(&header, "alg", json!("EdDSA")), &claims, &[7; 64]),
        ),
        (
            "JWT-SVID §2.3",
            "typ wit+jwt",
            unsigned(&with(&header, "typ", json!("wit+jwt")), &claims, &raw),
        ),
        (
            "JWT-SVID §4",
            "a signature with one bit changed",
            format!("{body}.{}", URL_SAFE_NO_PAD.encode(&raw)),
        ),
        (
            "JWT-SVID §4",
            "other claims under the same signature",
            unsigned(&header, &with(&claims, "more", json!(1)), &raw),
        ),
        ("JWT-SVID §4", "no signature", format!("{body}.")),
        ("JWT-SVID §6.2", "a key that is not in the bundle", unsigned(&unknown, &claims, &raw)),
        (
            "Workload API §6.2.3",
            "a trust domain without a bundle",
            unsigned(&header, &foreign, &raw),
        ),
        ("JWT-SVID §3.1", "a subject that is no SPIFFE ID", unsigned(&header, &stranger, &raw)),
    ])
}
