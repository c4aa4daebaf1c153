//! Tests over a real Unix socket and a real loopback port.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::dump::{
    AddEntries, BundleChanged, BundleDump, CaChanged, CaDump, CaOrder, DeleteBundle, DenyChanged,
    DenyDump, DenyOrder, DoctorDump, EntriesChanged, EntryDump, ExplainDump, ReloadDump, Replace,
    Replacing, ScopeDump, SetBundle, StatusDump, SvidDump,
};
use super::*;
use crate::audit::{Event, Record};
use crate::metrics::Metrics;
use crate::shutdown::Tasks;

/// A daemon with next to nothing in it.
struct Small;

impl Snapshots for Small {
    fn status(&self) -> StatusDump {
        StatusDump { node: "n1".to_owned(), ..StatusDump::default() }
    }

    fn connections(&self) -> Vec<Record> {
        vec![Record::new(Event::Open)]
    }

    fn scopes(&self) -> Vec<ScopeDump> {
        Vec::new()
    }

    fn entries(&self) -> Vec<EntryDump> {
        Vec::new()
    }

    fn svids(&self) -> Vec<SvidDump> {
        Vec::new()
    }

    fn denied(&self) -> Vec<DenyDump> {
        Vec::new()
    }

    fn authorities(&self) -> CaDump {
        CaDump::default()
    }

    fn bundles(&self) -> Vec<BundleDump> {
        Vec::new()
    }

    fn explain(&self, target: ExplainTarget) -> Answer<'_, ExplainDump> {
        Box::pin(async move {
            match target {
                ExplainTarget::Process(pid) => Err(Refused::NotFound(format!("no process {pid}"))),
                other => Ok(ExplainDump { subject: other.to_string(), ..ExplainDump::default() }),
            }
        })
    }

    fn doctor(&self) -> Answer<'_, DoctorDump> {
        Box::pin(async { Err(Refused::Failed("not today".to_owned())) })
    }

    fn reload(&self) -> Answer<'_, ReloadDump> {
        Box::pin(async { Ok(ReloadDump { changed: true, ..ReloadDump::default() }) })
    }
}

/// Who asked for what.
#[derive(Default)]
struct Asked(std::sync::Mutex<Vec<(String, Asker)>>);

impl Changes for Asked {
    fn deny(&self, order: DenyOrder, asker: Asker) -> Answer<'_, DenyChanged> {
        Box::pin(async move {
            self.0.lock().unwrap().push((order.reason, asker));
            Ok(DenyChanged::default())
        })
    }

    fn undo_deny(&self, order: DenyOrder, asker: Asker) -> Answer<'_, DenyChanged> {
        self.deny(order, asker)
    }

    fn change_authorities(&self, order: CaOrder, asker: Asker) -> Answer<'_, CaChanged> {
        Box::pin(async move {
            self.0.lock().unwrap().push((order.as_str().to_owned(), asker));
            Ok(CaChanged::default())
        })
    }

    fn add_entries(&self, order: AddEntries, asker: Asker) -> Answer<'_, EntriesChanged> {
        Box::pin(async move {
            let added: Vec<_> = order.entries.into_iter().map(|entry| entry.spiffe_id).collect();
            self.0.lock().unwrap().push((added.join(" "), asker));
            Ok(EntriesChanged { added, ..EntriesChanged::default() })
        })
    }

    fn remove_entries(&self, ids: Vec<String>, _asker: Asker) -> Answer<'_, EntriesChanged> {
        Box::pin(async move { Err(Refused::Wrong(format!("there is no entry `{}`", ids[0]))) })
    }

    fn set_bundle(&self, order: SetBundle, asker: Asker) -> Answer<'_, BundleChanged> {
        Box::pin(async move {
            self.0.lock().unwrap().push((order.text, asker));
            let trust_domain = order.trust_domain;
            Ok(BundleChanged { trust_domain, authorities: Some(1), ..BundleChanged::default() })
        })
    }

    fn delete_bundle(&self, order: DeleteBundle, _asker: Asker) -> Answer<'_, BundleChanged> {
        let domain = order.trust_domain;
        Box::pin(async move { Err(Refused::Wrong(format!("there is no bundle of {domain}"))) })
    }

    fn replace(&self, order: Replace, _asker: Asker) -> Answer<'_, Replacing> {
        let version = order.version;
        Box::pin(async move { Err(Refused::Wrong(format!("not by {version}"))) })
    }
}

struct Lab {
    asked: Arc<Asked>,
    dir: tempfile::TempDir,
    tasks: Tasks,
}

impl Lab {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut tasks = Tasks::new();
        let socket = AdminSocket::bind(&path(dir.path())).unwrap();
        let stop = tasks.stop();
        let asked = Arc::new(Asked::default());
        let changes = Arc::<Asked>::clone(&asked);
        tasks.spawn("admin", socket.serve(Arc::new(Small), changes, stop));
        Self { asked, dir, tasks }
    }

    async fn ask(&self, request: &'static str) -> String {
        let path = path(self.dir.path());
        let answer = move || {
            let mut stream = UnixStream::connect(path).unwrap();
            converse(&mut stream, request)
        };
        tokio::task::spawn_blocking(answer).await.unwrap()
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("run").join("tacit.sock")
}

