//! Stock peers: OpenSSL with an SVID of its own, on either side. Needs the `openssl` program.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ca::Wanted;
use super::rules::{policy, to_peer};
use super::{A, B, LONG, TestCa, Two};
use crate::spiffe::pem_block;

/// Ends with the test.
struct Openssl(Child);

impl Drop for Openssl {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        assert!(ended.is_ok(), "{ended:?}");
    }
}

struct Files {
    dir: TempDir,
}

impl Files {
    fn of(ca: &TestCa, id: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (leaf, key) = ca.sign(&Wanted::id(id));
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("svid.pem", &pem_block("CERTIFICATE", &leaf));
        write("key.pem", &pem_block("PRIVATE KEY", &key));
        write("bundle.pem", &ca.bundle().to_pem());
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn openssl(&self, verb: &str) -> Command {
        let mut command = Command::new("openssl");
        command.arg(verb).args(["-quiet", "-tls1_3", "-verify_return_error"]);
        command.arg("-cert").arg(self.path("svid.pem")).arg("-key").arg(self.path("key.pem"));
        command.arg("-CAfile").arg(self.path("bundle.pem"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn an_openssl_client_reaches_a_captured_server() {
    let mut two = Two::start().await;
    let files = Files::of(&two.ca, A);
    let mut command = files.openssl("s_client");
    command.arg("-connect").arg(two.server.listen.to_string());
    let mut client = Openssl(command.spawn().unwrap());
    let mut server = two.server.accept().await;
    std::io::Write::write_all(client.0.stdin.as_mut().unwrap(), b"question\n").unwrap();
    let mut heard = [0; 9];
    timeout(LONG, server.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"question\n");
    server.write_all(b"answer\n").await.unwrap();
    let mut stdout = client.0.stdout.take().unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = [0; 7];
        std::io::Read::read_exact(&mut stdout, &mut answer).map(|()| answer)
    });
    assert_eq!(&timeout(LONG, answer).await.unwrap().unwrap().unwrap(), b"answer\n");
    drop((client, server));
    let record = two.server.record().await;
    assert_eq!(record.peer.unwrap().spiffe_id.as_deref(), Some(A));
    assert_eq!(record.protection.as_deref(), Some("mtls"));
}

#[tokio::test]
async fn a_captured_client_reaches_an_openssl_server() {
    let two = Two::start().await;
    let files = Files::of(&two.ca, B);
    let port = free_port();
    let mut command = files.openssl("s_server");
    command.args(["-Verify", "3", "-naccept", "1", "-accept"]).arg(port.to_string());
    let mut server = Openssl(command.spawn().unwrap());
    two.client.policy.send_replace(policy([to_peer(B)], []).into());
    let mut app = connect(&two, port).await;
    app.write_all(b"question\n").await.unwrap();
    let mut stdout = server.0.stdout.take().unwrap();
    let heard = tokio::task::spawn_blocking(move || {
        let mut heard = [0; 9];
        std::io::Read::read_exact(&mut stdout, &mut heard).map(|()| heard)
    });
    assert_eq!(&timeout(LONG, heard).await.unwrap().unwrap().unwrap(), b"question\n");
    std::io::Write::write_all(server.0.stdin.as_mut().unwrap(), b"answer\n").unwrap();
    let mut answer = [0; 7];
    timeout(LONG, app.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"answer\n");
}

/// Waits for the server by looking into the kernel's table: a connection would use it up.
async fn connect(two: &Two, port: u16) -> TcpStream {
    let wanted = format!(":{port:04X} 00000000");
    for _ in 0..200 {
        let listening = |file| fs::read_to_string(file).is_ok_and(|table| table.contains(&wanted));
        if listening("/proc/net/tcp")
            || fs::read_to_string("/proc/net/tcp6").is_ok_and(|table| {
                table.contains(&format!(":{port:04X} 00000000000000000000000000000000:0000 0A"))
            })
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    two.client.dial(([127, 0, 0, 1], port).into()).await
}
