//! SCTP, of which no hook for `connect()` is told: nothing of it leaves or enters a strict scope.

use anyhow::{Result, ensure};
use harness::{Group, Lab, Record, Rules, stretched_seconds, uid};

const PYTHON: &str = "/usr/bin/python3";
const SERVE: &str = "import socket\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)\n\
    s.bind(('', 7000))\ns.listen()\nprint('listening=1', flush=True)\n\
    while True:\n    c, _ = s.accept()\n    print('got=' + c.recv(100).decode(), flush=True)\n    c.close()\n";
const SEND: &str = "import socket, sys\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)\n\
    s.settimeout(float(sys.argv[3]))\n\
    s.connect((sys.argv[1], 7000))\ns.sendall(sys.argv[2].encode())\n\
    s.close()\n";

#[test]
fn sctp_of_a_strict_scope_stays_on_the_host() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let open = lab.b.pod(Group::Outside, uid::STRANGER);
        let server = open.spawn(PYTHON, &["-c", SERVE])?;
        server.says("listening=1")?;
        let capture = lab.a.capture("strict")?;
        let words = ["-c", SEND, lab.b.ip, "sctp-of-the-strict", &stretched_seconds(3)];
        ensure!(lab.client().run(PYTHON, &words)?.failed(), "it connected");
        ensure!(!capture.stop()?.contain(b"sctp-of-the-strict"), "it crossed the wire");
        let refused = |it: &Record| {
            it.field("reason") == "transport_refused" && it.field("detail").contains("132")
        };
        lab.a.audit().expect("outbound", refused)?;
        // The same from no scope: the server answers and the capture sees it.
        let capture = lab.a.capture("control")?;
        let words = ["-c", SEND, lab.b.ip, "sctp-of-an-outsider", &stretched_seconds(20)];
        lab.a.pod(Group::Outside, uid::STRANGER).must(PYTHON, &words)?;
        server.says("got=sctp-of-an-outsider")?;
        ensure!(capture.stop()?.contain(b"sctp-of-an-outsider"), "the capture misses SCTP");
        ensure!(!server.said().contains("strict"), "{}", server.said());
        Ok(())
    })
}

#[test]
fn an_sctp_listener_of_a_strict_scope_is_reached_by_nobody() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let server = lab.server().spawn(PYTHON, &["-c", SERVE])?;
        server.says("listening=1")?;
        let words = ["-c", SEND, lab.b.ip, "sctp-to-the-strict", &stretched_seconds(3)];
        let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
        ensure!(outsider.run(PYTHON, &words)?.failed(), "it connected");
        ensure!(!server.said().contains("got="), "{}", server.said());
        let refused = |it: &Record| it.field("detail").contains("132");
        lab.b.audit().expect("inbound", refused)?;
        Ok(())
    })
}
