//! A permissive scope: mTLS where a rule says so, what it was before where none does, and the
//! record says which.

use anyhow::{Result, ensure};
use harness::{Group, Lab, Record, Rules, client_id, probe, server_id, uid};

const MARKER: &str = "c0ffee-of-the-permissive";
/// A client that is silent until it has been greeted.
const GREETED: &str = "import socket, sys\n\
    s = socket.create_connection((sys.argv[1], 7000), 15)\n\
    said = s.recv(100)\nassert said == b'220 welcome\\r\\n', said\n\
    s.sendall(b'bye')\ns.shutdown(socket.SHUT_WR)\nassert s.recv(100) == b'bye'\n";

fn talk(pod: &harness::Pod, address: &str) -> Result<harness::Finished> {
    pod.run(probe()?, &["talk", address, "--text", MARKER])
}

#[test]
fn outbound_is_plain_without_a_rule_and_protected_with_one() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _protected = lab.echo(7000)?;
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let _plain = plain.serve(probe()?, &["serve", "echo", "[::]:7001"], 7001)?;

        let capture = lab.a.capture("plain")?;
        let ruleless = lab.a.pod(Group::Permissive, uid::STRANGER);
        talk(&ruleless, &format!("{}:7001", lab.b.ip))?.ok()?;
        let packets = capture.stop()?;
        ensure!(packets.contain(MARKER.as_bytes()) && !packets.hold_tls(), "it was not plain");
        let record = lab.a.audit().expect_completed("outbound")?;
        ensure!(record.field("protection") == "plaintext", "{}", record.json());
        ensure!(record.field("rule") == "default", "{}", record.json());

        let capture = lab.a.capture("protected")?;
        let ruled = lab.a.pod(Group::Permissive, uid::CLIENT);
        talk(&ruled, &format!("{}:7000", lab.b.ip))?.ok()?;
        let packets = capture.stop()?;
        ensure!(!packets.contain(MARKER.as_bytes()) && packets.hold_tls(), "it was plain");
        let mtls = |it: &Record| it.field("protection") == "mtls";
        let record = lab.a.audit().expect("outbound", mtls)?;
        ensure!(record.field("peer.spiffe_id") == server_id(), "{}", record.json());
        Ok(())
    })
}

#[test]
fn inbound_admits_both_and_records_which() -> Result<()> {
    let rules = Rules::client_calls_server().rules(&format!(
        "[[outbound]]\nname = \"out\"\naction = \"mtls\"\npeers = [\"{}\"]\n\
         workloads = [\"{}\"]\n",
        server_id(),
        client_id()
    ));
    Lab::check(&rules, |lab| {
        let server = lab.b.pod(Group::Permissive, uid::SERVER);
        let _echo = server.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let to = format!("{}:7000", lab.b.ip);
        talk(&lab.a.pod(Group::Outside, uid::STRANGER), &to)?.ok()?;
        let record = lab.b.audit().expect_completed("inbound")?;
        ensure!(record.field("protection") == "plaintext", "{}", record.json());
        ensure!(record.field("peer.spiffe_id").is_empty(), "{}", record.json());
        talk(&lab.client(), &to)?.ok()?;
        let mtls = |it: &Record| it.field("protection") == "mtls";
        let record = lab.b.audit().expect("inbound", mtls)?;
        ensure!(record.field("peer.spiffe_id") == client_id(), "{}", record.json());
        Ok(())
    })
}

/// The application's own TLS comes from no mesh client, and no rule speaks of it.
#[test]
fn unmarked_tls_is_passed_through() -> Result<()> {
    Lab::check(&Rules::none(), |lab| {
        let server = lab.b.pod(Group::Permissive, uid::SERVER);
        let folder = server.folder("tls")?;
        let (key, cert) = (folder.join("key.pem"), folder.join("cert.pem"));
        let (key, cert) = (key.to_string_lossy(), cert.to_string_lossy());
        server.must(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                "/CN=own",
                "-keyout",
                &key,
                "-out",
                &cert,
            ],
        )?;
        let words = ["s_server", "-accept", "8443", "-www", "-cert", &cert, "-key", &key];
        let _server = server.serve("openssl", &words, 8443)?;
        let line = format!(
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 20 openssl s_client -connect {}:8443 \
             -ign_eof",
            lab.b.ip
        );
        let said = lab.a.pod(Group::Outside, uid::STRANGER).must("sh", &["-c", &line])?;
        ensure!(said.contains("CN = own") || said.contains("CN=own"), "s_client saw: {said}");
        let record = lab.b.audit().expect("inbound", |it| !it.field("protection").is_empty())?;
        ensure!(record.field("protection") == "passthrough", "{}", record.json());
        ensure!(record.field("peer.spiffe_id").is_empty(), "{}", record.json());
        Ok(())
    })
}

#[test]
fn a_server_that_speaks_first_greets_a_silent_plaintext_client() -> Result<()> {
    let rules = Rules::none().proxy("first_byte_timeout = \"500ms\"");
    Lab::check(&rules, |lab| {
        let server = lab.b.pod(Group::Permissive, uid::SERVER);
        let _greeter = server.serve(probe()?, &["serve", "greet", "[::]:7000"], 7000)?;
        let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
        outsider.must("/usr/bin/python3", &["-c", GREETED, lab.b.ip])?;
        let record = lab.b.audit().expect_completed("inbound")?;
        ensure!(record.field("protection") == "plaintext", "{}", record.json());
        Ok(())
    })
}
