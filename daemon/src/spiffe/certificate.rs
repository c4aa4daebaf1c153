//! Small facts about a parsed certificate, said once: key ids, serial numbers, times.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::X509Certificate;
use x509_parser::time::ASN1Time;

/// Bytes of SHA-256 that make a key id. Source: RFC 7093 §2, method 1.
const KEY_ID_BYTES: usize = 20;

/// Lower-case hex without separators.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Serial number as audit records write it: lower-case hex of its bytes.
pub(super) fn serial(certificate: &X509Certificate<'_>) -> String {
    hex(certificate.raw_serial())
}

/// Subject key id in hex; for an authority that has none, one made of its public key.
pub(super) fn key_id(certificate: &X509Certificate<'_>) -> String {
    let written =
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(hex(id.0)),
            _ => None,
        });
    written.unwrap_or_else(|| {
        let digest = digest(&SHA256, &certificate.public_key().subject_public_key.data);
        hex(digest.as_ref().get(..KEY_ID_BYTES).unwrap_or_default())
    })
}

/// Key id in hex of the authority that the certificate says signed it.
pub(super) fn issuer_key_id(certificate: &X509Certificate<'_>) -> Option<String> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => {
            id.key_identifier.as_ref().map(|id| hex(id.0))
        }
        _ => None,
    })
}

/// A time of a certificate; what lies before 1970 becomes 1970.
pub(super) fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
