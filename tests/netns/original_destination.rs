//! `SO_ORIGINAL_DST`, which programs made for netfilter redirection ask: the truth, on both ends.

use anyhow::{Result, ensure};
use harness::{Lab, Pod, Rules};

/// Serves one connection or makes one; prints what the option says of it.
const ASKS: &str = r#"
import socket, struct, sys
role, host, family = sys.argv[1:4]
v6 = family == "6"
def ask(s):
    raw = s.getsockopt(41 if v6 else 0, 80, 28 if v6 else 16)
    port = struct.unpack("!H", raw[2:4])[0]
    ip = socket.inet_ntop(socket.AF_INET6, raw[8:24]) if v6 else socket.inet_ntoa(raw[4:8])
    print(f"original={ip} port={port}", flush=True)
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if role == "serve":
    s.bind((host, 7000)); s.listen()
    c, _ = s.accept()
    data = c.recv(10); ask(c); c.sendall(data); c.close()
else:
    s.settimeout(20); s.connect((host, 7000)); ask(s)
    s.sendall(b"hello"); assert s.recv(10) == b"hello"
"#;

#[test]
fn both_ends_learn_the_address_that_was_dialled() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        for (ip, family) in [(lab.b.ip, "4"), (lab.b.ip6, "6")] {
            let words = |role| ["-c", ASKS, role, ip, family];
            let place: Pod = lab.server();
            let server = place.serve("/usr/bin/python3", &words("serve"), 7000)?;
            let said = lab.client().must("/usr/bin/python3", &words("connect"))?;
            let expected = format!("original={ip} port=7000");
            ensure!(said.contains(&expected), "the client learnt: {said}");
            server.says(&expected)?;
        }
        Ok(())
    })
}
