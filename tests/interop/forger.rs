//! Makes identities that are wrong in one way each, and the options by which OpenSSL shows them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use harness::{Lab, Minted};

use crate::stock_peer::{certificates, mint, readable};

/// An SVID that is to be seen expired lasts for ten seconds, which is as short as they come, and
/// counts to the end of the last of them; after this it has expired.
pub(crate) const EXPIRED_AFTER: std::time::Duration = std::time::Duration::from_secs(12);

/// What can be wrong with an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Nothing: the forger's work is sound.
    Nothing,
    /// An ID that no rule lists.
    Unlisted,
    /// Another trust domain under a root of its own.
    TrustDomain,
    /// The right ID under a root that is not the trust domain's.
    Root,
    /// Expired once [`EXPIRED_AFTER`] has passed.
    Expired,
    /// Two URI SANs, of which one would be right.
    TwoUris,
    /// No URI SAN.
    NoUri,
    /// The leaf is a CA.
    Authority,
    /// The leaf may sign certificates.
    SignsCertificates,
}

impl Wrong {
    /// The options of `openssl` for a peer whose right ID ends so: what it shows of itself. It
    /// verifies nobody: what is tested is whether it is believed.
    pub(crate) fn options(self, lab: &Lab, name: &str) -> Result<String> {
        let id = format!("spiffe://example.org/{name}");
        let minted = match self {
            Self::Unlisted => mint(lab, "spiffe://example.org/unlisted", &[])?,
            Self::Expired => mint(lab, &id, &["--ttl", "10s"])?,
            Self::TrustDomain => lab.mint_foreign("example.com", &format!("/{name}"))?,
            Self::Root => lab.mint_foreign("example.org", &format!("/{name}"))?,
            Self::Nothing => return forged(lab, &leaf(&format!("URI:{id}"))),
            Self::TwoUris => {
                let names = format!("URI:{id},URI:spiffe://example.org/second");
                return forged(lab, &leaf(&names));
            }
            Self::NoUri => return forged(lab, &leaf(&format!("DNS:{name}.example.org"))),
            Self::Authority => {
                return forged(lab, &extensions("TRUE", "digitalSignature", &format!("URI:{id}")));
            }
            Self::SignsCertificates => {
                let usage = "digitalSignature,keyCertSign";
                return forged(lab, &extensions("FALSE", usage, &format!("URI:{id}")));
            }
        };
        readable(&minted)?;
        Ok(shown(&minted.chain, &minted.key))
    }

    /// The reason and the detail of the refusal.
    pub(crate) fn said(self) -> (&'static str, &'static str) {
        let detail = match self {
            Self::Nothing => "",
            Self::Unlisted => {
                return ("peer_not_allowed", "spiffe://example.org/unlisted is not allowed");
            }
            Self::Expired => return ("peer_expired", "expired at "),
            Self::TrustDomain => "no trust bundle is known for trust domain example.com",
            Self::Root => "no authority of the ID's trust domain signed this chain",
            Self::TwoUris => "the leaf has 2 URI SANs; an SVID has exactly one",
            Self::NoUri => "the leaf has no URI SAN, so no SPIFFE ID",
            Self::Authority => "the leaf is the certificate of an authority (CA: true)",
            Self::SignsCertificates => "key usage of the leaf: keyCertSign is set",
        };
        ("peer_unverified", detail)
    }
}

/// The extensions of a sound leaf, with this subject alternative name.
fn leaf(alternative_names: &str) -> String {
    extensions("FALSE", "digitalSignature", alternative_names)
}

fn extensions(authority: &str, usage: &str, alternative_names: &str) -> String {
    format!(
        "basicConstraints=critical,CA:{authority}\nkeyUsage=critical,{usage}\n\
         extendedKeyUsage=clientAuth,serverAuth\nsubjectAltName=critical,{alternative_names}\n"
    )
}

/// The options that show a chain and its key, without any verification of the other side.
fn shown(chain: &Path, key: &Path) -> String {
    let rest = chain.with_extension("rest");
    let all = certificates(&fs::read_to_string(chain).unwrap_or_default());
    // A chain of one has no rest; an empty file would be refused as an option.
    let more = match all.get(1..) {
        Some(rest_of) if !rest_of.is_empty() && fs::write(&rest, rest_of.concat()).is_ok() => {
            format!("-cert_chain {}", rest.display())
        }
        _ => String::new(),
    };
    format!("-cert {} -key {} {more}", chain.display(), key.display())
}

/// A leaf with these extensions, signed with OpenSSL by node a's own authority, as a thief of its
/// key would do it.
fn forged(lab: &Lab, extensions: &str) -> Result<String> {
    let folder = lab.dir().join("forged");
    fs::create_dir_all(&folder)?;
    let file = |name: &str| folder.join(name);
    let node = fs::read_to_string(lab.a.state().join("ca/node.pem"))?;
    let authority = certificates(&node);
    fs::write(file("ca.pem"), authority.first().context("no certificate of the node")?)?;
    fs::write(file("ca.key"), private_key(&node).context("no key of the node")?)?;
    fs::write(file("extensions"), extensions)?;
    openssl(&folder, "ecparam -name prime256v1 -genkey -noout -out leaf.key")?;
    openssl(&folder, "req -new -key leaf.key -subj /O=forged -out leaf.csr")?;
    openssl(
        &folder,
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 \
         -extfile extensions -out leaf.pem",
    )?;
    let chain = [fs::read_to_string(file("leaf.pem"))?, authority.concat()].concat();
    fs::write(file("chain.pem"), chain)?;
    let svid = Minted { chain: file("chain.pem"), key: file("leaf.key"), bundle: file("ca.pem") };
    readable(&svid)?;
    Ok(shown(&svid.chain, &svid.key))
}

/// The PKCS#8 key among the blocks of a PEM file.
fn private_key(pem: &str) -> Option<String> {
    const END: &str = "-----END PRIVATE KEY-----";
    let start = pem.find("-----BEGIN PRIVATE KEY-----")?;
    let end = pem.find(END)? + END.len();
    pem.get(start..end).map(|key| format!("{key}\n"))
}

fn openssl(folder: &PathBuf, line: &str) -> Result<()> {
    let output =
        Command::new("openssl").args(line.split_whitespace()).current_dir(folder).output()?;
    ensure!(output.status.success(), "openssl {line}: {}", harness::text(&output.stderr));
    Ok(())
}
