//! Asks a running daemon: one request over its control socket, one JSON answer.

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::fault::Fault;
use crate::admin::dump::{Replace, Replacing};

/// Longer than anything that the daemon does to answer.
const PATIENCE: Duration = Duration::from_mins(2);

/// Asks a question.
pub(super) fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Fault> {
    ask(socket, Method::GET, path, Bytes::new())
}

/// Gives an order.
pub(super) fn post<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Fault> {
    ask(socket, Method::POST, path, Bytes::new())
}

/// Gives an order that says more than its name.
pub(super) fn post_json<T, B>(socket: &Path, path: &str, body: &B) -> Result<T, Fault>
where
    T: DeserializeOwned,
    B: Serialize,
{
    let body = serde_json::to_vec(body).map_err(Fault::Unreadable)?;
    ask(socket, Method::POST, path, body.into())
}

/// The text of a file, or of standard input if it is `-`.
pub(super) fn read_file(file: &Path) -> Result<String, Fault> {
    let read = if file == Path::new("-") {
        io::read_to_string(io::stdin().lock())
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|error| Fault::Read(file.to_owned(), error))
}

/// Asks the daemon behind this socket to let the caller take its place. None if no daemon answers.
///
/// # Errors
/// It refuses, and says why; or the conversation came to grief.
pub fn ask_to_replace(
    socket: &Path,
    order: &Replace,
) -> Result<Option<Replacing>, Box<dyn Error + Send + Sync>> {
    match post_json(socket, "/v1/replace", order) {
        Ok(answer) => Ok(Some(answer)),
        Err(Fault::Unreachable { .. }) => Ok(None),
        Err(fault) => Err(Box::new(fault)),
    }
}

/// A value as a part of a query. Source: RFC 3986 §2.1, §2.3.
pub(super) fn quoted(value: &str) -> String {
    let quote = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    value.bytes().map(quote).collect()
}

fn ask<T>(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<T, Fault>
where
    T: DeserializeOwned,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (status, body) = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, converse(socket, method, path, body))
            .await
            .map_err(|_elapsed| Fault::TimedOut)?
    })?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(Fault::Unreadable);
    }
    let problem = serde_json::from_slice::<Problem>(&body);
    Err(Fault::Refused(
        problem.map_or_else(|_| format!("the daemon says: {status}"), |it| it.error),
    ))
}

#[derive(Deserialize)]
struct Problem {
    error: String,
}

async fn converse(
    socket: &Path,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Fault> {
    let stream = UnixStream::connect(socket).await.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => Fault::Forbidden(socket.to_owned()),
        _ => Fault::Unreachable { socket: socket.to_owned(), source },
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(Fault::Broken)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "tacit")
        .header(CONNECTION, "close")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(body))
        .map_err(|malformed| Fault::Io(io::Error::other(malformed)))?;
    let exchange = async move {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    };
    // The answer counts; how the connection then ends does not.
    let (answer, _ended) = tokio::join!(exchange, connection);
    answer.map_err(Fault::Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_a_query_cannot_hold() {
        assert_eq!(quoted("7 -> [::1]:80&"), "7%20-%3E%20%5B%3A%3A1%5D%3A80%26");
    }

    /// Answers one request with this, and gives the request back.
    fn serve(socket: &Path, answer: &'static str) -> std::thread::JoinHandle<String> {
        use std::io::{BufRead as _, Write as _};
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = io::BufReader::new(stream.try_clone().unwrap()).lines();
            let asked: Vec<_> = lines.map(Result::unwrap).take_while(|l| !l.is_empty()).collect();
            stream.write_all(answer.as_bytes()).unwrap();
            asked.join("\n")
        })
    }

    #[test]
    fn asks_and_reads_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("a.sock");
        let server = serve(&socket, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n[1,2,3]");
        assert_eq!(get::<Vec<u32>>(&socket, "/v1/x").unwrap(), [1, 2, 3]);
        assert!(server.join().unwrap().starts_with("GET /v1/x HTTP/1.1"));

        let socket = dir.path().join("b.sock");
        let server = serve(
            &socket,
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n{\"error\":\"none\"}",
        );
        let fault = post::<()>(&socket, "/v1/x").unwrap_err();
        assert_eq!(
            (fault.to_string().as_str(), fault.exit()),
            ("none", super::super::Exit::Failure)
        );
        assert!(server.join().unwrap().starts_with("POST /v1/x"));
    }

    #[test]
    fn says_so_when_nobody_answers() {
        let dir = tempfile::tempdir().unwrap();
        let fault = get::<()>(&dir.path().join("none.sock"), "/v1/status").unwrap_err();
        assert_eq!(fault.exit(), super::super::Exit::DaemonUnreachable);
        assert!(fault.to_string().contains("no daemon answers at"), "{fault}");
    }
}
