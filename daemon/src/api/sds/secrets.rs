//! Which secret a name stands for, and the secret. Pure.
//!
//! | name | secret |
//! |---|---|
//! | `default` | certificate and key of the default identity |
//! | a SPIFFE ID of the caller | certificate and key of that identity |
//! | `ROOTCA` | authorities of the caller's trust domain |
//! | `ALL` | those, and those of all that it is federated with |
//! | `spiffe://` and a trust domain | authorities of that one |
//!
//! Names, and the validator by default, are SPIRE's. Source: SPIRE's `pkg/agent/endpoints/sdsv3`.

use prost_types::Any;
use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::config::core::v3::node::UserAgentVersionType;
use proto::envoy::config::core::v3::{DataSource, Node, TypedExtensionConfig};
use proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use proto::envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config::TrustDomain as Trusted;
use proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate,
};

use crate::api::reply;
use crate::identity::{Entitlement, HeldSvid};
use crate::spiffe::{TrustBundle, TrustDomain, parse_id, pem_block};

/// The type of what is served.
pub(super) const SECRET_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const VALIDATOR_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
const DEFAULT: &str = "default";
const ROOT: &str = "ROOTCA";
const ALL: &str = "ALL";
/// The first Envoy with the validator for SPIFFE.
const FIRST_WITH_VALIDATOR: (u32, u32) = (1, 18);

/// How Envoy is to verify peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validation {
    /// By the bundle of the peer's own trust domain, as the standard wants it.
    Spiffe,
    /// By the bundle of one trust domain, whatever the peer's ID. For an Envoy that is too old, or
    /// is told so by its operator.
    Plain,
}

/// A secret under its name, with what tells whether it has changed.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) name: String,
    /// Stays the same as long as the secret does, also over a restart of the daemon.
    pub(super) version: String,
    pub(super) secret: Secret,
    /// Id of the entry whose key is in it.
    pub(super) entry: Option<String>,
}

/// Why there is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSecret {
    /// No such name, or not for this caller.
    Unknown,
    /// More than one trust domain, without the validator that keeps them apart.
    NotPlain,
}

impl Validation {
    /// As this Envoy can, and as its operator wants.
    pub(super) fn of(node: Option<&Node>) -> Self {
        use prost_types::value::Kind;
        let Some(node) = node else {
            return Self::Spiffe;
        };
        let fields = node.metadata.as_ref().map(|metadata| &metadata.fields);
        let told = fields.and_then(|fields| fields.get("disable_spiffe_cert_validation"));
        let disabled = told.and_then(|value| match &value.kind {
            Some(Kind::BoolValue(disabled)) => Some(*disabled),
            Some(Kind::StringValue(text)) => text.parse().ok(),
            _ => None,
        });
        let version = match &node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build.version,
            _ => None,
        };
        let is_old =
            version.is_some_and(|it| (it.major_number, it.minor_number) < FIRST_WITH_VALIDATOR);
        if disabled.unwrap_or(is_old) { Self::Plain } else { Self::Spiffe }
    }
}

/// The names of everything that a caller may have.
pub(super) fn everything(entitlement: &Entitlement) -> Vec<String> {
    let ids = reply::distinct(entitlement).map(|held| held.svid.id.to_string());
    let bundles = reply::own(entitlement).chain(federated(entitlement)).map(reply::key);
    ids.chain(bundles).collect()
}

/// The secret of this name.
///
/// # Errors
/// See [`NoSecret`].
pub(super) fn secret(
    entitlement: &Entitlement,
    name: &str,
    validation: Validation,
) -> Result<Named, NoSecret> {
    let own = || reply::own(entitlement);
    match name {
        DEFAULT => entitlement
            .identities
            .first()
            .map(|held| certificate(name, held))
            .ok_or(NoSecret::Unknown),
        ROOT => context(name, &own().take(1).collect::<Vec<_>>(), validation),
        ALL => {
            let mut all: Vec<_> = own().chain(federated(entitlement)).collect();
            all.sort_by_key(|bundle| bundle.trust_domain().as_str());
            context(name, &all, validation)
        }
        _ => named(entitlement, name, validation),
    }
}

