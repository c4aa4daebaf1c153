//! Tokens that are right, by every algorithm, and tokens that are wrong in one way each.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::spiffe::{BundleSet, TrustBundle, parse_id, parse_trust_domain};

const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

enum Signer {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
}

fn ec(
    name: &str,
    curve: Curve,
    algorithm: &'static EcdsaSigningAlgorithm,
) -> (Signer, JwtAuthority) {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    let key = JwtKey::Ec { curve, x: x.to_vec(), y: y.to_vec() };
    (Signer::Ec(pair), JwtAuthority { key_id: name.to_owned(), key })
}

fn rsa(name: &str, encoding: &'static dyn RsaEncoding) -> (Signer, JwtAuthority) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public: PublicKeyComponents<Vec<u8>> = PublicKeyComponents::from(pair.public_key());
    let key = JwtKey::Rsa { n: public.n, e: public.e };
    (Signer::Rsa(pair, encoding), JwtAuthority { key_id: name.to_owned(), key })
}

fn p256() -> (Signer, JwtAuthority) {
    ec("ES256", Curve::P256, &ECDSA_P256_SHA256_FIXED_SIGNING)
}

fn token(signer: &Signer, header: &Value, claims: &Value) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let signature = match signer {
        Signer::Ec(pair) => {
            pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref().to_vec()
        }
        Signer::Rsa(pair, encoding) => {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(*encoding, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
            signature
        }
    };
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn bundles(authorities: Vec<JwtAuthority>) -> BundleSet {
    let bundle = TrustBundle::new(parse_trust_domain("td").unwrap(), Vec::new()).unwrap();
    [bundle.with_jwt_authorities(authorities)].into_iter().collect()
}

fn claims() -> Value {
    json!({ "sub": "spiffe://td/web", "aud": ["db", "queue"], "exp": NOW + 60 })
}

fn with(mut json: Value, name: &str, value: Value) -> Value {
    json[name] = value;
    json
}

fn without(mut json: Value, name: &str) -> Value {
    json.as_object_mut().unwrap().remove(name);
    json
}

#[test]
fn every_algorithm_of_the_standard_is_verified_and_only_with_its_own_key() {
    let all = [
        p256(),
        ec("ES384", Curve::P384, &ECDSA_P384_SHA384_FIXED_SIGNING),
        ec("ES512", Curve::P521, &ECDSA_P521_SHA512_FIXED_SIGNING),
        rsa("RS256", &RSA_PKCS1_SHA256),
        rsa("RS384", &RSA_PKCS1_SHA384),
        rsa("RS512", &RSA_PKCS1_SHA512),
        rsa("PS256", &RSA_PSS_SHA256),
        rsa("PS384", &RSA_PSS_SHA384),
        rsa("PS512", &RSA_PSS_SHA512),
    ];
    let set = bundles(all.iter().map(|(_, authority)| authority.clone()).collect());
    let names: Vec<_> = all.iter().map(|(_, authority)| authority.key_id.clone()).collect();
    for (signer, authority) in &all {
        for name in &names {
            let header = json!({ "alg": name, "kid": authority.key_id, "typ": "JWT" });
            let verified = verify_jwt(&token(signer, &header, &claims()), "db", &set, now());
            if *name == authority.key_id {
                assert_eq!(verified.unwrap().id().to_string(), "spiffe://td/web");
            } else {
                assert_eq!(verified.unwrap_err(), JwtError::Signature, "{name} by {authority:?}");
            }
        }
    }
}

#[test]
fn headers_and_claims_are_as_the_standard_has_them() {
    let (signer, authority) = p256();
    let set = bundles(vec![authority]);
    let header = json!({ "alg": "ES256", "kid": "ES256", "typ": "JWT" });
    let check = |header: &Value, claims: &Value| {
        verify_jwt(&token(&signer, header, claims), "db", &set, now())
    };
    let good = [
        (header.clone(), claims()),
        (without(header.clone(), "typ"), claims()),
        (without(header.clone(), "kid"), claims()),
        (with(header.clone(), "typ", json!("JOSE")), claims()),
        (header.clone(), with(claims(), "aud", json!("db"))),
        (header.clone(), with(claims(), "exp", json!(1_800_000_000.5))),
        (header.clone(), with(claims(), "nbf", json!(NOW + 30))),
        (header.clone(), with(claims(), "more", json!({ "a": [1, null, true] }))),
    ];
    for (header, claims) in &good {
        let verified =
            check(header, claims).unwrap_or_else(|error| panic!("{header} {claims}: {error}"));
        assert!(verified.claims()["aud"].is_array());
    }
    for (name, value, error) in [
        ("alg", json!("none"), JwtError::Algorithm),
        ("alg", json!("HS256"), JwtError::Algorithm),
        ("alg", json!("EdDSA"), JwtError::Algorithm),
        ("alg", json!("es256"), JwtError::Algorithm),
        ("alg", json!(1), JwtError::Header),
        ("typ", json!("wit+jwt"), JwtError::Type),
        ("kid", json!("another"), JwtError::UnknownKey(parse_trust_domain("td").unwrap())),
        ("jku", json!("https://x"), JwtError::Header),
        ("crit", json!(["exp"]), JwtError::Header),
    ] {
        let found = check(&with(header.clone(), name, value.clone()), &claims());
        assert_eq!(found, Err(error), "{name}: {value}");
    }
    for (name, value, error) in [
        ("sub", json!(7), JwtError::Claims),
        ("aud", json!([]), JwtError::NoAudience),
        ("aud", json!([7]), JwtError::Claims),
        ("aud", json!(["DB", "db "]), JwtError::Audience),
        ("exp", json!(NOW), JwtError::Expired),
        ("exp", json!("soon"), JwtError::Claims),
        ("exp", json!(-1), JwtError::Claims),
        ("exp", json!(1e300), JwtError::Claims),
        ("nbf", json!(NOW + 120), JwtError::NotYetValid),
    ] {
        let found = check(&header, &with(claims(), name, value.clone()));
        assert_eq!(found, Err(error), "{name}: {value}");
    }
    for sub in ["td/web", "https://td/web", "spiffe://TD/web", "spiffe://td/web/", ""] {
        let found = check(&header, &with(claims(), "sub", json!(sub)));
        assert!(matches!(found, Err(JwtError::Subject(_))), "{sub}: {found:?}");
    }
    for (name, error) in [
        ("sub", JwtError::NoSubject),
        ("aud", JwtError::NoAudience),
        ("exp", JwtError::NoExpiration),
    ] {
        assert_eq!(check(&header, &without(claims(), name)), Err(error), "{name}");
    }
}

#[test]
fn only_the_bundle_of_the_own_trust_domain_vouches() {
    let (signer, authority) = p256();
    let header = json!({ "alg": "ES256", "kid": "ES256" });
    let foreign = token(&signer, &header, &with(claims(), "sub", json!("spiffe://other/web")));
    let domain = parse_trust_domain("other").unwrap();
    let set = bundles(vec![authority]);
    assert_eq!(
        verify_jwt(&foreign, "db", &set, now()),
        Err(JwtError::UntrustedDomain(domain.clone()))
    );
    let empty = set.with([TrustBundle::new(domain.clone(), Vec::new()).unwrap()]);
    assert_eq!(verify_jwt(&foreign, "db", &empty, now()), Err(JwtError::UnknownKey(domain)));
}

#[test]
fn what_is_no_compact_token_is_refused() {
    let (signer, authority) = p256();
    let set = bundles(vec![authority]);
    let good = token(&signer, &json!({ "alg": "ES256" }), &claims());
    let parts: Vec<_> = good.split('.').collect();
    let json = json!({ "payload": parts[1], "protected": parts[0], "signature": parts[2] });
    let unsigned = format!("{}.{}.", parts[0], parts[1]);
    let longer = format!("{good}.x");
    let padded = format!("{}=.{}.{}", parts[0], parts[1], parts[2]);
    let large = "a".repeat(100_000);
    for bad in ["", ".", "..", "a.b.c", &json.to_string(), &unsigned, &longer, &padded, &large] {
        let found = verify_jwt(bad, "db", &set, now());
        assert!(matches!(found, Err(JwtError::NotCompact | JwtError::Header)), "{bad}: {found:?}");
    }
    let twice = format!(
        "{}.{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","alg":"none"}"#),
        parts[1],
        parts[2]
    );
    assert_eq!(verify_jwt(&twice, "db", &set, now()), Err(JwtError::Header));
    let other = token(&p256().0, &json!({ "alg": "ES256" }), &claims());
    assert_eq!(verify_jwt(&other, "db", &set, now()), Err(JwtError::Signature));
}

