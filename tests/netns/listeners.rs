//! Listeners that are older than the daemon and in several hands.

use anyhow::{Result, ensure};
use harness::{Group, Lab, Rules, probe, uid};

/// Listens as root; a child that has become another user holds the same socket and answers.
const TWO_HOLDERS: &str = r#"
import os, socket, sys
s = socket.create_server(("0.0.0.0", 7000))
if os.fork() == 0:
    os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
while True:
    c, _ = s.accept()
    print("accept=", flush=True)
    c.close()
"#;

#[test]
fn an_older_listener_in_two_hands_is_refused() -> Result<()> {
    let rules = Rules::client_calls_server().also("server", &["unix:uid:0"]);
    Lab::prepared(&rules, |lab| {
        let root = lab.b.pod(Group::Strict, 0);
        let words = ["-c", TWO_HOLDERS, &uid::SERVER.to_string()];
        let server = root.serve("/usr/bin/python3", &words, 7000)?;
        lab.a.start()?;
        lab.b.start()?;
        let to = format!("{}:7000", lab.b.ip);
        ensure!(lab.client().run(probe()?, &["talk", &to])?.failed());
        lab.b.audit().expect_denied("inbound", "listener_ambiguous")?;
        ensure!(!server.said().contains("accept="), "the server saw: {}", server.said());
        Ok(())
    })
}