/// A name that is an ID: of the caller, or of a trust domain.
fn named(entitlement: &Entitlement, name: &str, validation: Validation) -> Result<Named, NoSecret> {
    let id = parse_id(name).map_err(|_no_id| NoSecret::Unknown)?;
    if !id.path().is_empty() {
        let mut identities = entitlement.identities.iter();
        let held = identities.find(|held| held.svid.id == id);
        return held.map(|held| certificate(name, held)).ok_or(NoSecret::Unknown);
    }
    let mut bundles = reply::own(entitlement).chain(federated(entitlement));
    match bundles.find(|bundle| bundle.trust_domain() == id.trust_domain()) {
        Some(bundle) => context(name, &[bundle], validation),
        None => Err(NoSecret::Unknown),
    }
}

/// Those of other trust domains that vouch for anybody. Envoy refuses a bundle without authorities and
/// goes on with the last one: one that was emptied is for it one that was removed.
fn federated(entitlement: &Entitlement) -> impl Iterator<Item = &TrustBundle> {
    reply::federated(entitlement).filter(|bundle| !bundle.authorities().is_empty())
}

/// The trust domain that a name stands for.
pub(super) fn trust_domain(name: &str) -> Option<TrustDomain> {
    let id = parse_id(name).ok()?;
    id.path().is_empty().then(|| id.trust_domain().clone())
}

fn certificate(name: &str, held: &HeldSvid) -> Named {
    let chain: String =
        held.svid.chain.iter().map(|der| pem_block("CERTIFICATE", der).to_string()).collect();
    let key = pem_block("PRIVATE KEY", &held.svid.key);
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(chain)),
        private_key: Some(inline(key.as_str())),
    };
    Named {
        name: name.to_owned(),
        version: held.svid.serial.clone(),
        secret: Secret { name: name.to_owned(), r#type: Some(Type::TlsCertificate(certificate)) },
        entry: Some(held.entry.id.clone()),
    }
}

/// Whom to trust, by these bundles.
///
/// # Errors
/// See [`NoSecret`].
pub(super) fn context(
    name: &str,
    bundles: &[&TrustBundle],
    validation: Validation,
) -> Result<Named, NoSecret> {
    let context = match (validation, bundles) {
        (_, []) => return Err(NoSecret::Unknown),
        (Validation::Spiffe, _) => spiffe_context(bundles),
        (Validation::Plain, [only]) => CertificateValidationContext {
            trusted_ca: Some(inline(only.to_pem())),
            custom_validator_config: None,
        },
        (Validation::Plain, _) => return Err(NoSecret::NotPlain),
    };
    let keys = |bundle: &&TrustBundle| {
        let ids = bundle
            .authorities()
            .iter()
            .map(|authority| format!("{}.{}", authority.key_id, mark_of(&authority.certificate)));
        format!("{}={}", bundle.trust_domain(), ids.collect::<Vec<_>>().join("+"))
    };
    Ok(Named {
        name: name.to_owned(),
        version: bundles.iter().map(keys).collect::<Vec<_>>().join(","),
        secret: Secret { name: name.to_owned(), r#type: Some(Type::ValidationContext(context)) },
        entry: None,
    })
}

/// Tells a certificate from another one of the same key: the end of it is the end of its signature.
fn mark_of(certificate: &[u8]) -> String {
    let end = certificate.last_chunk().copied().unwrap_or_default();
    format!("{:016x}", u64::from_be_bytes(end))
}

fn spiffe_context(bundles: &[&TrustBundle]) -> CertificateValidationContext {
    let trusted = |bundle: &&TrustBundle| Trusted {
        name: bundle.trust_domain().to_string(),
        trust_bundle: Some(inline(bundle.to_pem())),
    };
    let config = SpiffeCertValidatorConfig { trust_domains: bundles.iter().map(trusted).collect() };
    let typed =
        Any { type_url: VALIDATOR_URL.to_owned(), value: prost::Message::encode_to_vec(&config) };
    CertificateValidationContext {
        trusted_ca: None,
        custom_validator_config: Some(TypedExtensionConfig {
            name: VALIDATOR.to_owned(),
            typed_config: Some(typed),
        }),
    }
}

fn inline(text: impl AsRef<str>) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(text.as_ref().as_bytes().to_vec())) }
}

/// A secret as resources are sent.
pub(super) fn any(secret: &Secret) -> Any {
    Any { type_url: SECRET_URL.to_owned(), value: prost::Message::encode_to_vec(secret) }
}
