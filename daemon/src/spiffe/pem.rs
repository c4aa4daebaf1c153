//! Writes PEM (RFC 7468). Reading it is `rustls_pki_types::pem`; it has no writer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Line width that RFC 7468 §2 prescribes.
const LINE_CHARS: usize = 64;

/// One PEM block. The text is wiped on drop, since the block may hold a private key.
pub fn pem_block(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Sized at once: growing would leave copies of a key behind in freed memory.
    let capacity = body.len() + body.len() / LINE_CHARS + 2 * label.len() + 64;
    let mut text = Zeroizing::new(String::with_capacity(capacity));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for (at, char) in body.chars().enumerate() {
        if at > 0 && at % LINE_CHARS == 0 {
            text.push('\n');
        }
        text.push(char);
    }
    text.push_str("\n-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn is_read_back() {
        for len in [1usize, 47, 48, 49, 500] {
            let der = vec![0xa5; len];
            let pem = pem_block("CERTIFICATE", &der);
            assert!(pem.lines().all(|line| line.len() <= LINE_CHARS));
            assert_eq!(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().as_ref(), der);
        }
    }
}