#[test]
fn what_is_made_is_verified_and_does_not_print() {
    let (signer, authority) = p256();
    let claims = JwtClaims {
        issuer: Some("https://oidc.td.test".into()),
        id: parse_id("spiffe://td/web").unwrap(),
        audience: vec!["db".to_owned()],
        issued_at: now(),
        expires_at: now() + Duration::from_mins(5),
    };
    let input = SigningInput::es256(claims, "ES256");
    let Signer::Ec(pair) = signer else { panic!("it is one on a curve") };
    let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
    let svid = input.signed(signature.as_ref());
    let set = bundles(vec![authority]);
    let verified = verify_jwt(&svid.token, "db", &set, now()).unwrap();
    assert_eq!(verified.claims()["iss"], json!("https://oidc.td.test"));
    assert_eq!(verified.claims()["iat"], json!(NOW));
    assert_eq!(verified.claims()["exp"], json!(NOW + 300));
    assert!(!format!("{svid:?}").contains(svid.token.as_str()));
    assert!(!svid.is_past_half_life(now() + Duration::from_secs(150)));
    assert!(svid.is_past_half_life(now() + Duration::from_secs(151)));
    assert!(!svid.is_valid_at(now() + Duration::from_mins(5)));
}

#[test]
fn a_key_set_says_its_use_only_where_that_is_wanted() {
    let authorities = [p256().1, rsa("RS256", &RSA_PKCS1_SHA256).1];
    let read = |key_use| serde_json::from_str::<Value>(&jwks(&authorities, key_use)).unwrap();
    let plain = read(KeyUse::Unsaid);
    let keys = plain["keys"].as_array().unwrap();
    assert_eq!((&keys[0]["kty"], &keys[0]["crv"]), (&json!("EC"), &json!("P-256")));
    assert_eq!((&keys[1]["kty"], &keys[1]["e"]), (&json!("RSA"), &json!("AQAB")));
    assert_eq!(keys[0]["kid"], json!("ES256"));
    assert!(keys.iter().all(|key| key.get("use").is_none()));
    let signature = read(KeyUse::Signature);
    let keys = signature["keys"].as_array().unwrap();
    assert!(keys.iter().all(|key| key["use"] == json!("sig")));
    assert_eq!((&keys[0]["alg"], keys[1].get("alg")), (&json!("ES256"), None));
    let spiffe = read(KeyUse::Svid);
    assert!(spiffe["keys"].as_array().unwrap().iter().all(|key| key["use"] == json!("jwt-svid")));
    assert_eq!(jwks(&[], KeyUse::Unsaid), r#"{"keys":[]}"#);
}