fn converse<S: std::io::Read + std::io::Write>(stream: &mut S, request: &str) -> String {
    let line = format!("{request} HTTP/1.1\r\nhost: tacit\r\nconnection: close\r\n\r\n");
    stream.write_all(line.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn answers_on_a_socket_that_is_closed_to_others() {
    let mut lab = Lab::start();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let socket = path(lab.dir.path());
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o600, 0o700));
    for (request, status, part) in [
        ("GET /v1/status", 200, r#""node":"n1""#),
        ("GET /v1/connections", 200, r#""event":"open""#),
        ("GET /v1/scopes", 200, "[]"),
        ("GET /v1/explain?target=7%20-%3E%201.2.3.4%3A5", 200, r#""subject":"7 -> 1.2.3.4:5""#),
        ("GET /v1/explain?target=7", 404, "no process 7"),
        ("GET /v1/explain?target=redis", 400, "neither a pid"),
        ("GET /v1/doctor", 500, "not today"),
        ("POST /v1/reload", 200, r#""changed":true"#),
        ("GET /v1/reload", 405, ""),
        ("GET /v1/none", 404, ""),
    ] {
        let answer = lab.ask(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.contains(part), "{request}: {answer}");
    }
    assert_eq!(lab.tasks.drain(Duration::from_secs(5)).await, 0);
    assert!(!socket.exists(), "the socket is removed");
}

#[tokio::test]
async fn changes_are_asked_for_in_the_name_of_the_caller() {
    let lab = Lab::start();
    let post = |what: &str, body: &str| {
        let text = format!(
            "POST {what} HTTP/1.1\r\nhost: tacit\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let path = path(lab.dir.path());
        tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    };
    let entry = r#"{"id":null,"spiffe_id":"spiffe://td/a","selectors":[],"svid_ttl":null,
        "jwt_svid_ttl":null,"hint":null,"dns_names":[],"federates_with":[]}"#;
    let order = format!(r#"{{"source":"x","replace":false,"entries":[{entry}]}}"#);
    let answer = post("/v1/entries/add", &order).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("spiffe://td/a"), "{answer}");
    let me = Asker { uid: nix::unistd::geteuid().as_raw(), pid: Some(std::process::id()) };
    assert_eq!(*lab.asked.0.lock().unwrap(), [("spiffe://td/a".to_owned(), me)]);
    let answer = post("/v1/entries/remove", "[\"a\"]").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 422 ") && answer.contains("there is no entry `a`"));
    let answer = post("/v1/bundles/set", r#"{"trust_domain":"a","text":"b"}"#).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"authorities\":1"),
        "{answer}"
    );
    assert_eq!(lab.asked.0.lock().unwrap()[1], ("b".to_owned(), me));
    let answer = post("/v1/bundles/delete", r#"{"trust_domain":"a"}"#).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 422 "), "{answer}");
    let answer = post("/v1/entries/remove", "nonsense").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn replaces_a_dead_socket_but_not_a_served_one() {
    let lab = Lab::start();
    let socket = path(lab.dir.path());
    assert!(matches!(AdminSocket::bind(&socket), Err(SocketError::InUse(_))));
    let stale = lab.dir.path().join("run").join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(AdminSocket::bind(&stale).is_ok());
}

#[tokio::test]
async fn refuses_a_directory_that_others_may_write() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let bound = AdminSocket::bind(&dir.path().join("tacit.sock"));
    assert!(matches!(bound, Err(SocketError::OpenDirectory(_))));
}

/// Needs root: the socket is opened up, so that only the check of the caller stands in the way.
#[tokio::test]
async fn privileged_another_user_is_refused_though_the_file_would_let_it_in() {
    use std::os::unix::process::CommandExt as _;
    let lab = Lab::start();
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let socket = path(lab.dir.path());
    open(lab.dir.path(), 0o755);
    open(socket.parent().unwrap(), 0o755);
    open(&socket, 0o666);
    let ask = |uid: u32| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        let this = "admin::tests::asks_as_somebody_else";
        command.args(["--exact", this, "--ignored", "--nocapture"]);
        command.current_dir(socket.parent().unwrap()).uid(uid);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    for (uid, admitted) in [(0, true), (65_534, false)] {
        let output = ask(uid).await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.contains("admitted: true"), admitted, "uid {uid}: {said}");
        assert_eq!(said.contains("admitted: false"), !admitted, "uid {uid}: {said}");
    }
}

/// Not a test by itself: the process that the test above starts as another user.
#[test]
#[ignore = "run by another test, in a directory of its own"]
fn asks_as_somebody_else() {
    let Ok(mut stream) = UnixStream::connect("tacit.sock") else { return };
    let line = b"GET /v1/status HTTP/1.1\r\nhost: tacit\r\nconnection: close\r\n\r\n";
    let mut answer = Vec::new();
    let spoke = stream.write_all(line).and_then(|()| stream.read_to_end(&mut answer));
    println!("admitted: {}", spoke.is_ok() && answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn health_and_metrics_are_told_on_loopback_only() {
    let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    assert!(HealthListener::bind(everywhere).await.is_err());

    let listener = HealthListener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let readiness = Readiness::default();
    let attached = readiness.condition("programs attached");
    let metrics = Arc::new(Metrics::new(&["outbound"], &["no_rule"]));
    let mut tasks = Tasks::new();
    let stop = tasks.stop();
    tasks.spawn("health", listener.serve(metrics, readiness, stop));
    let ask = |request: &'static str| async move {
        let answer = move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            converse(&mut stream, request)
        };
        tokio::task::spawn_blocking(answer).await.unwrap()
    };
    assert!(ask("GET /live").await.starts_with("HTTP/1.1 200 "));
    let unready = ask("GET /ready").await;
    assert!(unready.starts_with("HTTP/1.1 503 ") && unready.contains("starting"), "{unready}");
    attached.met();
    assert!(ask("GET /ready").await.starts_with("HTTP/1.1 200 "));
    assert!(ask("GET /metrics").await.contains("tacit_connections_total"));
    assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
}
