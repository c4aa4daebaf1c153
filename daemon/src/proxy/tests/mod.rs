//! Whole roads over loopback sockets, with a table in place of the kernel's maps.

pub(in crate::proxy) mod ca;
mod chain;
mod cuts;
mod federation;
mod interop;
mod node;
mod refusals;
mod rules;
mod table;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use ca::TestCa;
use node::{Node, Wish};
use rules::{allow, policy, to_peer};

const A: &str = "spiffe://one.test/a";
const B: &str = "spiffe://one.test/b";
const LONG: Duration = Duration::from_secs(30);

/// Two nodes of one trust domain that allow each other.
struct Two {
    ca: Arc<TestCa>,
    client: Node,
    server: Node,
}

impl Two {
    async fn start() -> Self {
        Self::wish(Wish::default(), Wish::default()).await
    }

    async fn wish(client: Wish, server: Wish) -> Self {
        let ca = Arc::new(TestCa::new("one.test"));
        let client = Node::start(&ca, A, policy([to_peer(B)], []), client).await;
        let server = Node::start(&ca, B, policy([], [allow(&[A])]), server).await;
        Self { ca, client, server }
    }

    /// A connection from application to application.
    async fn connected(&mut self) -> (TcpStream, TcpStream) {
        let app = self.client.dial(self.server.listen).await;
        (app, self.server.accept().await)
    }
}

async fn is_reset(socket: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let read = timeout(LONG, socket.read_to_end(&mut rest)).await.expect("no end, no reset");
    read.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}
