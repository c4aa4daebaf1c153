//! Everything about a client's identity that can be wrong. Each is refused with its own reason, and
//! the server never sees the connection.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Lab, Minted, Rules, client_id};

use crate::stock_peer::{MARKER, certificates, mint, nginx, readable, s_client, with_svid};

/// Makes a client with these options call the captured server, which must refuse for this reason.
fn refused(reason: &str, options: impl FnOnce(&Lab) -> Result<String>) -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _nginx = nginx(lab)?;
        let said: Finished = s_client(lab, &options(lab)?)?;
        ensure!(!said.stdout.contains(MARKER), "it got an answer: {said:?}");
        let record = lab.b.audit().expect_denied("inbound", reason)?;
        ensure!(record.field("local.spiffe_id") == harness::server_id(), "{}", record.json());
        Ok(())
    })
}

#[test]
fn an_id_that_no_rule_lists() -> Result<()> {
    refused("peer_not_allowed", |lab| with_svid(&mint(lab, "spiffe://example.org/unlisted", &[])?))
}

#[test]
fn no_certificate() -> Result<()> {
    refused("peer_unverified", |_| Ok(String::new()))
}

#[test]
fn another_trust_domain() -> Result<()> {
    refused("peer_unverified", |lab| {
        let svid = lab.mint_foreign("example.com", "/client")?;
        readable(&svid)?;
        // It need not trust the server: what is tested is whether the server trusts it.
        Ok(shown(&svid.chain, &svid.key))
    })
}

/// The right trust domain in the ID, under a root that is not the trust domain's.
#[test]
fn the_right_id_under_another_root() -> Result<()> {
    refused("peer_unverified", |lab| {
        let svid = lab.mint_foreign("example.org", "/client")?;
        readable(&svid)?;
        Ok(shown(&svid.chain, &svid.key))
    })
}

#[test]
fn an_expired_svid() -> Result<()> {
    refused("peer_expired", |lab| {
        let svid = mint(lab, &client_id(), &["--ttl", "10s"])?;
        sleep(Duration::from_secs(12));
        Ok(shown(&svid.chain, &svid.key))
    })
}

#[test]
fn two_uri_sans() -> Result<()> {
    refused("peer_unverified", |lab| {
        forged(lab, &leaf("URI:spiffe://example.org/client,URI:spiffe://example.org/server"))
    })
}

#[test]
fn no_uri_san() -> Result<()> {
    refused("peer_unverified", |lab| forged(lab, &leaf("DNS:client.example.org")))
}

#[test]
fn a_leaf_that_is_a_ca() -> Result<()> {
    refused("peer_unverified", |lab| {
        forged(
            lab,
            "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature\n\
             extendedKeyUsage=clientAuth,serverAuth\n\
             subjectAltName=critical,URI:spiffe://example.org/client\n",
        )
    })
}

#[test]
fn a_leaf_that_may_sign_certificates() -> Result<()> {
    refused("peer_unverified", |lab| {
        forged(
            lab,
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,keyCertSign\n\
             extendedKeyUsage=clientAuth,serverAuth\n\
             subjectAltName=critical,URI:spiffe://example.org/client\n",
        )
    })
}

/// The forger's own work is sound: with nothing wrong in it, its leaf is admitted.
#[test]
fn control_run_of_the_forger() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _nginx = nginx(lab)?;
        let options = forged(lab, &leaf(&format!("URI:{}", client_id())))?;
        ensure!(s_client(lab, &options)?.ok()?.contains(MARKER));
        Ok(())
    })
}

/// The extensions of a sound leaf, with this subject alternative name.
fn leaf(alternative_names: &str) -> String {
    format!(
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
         extendedKeyUsage=clientAuth,serverAuth\nsubjectAltName=critical,{alternative_names}\n"
    )
}

/// The options that show a chain and its key, without any verification of the server.
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
