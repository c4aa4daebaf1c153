//! The messages of the Workload API, made of what a caller is entitled to. Pure.

use std::collections::{BTreeSet, HashSet};

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use proto::{
    JwtBundlesResponse, Jwtsvid, ValidateJwtsvidResponse, X509BundlesResponse, X509svid,
    X509svidResponse,
};

use crate::identity::{Entitlement, HeldSvid};
use crate::spiffe::{JwtIdentity, JwtSvid, KeyUse, TrustBundle, TrustDomain, jwks};

/// X.509-SVIDs with their keys, the default one first. Source: SPIFFE Workload API §5.2.
pub(super) fn x509_svids(entitlement: &Entitlement) -> X509svidResponse {
    let svid = |held: &HeldSvid| X509svid {
        spiffe_id: held.svid.id.to_string(),
        x509_svid: held.svid.chain.iter().flat_map(|der| der.iter().copied()).collect(),
        x509_svid_key: held.svid.key.to_vec(),
        bundle: own_bundle(entitlement, held),
        hint: held.entry.hint.clone(),
    };
    X509svidResponse {
        svids: distinct(entitlement).map(svid).collect(),
        crl: Vec::new(),
        federated_bundles: federated(entitlement).map(|it| (key(it), der(it))).collect(),
    }
}

/// Authorities of the caller's trust domain and of those that it is federated with.
pub(super) fn x509_bundles(entitlement: &Entitlement) -> X509BundlesResponse {
    let bundles = own(entitlement).chain(federated(entitlement));
    X509BundlesResponse { crl: Vec::new(), bundles: bundles.map(|it| (key(it), der(it))).collect() }
}

/// JWT authorities of the caller's trust domain and of those that it is federated with, as JWKS
/// that hold no other keys. Source: SPIFFE Workload API §6.2.2.
pub(super) fn jwt_bundles(entitlement: &Entitlement) -> JwtBundlesResponse {
    let jwks = |bundle: &TrustBundle| {
        (key(bundle), jwks(bundle.jwt_authorities(), KeyUse::Unsaid).into_bytes())
    };
    JwtBundlesResponse {
        bundles: own(entitlement).chain(federated(entitlement)).map(jwks).collect(),
    }
}

/// A token with what it was asked for.
pub(super) fn jwt_svid(held: &HeldSvid, token: &JwtSvid) -> Jwtsvid {
    Jwtsvid {
        spiffe_id: token.claims.id.to_string(),
        svid: token.token.to_string(),
        hint: held.entry.hint.clone(),
    }
}

/// What a valid token says. Claims of another trust domain are its own affair, and are left out
/// but for those of the standard, as SPIRE does. Source: SPIFFE-ID §4.1.
pub(super) fn validated(entitlement: &Entitlement, token: &JwtIdentity) -> ValidateJwtsvidResponse {
    let domain = token.id().trust_domain();
    let is_own = entitlement.identities.iter().any(|held| held.svid.id.trust_domain() == domain);
    let is_told = |name: &str| is_own || ["sub", "aud", "exp"].contains(&name);
    let claims = token.claims().iter().filter(|(name, _)| is_told(name));
    ValidateJwtsvidResponse {
        spiffe_id: token.id().to_string(),
        claims: Some(Struct {
            fields: claims.map(|(name, value)| (name.clone(), protobuf(value))).collect(),
        }),
    }
}

fn protobuf(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(values) => {
            Kind::ListValue(ListValue { values: values.iter().map(protobuf).collect() })
        }
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.iter().map(|(name, value)| (name.clone(), protobuf(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

/// The identities, each hint only once: of several with the same the first, which is the one that
/// would be the default among them. Source: SPIFFE Workload API §5.2.1.
pub(super) fn distinct(entitlement: &Entitlement) -> impl Iterator<Item = &HeldSvid> {
    let mut hints = HashSet::new();
    entitlement
        .identities
        .iter()
        .filter(move |held| held.entry.hint.is_empty() || hints.insert(held.entry.hint.as_str()))
}

/// The bundles of the caller's own trust domains.
pub(super) fn own(entitlement: &Entitlement) -> impl Iterator<Item = &TrustBundle> {
    let domains: BTreeSet<_> =
        entitlement.identities.iter().map(|held| held.svid.id.trust_domain()).collect();
    domains.into_iter().filter_map(|domain| entitlement.bundles.get(domain)).map(AsRef::as_ref)
}

/// The bundles of trust domains that an entry of the caller is federated with, as far as they are
/// known. Its own are not among them.
pub(super) fn federated(entitlement: &Entitlement) -> impl Iterator<Item = &TrustBundle> {
    let is_own = |domain: &TrustDomain| {
        entitlement.identities.iter().any(|held| held.svid.id.trust_domain() == domain)
    };
    let domains: BTreeSet<_> =
        entitlement.identities.iter().flat_map(|held| &held.entry.federates_with).collect();
    domains
        .into_iter()
        .filter(move |domain| !is_own(domain))
        .filter_map(|domain| entitlement.bundles.get(domain))
        .map(AsRef::as_ref)
}

/// Maps are keyed by the ID of the trust domain, not by its bare name.
/// Source: SPIFFE Workload API §5.2.1, `federated_bundles`.
pub(super) fn key(bundle: &TrustBundle) -> String {
    bundle.trust_domain().id_string()
}

fn own_bundle(entitlement: &Entitlement, held: &HeldSvid) -> Vec<u8> {
    entitlement.bundles.for_id(&held.svid.id).map_or_else(Vec::new, |bundle| der(bundle))
}

/// DER certificates one after the other, without anything between.
fn der(bundle: &TrustBundle) -> Vec<u8> {
    bundle.certificates().flat_map(|der| der.iter().copied()).collect::<Vec<u8>>()
}

/// A copy without keys, kept to tell whether the next message would say anything new.
pub(super) fn without_keys(message: &X509svidResponse) -> X509svidResponse {
    let svids = message.svids.iter().map(|svid| X509svid {
        spiffe_id: svid.spiffe_id.clone(),
        x509_svid: svid.x509_svid.clone(),
        x509_svid_key: Vec::new(),
        bundle: svid.bundle.clone(),
        hint: svid.hint.clone(),
    });
    X509svidResponse {
        svids: svids.collect(),
        crl: message.crl.clone(),
        federated_bundles: message.federated_bundles.clone(),
    }
}
