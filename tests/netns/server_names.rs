//! Servers that demand a name and a protocol: a rule gives both.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Rules, client_id, server_id, uid};

/// A stock TLS server that says which name and protocol its client asked for. It is first connected
/// to by whoever waits for it, without a word.
const SERVER: &str = r#"
import socket, ssl, sys
chain, key, bundle = sys.argv[1:]
c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
c.minimum_version = ssl.TLSVersion.TLSv1_3
c.load_cert_chain(chain, key)
c.load_verify_locations(bundle)
c.verify_mode = ssl.CERT_REQUIRED
c.set_alpn_protocols(["postgresql"])
def named(sock, name, context):
    print(f"name={name}")
c.sni_callback = named
s = socket.create_server(("0.0.0.0", 8443))
while True:
    raw, _ = s.accept()
    try:
        t = c.wrap_socket(raw, server_side=True)
        said = t.recv(100)
        print(f"alpn={t.selected_alpn_protocol()}")
        t.sendall(said.upper())
        t.close()
    except OSError as error:
        print("refused", error)
"#;

#[test]
fn a_rule_gives_alpn_and_server_name() -> Result<()> {
    let rules = Rules::client_calls_server().rules(&format!(
        "[[outbound]]\nname = \"named\"\nworkloads = [\"{}\"]\naction = \"mtls\"\n\
         peers = [\"{}\"]\nalpn = [\"postgresql\"]\nsni = \"db.example.org\"\n",
        client_id(),
        server_id()
    ));
    Lab::check(&rules, |lab| {
        let svid = lab.mint(&server_id(), &[])?;
        fs::set_permissions(
            svid.chain.parent().context("a directory")?,
            fs::Permissions::from_mode(0o755),
        )?;
        fs::set_permissions(&svid.key, fs::Permissions::from_mode(0o644))?;
        let paths = [&svid.chain, &svid.key, &svid.bundle].map(|path| path.to_string_lossy());
        let words = ["-u", "-c", SERVER, &paths[0], &paths[1], &paths[2]];
        let server =
            lab.b.pod(Group::Outside, uid::SERVER).serve("/usr/bin/python3", &words, 8443)?;
        let script = "import socket, sys\ns = socket.create_connection((sys.argv[1], 8443), 20)\n\
            s.sendall(b'abc')\nassert s.recv(10) == b'ABC'\n";
        let talked = lab.client().run("/usr/bin/python3", &["-c", script, lab.b.ip])?;
        talked.ok().with_context(|| server.said())?;
        ensure!(server.value("alpn")? == "postgresql", "{}", server.said());
        ensure!(server.value("name")? == "db.example.org", "{}", server.said());
        Ok(())
    })
}
