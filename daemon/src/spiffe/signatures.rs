//! Signatures of certificates, verified once: the same key, bytes and signature always give the
//! same answer, so that a chain that is shown with every connection costs its mathematics once.
//!
//! Only this answer is remembered, and only a good one. Everything else about a path (names, dates,
//! key usage, constraints, the authority at its end) is checked afresh every time, and so is the
//! signature by which a peer proves that it holds its key, which is another one in each handshake.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

/// How many good signatures are remembered, 32 bytes each. Chosen: far more peers than a node has;
/// beyond it all are forgotten, which costs one verification each.
const REMEMBERED: usize = 16_384;

static ALGORITHMS: LazyLock<Vec<Remembering>> =
    LazyLock::new(|| webpki::ALL_VERIFICATION_ALGS.iter().copied().map(Remembering).collect());
static GOOD: LazyLock<Mutex<HashSet<[u8; 32]>>> = LazyLock::new(Mutex::default);

/// Every algorithm that webpki knows, remembering what it has verified.
pub(super) fn algorithms() -> Vec<&'static dyn SignatureVerificationAlgorithm> {
    ALGORITHMS.iter().map(Remembering::as_dyn).collect()
}

/// One algorithm that remembers.
#[derive(Debug)]
struct Remembering(&'static dyn SignatureVerificationAlgorithm);

impl Remembering {
    fn as_dyn(&self) -> &dyn SignatureVerificationAlgorithm {
        self
    }

    /// Names the question: no two questions with different answers share a name, because each
    /// part is hashed behind its length.
    fn name(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Option<[u8; 32]> {
        let (key_kind, kind) = (self.0.public_key_alg_id(), self.0.signature_alg_id());
        let mut context = Context::new(&SHA256);
        for part in [key_kind.as_ref(), kind.as_ref(), public_key, message, signature] {
            context.update(&u64::try_from(part.len()).ok()?.to_be_bytes());
            context.update(part);
        }
        context.finish().as_ref().try_into().ok()
    }
}

impl SignatureVerificationAlgorithm for Remembering {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let name = self.name(public_key, message, signature);
        if name.is_some_and(|name| good(|known| known.contains(&name))) {
            return Ok(());
        }
        self.0.verify_signature(public_key, message, signature)?;
        if let Some(name) = name {
            good(|known| {
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(name)
            });
        }
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.0.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }
}

/// A panic while it is held leaves a set of good signatures all the same.
fn good<T>(look: impl FnOnce(&mut HashSet<[u8; 32]>) -> T) -> T {
    look(&mut GOOD.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls_pki_types::alg_id;

    use super::*;

    /// Finds a signature good that equals its message, and counts how often it was asked.
    #[derive(Debug, Default)]
    struct Equal(AtomicUsize);

    impl SignatureVerificationAlgorithm for Equal {
        fn verify_signature(
            &self,
            _public_key: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if message == signature { Ok(()) } else { Err(InvalidSignature) }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA256
        }
    }

    #[test]
    fn a_good_one_is_verified_once_and_a_bad_one_each_time() {
        static EQUAL: LazyLock<Equal> = LazyLock::new(Equal::default);
        let algorithm = Remembering(&*EQUAL);
        let asked = || EQUAL.0.load(Ordering::Relaxed);
        for _ in 0..3 {
            assert!(algorithm.verify_signature(b"key", b"words", b"words").is_ok());
            assert_eq!(asked(), 1);
        }
        for time in 2..5 {
            assert!(algorithm.verify_signature(b"key", b"words", b"forged").is_err());
            assert_eq!(asked(), time);
        }
    }

    #[test]
    fn whatever_differs_is_another_question() {
        let algorithm = Remembering(
            webpki::ALL_VERIFICATION_ALGS
                .iter()
                .copied()
                .find(|it| it.signature_alg_id() == alg_id::ECDSA_SHA256)
                .unwrap(),
        );
        let name = |key: &[u8], message: &[u8], signature: &[u8]| {
            algorithm.name(key, message, signature).unwrap()
        };
        let base = name(b"key", b"message", b"signature");
        assert_eq!(base, name(b"key", b"message", b"signature"));
        for other in [
            name(b"kez", b"message", b"signature"),
            name(b"key", b"messagf", b"signature"),
            name(b"key", b"message", b"signaturf"),
            name(b"keym", b"essage", b"signature"),
            name(b"key", b"messages", b"ignature"),
            name(b"", b"keymessage", b"signature"),
        ] {
            assert_ne!(base, other);
        }
        let other_kind = webpki::ALL_VERIFICATION_ALGS
            .iter()
            .copied()
            .find(|it| it.signature_alg_id() == alg_id::ECDSA_SHA384)
            .unwrap();
        let other = Remembering(other_kind).name(b"key", b"message", b"signature").unwrap();
        assert_ne!(base, other);
    }
}
